"""What the generator needs of a language: how people ask, name values, and write numbers and dates.

Every table of phrases has one set for training and one for testing, which share no phrase. A phrase holds no digit, so
every digit of a question belongs to a value.
"""

from dataclasses import dataclass

Split = dict[str, list]


@dataclass(frozen=True)
class Language:
    """Slots of phrases: `{task}` what shall be done, `{slots}` the values, `{label}` a parameter, `{v}` a value."""

    code: str
    decimal: str  # between the whole part and the rest of a number
    last: str  # before the last item of a list
    asked: Split  # with values
    bare: Split  # without
    noun: Split  # where the task is no command: "the price of a share"
    next: Split  # between two requests
    labelled: tuple[str, ...]  # a value after its parameter's name
    said: dict[str, tuple[str, ...]]  # kind of a value → ways to say it where nothing else could be meant
    roles: dict[str, str]  # "from", "to" → the word before such a value
    between: tuple[str, ...]  # words that may stand between a parameter's name and its value
    yes: tuple[str, ...]  # of a truth value, with its {label}
    no: tuple[str, ...]
    months: tuple[str, ...]
    dates: tuple[str, ...]  # {day}, {month}, {year}
    numbers: dict[int, str]  # words for small numbers
    labels: dict[str, str]  # a parameter's name in this language
    units: dict[str, tuple[str, ...]]  # a unit or currency → its words, in this language
    wants: Split  # the assistant asks for a missing {label}
    gives: Split  # the visitor's answer with {v}
    refuses: Split  # no tool is there for it
    chat: Split  # (question, answer)
    bare_noun: Split | None = None  # without values, where the task is no command; `bare` where that takes any words
