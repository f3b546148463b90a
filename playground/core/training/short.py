"""Does the model answer an instruction and stop there? For the recipe that teaches to follow instructions."""

from collections.abc import Callable

from playground.core import scoring
from playground.core.cores import fixed
from playground.core.messages import Conversation
from playground.core.training.formats import is_short
from playground.core.training.scores import answer_all

NAME = "short_answers"
LONGEST = 48  # tokens; an answer that has as many did not end by itself


def score(model, tokenizer, template, recipe, unit: Callable = fixed) -> scoring.Score:
    """How many of the recipe's questions, none of which is in its data, get an answer and nothing after it."""
    asked = [Conversation([{"role": "user", "content": text}], []) for text in recipe.questions]
    answers = answer_all(model, tokenizer, template, asked, LONGEST, unit=unit)
    ended = [len(tokenizer.encode(answer)[0]) < LONGEST - 1 for answer in answers]
    holds = [end and is_short(answer) for end, answer in zip(ended, answers, strict=True)]
    return scoring.score(["exact" if short else "malformed" for short in holds])
