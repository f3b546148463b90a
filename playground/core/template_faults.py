"""Where the syntax of a chat template is wrong, by line and column.

Jinja names the line alone; the column is that of the token at which its parser stopped. The template is parsed, never
compiled: Jinja's compiler computes constants, and `{{ 9**9**9 }}` is a constant.
"""

import re
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import TokenStream, ignored_tokens
from jinja2.parser import Parser

from playground.core import sandbox
from playground.core.template_variables import MAX_CHARACTERS


@dataclass(frozen=True)
class Fault:
    """Where a template's text is wrong; line and column count from 1, `text` is that line."""

    line: int
    column: int
    message: str
    text: str


def fault(text: str) -> Fault | None:
    """The first place that Jinja cannot read, or None."""
    if len(text) > MAX_CHARACTERS:
        message = f"the template is longer than {MAX_CHARACTERS:,} characters"
        return Fault(1, 1, message, _lines(text)[0][:200])
    text = "\n".join(_lines(text))
    places, stopped, message = _tokens(text)
    if message:
        return _fault(text, stopped, message)
    parser = _Parser(text)
    try:
        tree = parser.parse()
    except RecursionError:
        return _fault(text, 0, "the template is nested too deeply")
    except TemplateSyntaxError as error:
        return _refused(text, parser, places, error)
    return _unknown(text, tree)


def fault_at(text: str, line: int, message: str) -> Fault:
    """The fault of an error whose line alone is known: the column is that of a word which the message quotes."""
    lines = _lines(text)
    line = min(max(line, 1), len(lines))
    source = lines[line - 1]
    quoted = [word for word in re.findall(r"'([^']+)'", message) if word in source]
    at = source.find(quoted[0]) if quoted else len(source) - len(source.lstrip())
    return Fault(line, at + 1, message, source)


class _Parser(Parser):
    """Jinja's parser over tokens that can be told apart, and the tag that was open when it stopped."""

    def __init__(self, text: str):
        super().__init__(sandbox.environment(), text)
        self.tokens = list(self.stream)
        self.stream = TokenStream(iter(self.tokens), None, None)
        self.open_tag = None

    def parse_statement(self):
        token = self.stream.current
        try:
            return super().parse_statement()
        except TemplateSyntaxError:
            self.open_tag = self.open_tag or token
            raise

    def number(self, token) -> int | None:
        return next((i for i, known in enumerate(self.tokens) if known is token), None)


def _tokens(text: str) -> tuple[list[int], int, str]:
    """Where each of the parser's tokens begins; where the lexer stopped, and why (empty: at the end)."""
    places, at, here = [], 0, 0
    try:
        for _, kind, value in sandbox.environment().lexer.tokeniter(text, None):
            at = text.find(value, here)  # between tokens only white space is left out
            here = at + len(value)
            if kind not in ignored_tokens and kind not in ("raw_begin", "raw_end"):
                places.append(at)
    except TemplateSyntaxError as error:
        found = re.fullmatch(r"(unexpected char .*) at (\d+)", error.message or "", re.DOTALL)
        if found:
            return places, int(found[2]), found[1]
        if (error.message or "").startswith("Missing end"):  # of a comment or of raw text, which was read last
            return places, at, error.message
        here += len(text[here:]) - len(text[here:].lstrip())
        return places, here, error.message or "syntax error"
    return places, here, ""


def _refused(text: str, parser: _Parser, places: list[int], error: TemplateSyntaxError) -> Fault:
    message = error.message or "syntax error"
    at_end = parser.stream.current.type == "eof"
    begun = [i for i, token in enumerate(parser.tokens) if token.type.endswith(("_begin", "_end"))]
    if at_end and begun and parser.tokens[begun[-1]].type.endswith("_begin"):
        opening, closing = ("{{", "}}") if parser.tokens[begun[-1]].type == "variable_begin" else ("{%", "%}")
        return _fault(text, places[begun[-1]], f"{opening} is opened here and never ended: {closing} is missing")
    token = parser.open_tag if at_end else parser.stream.current
    number = parser.number(token)
    if number is None:
        return _fault(text, len(text.rstrip()), message)
    if at_end and token.value in ("if", "for", "macro", "call", "filter", "set", "with", "block", "generation"):
        message = f"the tag {token.value!r} is opened here and never closed: {{% end{token.value} %}} is missing"
    number -= message == "expected name or number"  # Jinja has stepped over what it refuses there
    found = _fault(text, places[number], message)
    return found if at_end or found.line == error.lineno else fault_at(text, error.lineno, message)


def _unknown(text: str, tree: nodes.Template) -> Fault | None:
    """A filter or test that is not there and is reached in every rendering; inside an `if` it may never be."""
    env = sandbox.environment()

    def look(node):
        if isinstance(node, nodes.If | nodes.CondExpr):
            return None
        for kind, known in ((nodes.Filter, env.filters), (nodes.Test, env.tests)):
            if isinstance(node, kind) and node.name not in known:
                what = "filter" if kind is nodes.Filter else "test"
                return fault_at(text, node.lineno, f"there is no {what} named {node.name!r}")
        return next(filter(None, map(look, node.iter_child_nodes())), None)

    return look(tree)


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)


def _fault(text: str, at: int, message: str) -> Fault:
    at = min(at, len(text))
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return Fault(text.count("\n", 0, at) + 1, at - start + 1, message, text[start : end if end >= 0 else len(text)])
