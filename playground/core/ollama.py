"""A chat template as Ollama's Modelfile.

Ollama's templates are Go text templates, and Jinja cannot be translated into them in general. What is written before
a message is found by rendering conversations of sentinels: a table (role before, role) → text. That table is exact for
every template whose text around a message depends on its own role and on the one before it; whether it does is
checked on further conversations, and where it does not there is no Modelfile.
https://github.com/ollama/ollama/blob/main/docs/template.md
"""

import itertools
import json
from dataclasses import dataclass

from playground.core.messages import Conversation
from playground.core.templates import Template, render, stop_strings
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError

START = "start"
ROLES = ("system", "user", "assistant")
# What a template may follow what with; each is part of the probes.
SEQUENCES = ("u", "ua", "uau", "uaua", "uauau", "su", "sua", "suau", "suaua", "suauau")
LETTERS = {"s": "system", "u": "user", "a": "assistant"}


@dataclass(frozen=True)
class Table:
    """`before[(previous, role)]`: the text before a message; `prompt`: what then opens the model's turn."""

    before: dict[tuple[str, str], str]
    prompt: str

    @property
    def system(self) -> bool:
        return (START, "system") in self.before


def modelfile(template: Template, tokenizer: Tokenizer, source: str = ".", name: str = "") -> str:
    """A Modelfile for the weights in `source`. Raises PlaygroundError where the template cannot be expressed."""
    table = probe(template, tokenizer)
    go = go_template(table)
    if '"""' in go:
        raise PlaygroundError(f'the template {template.name} writes """, which a Modelfile cannot hold')
    lines = [f"# {name or template.name}: the template that it was trained with, found by rendering it"]
    if not table.system:
        lines.append("# it has no place for a system message, which is left out")
    if leaves_out_tools(template):
        lines.append("# without tools: Ollama would write their signatures in another form than the trained one")
    lines += [f"FROM {source}", f'TEMPLATE """{go}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stop_strings(template, tokenizer)]
    return "\n".join([*lines, "PARAMETER temperature 0.7", ""])


def leaves_out_tools(template: Template) -> bool:
    """Whether the template speaks of tools, which no Modelfile made here does."""
    return "tools" in template.text


def probe(template: Template, tokenizer: Tokenizer) -> Table:
    """The texts around messages, or PlaygroundError in one sentence where they depend on more than two roles."""
    if "strftime_now" in template.text:
        raise PlaygroundError(f"the template {template.name} writes today's date, which a Modelfile cannot")
    rendered = {}
    for sequence in SEQUENCES:
        try:
            rendered[sequence] = _pieces(template, tokenizer, sequence)
        except PlaygroundError:
            if not sequence.startswith("s"):
                raise
            rendered[sequence] = None
    if None in rendered.values():  # it refuses or drops a system message
        rendered = {sequence: pieces for sequence, pieces in rendered.items() if not sequence.startswith("s")}
    table = _table(template, rendered)
    return Table({key: _without_bos(text, key, tokenizer) for key, text in table.before.items()}, table.prompt)


def _pieces(template: Template, tokenizer: Tokenizer, sequence: str) -> list[str]:
    """The texts before, between and after the messages' contents."""
    marks = [f"qz{number}{LETTERS[letter]}qz" for number, letter in enumerate(sequence)]
    messages = [{"role": LETTERS[letter], "content": mark} for letter, mark in zip(sequence, marks, strict=True)]
    prompt = sequence.endswith("u")
    text = render(template, Conversation(messages), tokenizer, add_generation_prompt=prompt, spans=False).text
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise PlaygroundError(
                f"the template {template.name} does not write every message in its order, so it cannot be written as "
                "a Modelfile; use the merged folder, which holds the template as it is"
            )
        pieces.append(before)
    return [*pieces, text]


def _table(template: Template, rendered: dict[str, list[str]]) -> Table:
    before, prompt = {}, {}
    for sequence, pieces in rendered.items():
        roles = [START, *(LETTERS[letter] for letter in sequence)]
        found = [(before, pair, text) for pair, text in zip(itertools.pairwise(roles), pieces, strict=False)]
        if roles[-1] == "user":
            found.append((prompt, "user", pieces[-1]))
        for place, key, text in found:
            if place.setdefault(key, text) != text:
                raise PlaygroundError(
                    f"the template {template.name} writes a message differently further on in a conversation, which a "
                    "Modelfile made by probing cannot; use the merged folder, which holds the template as it is"
                )
    return Table(before, prompt["user"])


def _without_bos(text: str, key: tuple[str, str], tokenizer: Tokenizer) -> str:
    """Ollama puts the tokenizer's BOS before a prompt by itself where the tokenizer does."""
    bos = tokenizer.variables.get("bos_token", "")
    if key[0] != START or not bos or not text.startswith(bos):
        return text
    adds = tokenizer.backend.encode("a").ids[:1] == [tokenizer.backend.token_to_id(bos)]
    return text.removeprefix(bos) if adds else text


def go_template(table: Table) -> str:
    """The table as a Go text template over `.Messages`."""
    roles = [role for role in ROLES if any(key[1] == role for key in table.before)]
    branches = [(f'eq .Role "{role}"', _before(table, role)) for role in roles]
    # a conversation that ends with the assistant is one that the model goes on with
    prompt = _choice([('eq $before "user"', _literal(table.prompt))])
    return (
        f'{{{{- $before := "{START}" }}}}{{{{- range .Messages }}}}{_choice(branches)}'
        f"{{{{ $before = .Role }}}}{{{{- end }}}}{prompt}"
    )


def _before(table: Table, role: str) -> str:
    """The text before a message of this role, and the message."""
    texts = {previous: text for (previous, own), text in table.before.items() if own == role}
    if len(set(texts.values())) == 1:
        return _literal(next(iter(texts.values()))) + "{{ .Content }}"
    return _choice([(f'eq $before "{previous}"', _literal(text)) for previous, text in texts.items()]) + (
        "{{ .Content }}"
    )


def _choice(branches: list[tuple[str, str]]) -> str:
    written = "".join(
        f"{{{{ {'if' if number == 0 else 'else if'} {condition} }}}}{text}"
        for number, (condition, text) in enumerate(branches)
    )
    return written + "{{ end }}"


def _literal(text: str) -> str:
    """Text of a Go template; what would open an action is written as a string."""
    text = text.replace("{{", '{{ "{{" }}')
    return text[:-1] + '{{ "{" }}' if text.endswith("{") else text
