"""Modelfiles by probing: the table writes what the template writes; what it cannot is refused."""

import itertools
import re

import pytest

from playground.core import ollama, templates
from playground.core.messages import Conversation
from playground.core.templates import Template, render
from playground.errors import PlaygroundError

ACTION = re.compile(r"\{\{-? ?(.*?) ?-?\}\}", re.DOTALL)


def go(text: str, messages: list[dict]) -> str:
    """What Go's text/template makes of the few actions that are used here."""
    pieces = ACTION.split(text)  # text, action, text, action, …
    out, state = [], {}

    def holds(condition: str, message: dict) -> bool:
        left, right = re.fullmatch(r'eq (\S+) "(\w+)"', condition).groups()
        return (message["role"] if left == ".Role" else state["before"]) == right

    def block(at: int, message: dict, live: bool) -> int:
        """Run from piece `at` up to the `end` or `else` that is not its own; returns its place."""
        while at < len(pieces):
            if at % 2 == 0:
                out.append(pieces[at] if live else "")
                at += 1
                continue
            action = pieces[at]
            if action == "end" or action.startswith("else"):
                return at
            if action.startswith("range"):
                for one in messages:
                    after = block(at + 1, one, live)
                at = after
            elif action.startswith("if "):
                taken, condition = False, action.removeprefix("if ")
                while True:
                    now = live and not taken and holds(condition, message)
                    taken |= now
                    at = block(at + 1, message, now)
                    if pieces[at] == "end":
                        break
                    condition = pieces[at].removeprefix("else if ")
            elif live and action == ".Content":
                out.append(message["content"])
            elif live and action == "$before = .Role":
                state["before"] = message["role"]
            elif live and action.startswith("$before := "):
                state["before"] = action.split('"')[1]
            elif live:
                out.append(action.strip('"'))
            at += 1
        return at

    block(0, {}, True)
    return "".join(out)


def conversation(roles: str) -> list[dict]:
    words = (f"word {number} of it" for number in itertools.count())
    return [{"role": ollama.LETTERS[letter], "content": next(words)} for letter in roles]


@pytest.mark.parametrize("roles", ["u", "su", "uau", "suauauau"])
@pytest.mark.parametrize("name", templates.names())
def test_the_go_template_writes_the_trained_prompt(name, roles, tokenizer):
    template, messages = templates.load(name), conversation(roles)
    wanted = render(template, Conversation(messages), tokenizer, add_generation_prompt=True).text
    table = ollama.probe(template, tokenizer)
    assert table.system  # each of the built-in ones has a place for it
    assert go(ollama.go_template(table), messages) == wanted


def test_the_modelfile_names_weights_template_and_stops(tokenizer):
    text = ollama.modelfile(templates.load("chatml-tools"), tokenizer, "./model.gguf", "mine")
    assert "\nFROM ./model.gguf\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "without tools" in text


def pasted(body):
    return Template("odd", "{% for m in messages %}" + body + "{% endfor %}")


@pytest.mark.parametrize(
    "template, words",
    [
        (pasted("{{ loop.index }}: {{ m.content }}\n"), "differently further on"),
        (pasted("{{ m.content | upper }}"), "does not write every message"),
        (pasted("{{ strftime_now('%d') if strftime_now is defined }}{{ m.content }}"), "today's date"),
    ],
)
def test_what_go_cannot_say_is_refused(template, words, tokenizer):
    with pytest.raises(PlaygroundError, match=words):
        ollama.modelfile(template, tokenizer)


def test_a_template_without_a_system_message_leaves_it_out(tokenizer):
    body = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}[{{ m.role }}]{{ m.content }}"
    text = ollama.modelfile(pasted(body), tokenizer)
    assert "left out" in text
    assert 'eq .Role "system"' not in text


def test_braces_are_text(tokenizer):
    template = pasted("{{ '{{' }} {{ m.role }} {{ '{' }}{{ m.content }}")
    table = ollama.probe(template, tokenizer)
    messages = conversation("uau")
    wanted = render(template, Conversation(messages), tokenizer, add_generation_prompt=True).text
    assert go(ollama.go_template(table), messages) == wanted
    assert "{{{" not in ollama.go_template(table)


def test_bos_is_left_to_ollama_where_the_tokenizer_adds_it(tokenizer_folders):
    from tokenizers import processors

    from playground.core.tokenizer import Tokenizer

    tokenizer, template = Tokenizer.load(tokenizer_folders["metaspace"]), templates.load("chatml")
    assert ollama.probe(template, tokenizer).before["start", "user"].startswith("<s>")
    bos = tokenizer.backend.token_to_id("<s>")
    tokenizer.backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    assert ollama.probe(template, tokenizer).before["start", "user"] == "<|im_start|>user\n"
