"""Constrained decoding: tokens that would break a call are never sampled.

A grammar is made from a tool format and the tools' schemas. In it a reply is free text and calls ("valid"), or calls
and nothing else ("must"); a call is what the format's own `write` writes, with arguments that fit the tool's schema.
Where these are not one JSON object, the format's ARGUMENT_FORM say how they are written (see tool_formats.arguments).
llguidance (https://github.com/guidance-ai/llguidance) says after each token which ones may follow.

    vocabulary = Vocabulary(tokenizer)                                    # half a second; made once per tokenizer
    guide = vocabulary.guide(Constraint("valid", "hermes"), schemas)      # one per reply
    logits[~guide.allowed()] = -inf;  guide.accept(token);  guide.done

The grammar gives a call its form; which tool it asks for, and with what, is still the model's choice. A reply that
reaches its token limit ends where it is, also inside a call.
"""

import json
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType

from playground.core import tool_formats
from playground.core.tokenizer import Tokenizer
from playground.core.tool_formats.arguments import Rules, escaped
from playground.core.tool_formats.values import Call
from playground.errors import PlaygroundError

MODES = {"valid": "free text, and calls that fit a schema", "must": "at least one call, and nothing else"}
MAX_CALLS = 4  # that follow each other at once: a model that may only call would otherwise never end

_PROBE = {"probe_argument": "v17"}
_PROBE_TEXT = json.dumps(_PROBE)
_ANY = "(?s:.*)"
# How the JSON of arguments is spaced: as json.dumps writes it, or without the space.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


@dataclass(frozen=True)
class Constraint:
    """What a lane may say: `mode` is one of MODES, `format` the name of a tool format."""

    mode: str
    format: str

    def __post_init__(self):
        if self.mode not in MODES:
            raise PlaygroundError(f"the mode of a constraint is {' or '.join(MODES)}, got {self.mode!r}")


@dataclass(frozen=True)
class Writing:
    """What a format writes around the arguments of one tool's call: alone, and as one of several.

    Several calls are each written as if alone, with `joint` between them; or they stand in one list, that `first`
    opens, `after_list` closes, and each further call continues with `further`. Neither: one call at a time.
    """

    before: str
    after: str
    joint: str | None = None
    first: str | None = None
    further: str = ""
    after_list: str = ""


def why_not(format: ModuleType) -> str:
    """A sentence that says why calls in `format` cannot be constrained; empty where they can."""
    writing = _writing(format, "probe_tool")
    if writing is None:
        return f"Nothing says yet how the {format.NAME} format writes arguments, so there is no grammar for it."
    unmarked = writing.before.startswith(("{", "[{")) or getattr(format, "BARE", "") or hasattr(format, "reply")
    if not _trigger(format, writing) and not unmarked:
        return f"Nothing marks where a call in the {format.NAME} format begins, so there is no grammar for it."
    return ""


def grammar(format: ModuleType, tools: Sequence[dict], mode: str, specials: dict[str, int] | None = None) -> str:
    """The grammar in llguidance's dialect of Lark; `specials` are texts that are one token each, with their ids."""
    specials = specials or {}
    if not tools:
        raise PlaygroundError("nothing can be called without tools; offer at least one, or switch valid calls off")
    reason = why_not(format)
    if reason:
        raise PlaygroundError(reason)
    functions = [tool.get("function") or tool for tool in tools]
    writings = [_checked_writing(format, function) for function in functions]
    trigger = _trigger(format, writings[0])
    skip = len(trigger) if mode == "valid" else 0
    lines = [
        *_calls(writings, skip, specials),
        *(line for i, function in enumerate(functions) for line in _arguments(format, i, function, specials)),
    ]
    if mode == "must":
        return "\n".join(["start: calls", *lines])
    if hasattr(format, "reply"):
        return "\n".join([*format.reply(lambda text: _said(text, specials)), *lines])
    return "\n".join([*(_marked if trigger else _unmarked)(format, trigger, specials), *lines])


def _writing(format: ModuleType, name: str) -> Writing | None:
    """Found by writing calls with known arguments and looking at what stands around them."""
    probe = format.ARGUMENT_FORM.written(_PROBE) if hasattr(format, "ARGUMENT_FORM") else _PROBE_TEXT
    one = format.write([Call(name, _PROBE)])
    if one.count(probe) != 1:
        return None
    before, _, after = one.partition(probe)
    two = format.write([Call(name, _PROBE)] * 2)
    if two.startswith(one) and two.endswith(one) and len(two) >= 2 * len(one):
        return Writing(before, after, joint=two[len(one) : len(two) - len(one)])
    first, further, after_list = two.split(probe)
    three = probe.join([first, further, further, after_list])
    if format.write([Call(name, _PROBE)] * 3) != three:  # calls that are numbered
        return Writing(before, after)
    return Writing(before, after, None, first, further, after_list)


def _checked_writing(format: ModuleType, function: dict) -> Writing:
    name = function["name"]
    if format.parse(format.write([Call(name, _PROBE)])).valid != [Call(name, _PROBE)]:
        raise PlaygroundError(f"the {format.NAME} format cannot write a call of a tool named {name!r}; rename the tool")
    for argument in (function.get("parameters") or {}).get("properties") or {}:
        call = Call(name, {argument: "v17"})
        if format.parse(format.write([call])).valid != [call]:
            raise PlaygroundError(f"the {format.NAME} format cannot write an argument named {argument!r}; rename it")
    return _writing(format, name)


def _arguments(format: ModuleType, number: int, function: dict, specials: dict[str, int]) -> list[str]:
    """The rule args_NUMBER, and those it needs."""
    schema = _schema(function)
    if not hasattr(format, "ARGUMENT_FORM"):
        return [f"args_{number}: %json {json.dumps(schema)}"]
    rules = Rules(f"v{number}", lambda text: _said(text, specials), schema)
    body = format.ARGUMENT_FORM.rules(rules, schema)
    return [f"args_{number}: {body}", *rules.lines]


def _trigger(format: ModuleType, writing: Writing) -> str:
    """The marker a call begins with; empty where it begins with its JSON."""
    opens = [marker.open for marker in format.MARKERS if marker.open] + [getattr(format, "TRIGGER", "")]
    fitting = [text for text in opens if text and writing.before.startswith(text)]
    return max(fitting, key=len, default="")


def _schema(function: dict) -> dict:
    """The schema of a tool's arguments, closed as `tools.check` reads it."""
    parameters = {"type": "object", **(function.get("parameters") or {})}
    if "patternProperties" not in parameters:
        parameters.setdefault("additionalProperties", False)
    return {**parameters, "x-guidance": _SPACING}


def _calls(writings: list[Writing], skip: int, specials: dict[str, int]) -> list[str]:
    """The rule `calls`; of what opens the first call, `skip` characters are there already."""

    def each(opening: str, closing: str = "", skip: int = 0) -> str:
        rows = [(getattr(w, opening)[skip:], i, getattr(w, closing) if closing else "") for i, w in enumerate(writings)]
        return " | ".join(f"{_said(b, specials)} args_{i} {_said(a, specials)}".strip() for b, i, a in rows)

    one = writings[0]
    lines = [f"call: {each('before', 'after', skip)}"]
    if one.first is None:
        more = "" if one.joint is None or skip else f" ({_said(one.joint, specials)} call){{0,{MAX_CALLS - 1}}}"
        return [f"calls: call{more}", *lines]
    listed = f"first further{{0,{MAX_CALLS - 1}}} {_said(one.after_list, specials)}"
    lines = [f"first: {each('first', skip=skip)}", f"further: {each('further')}"]
    if one.first == one.before and one.after_list == one.after:
        return [f"calls: {listed}", *lines]
    return [f"calls: call | {listed}", f"call: {each('before', 'after', skip)}", *lines]


def _marked(format: ModuleType, trigger: str, specials: dict[str, int]) -> list[str]:
    """Free text, until a marker opens a call."""
    others = {m.open for m in format.MARKERS if m.kind == "call" and m.open} - {trigger}
    asides = {t for m in format.MARKERS if m.kind != "call" for t in (m.open, m.close) if t in specials} - {trigger}
    if trigger in specials:
        # The marker is a token of its own; spelled out in letters it would be read as one too.
        lines = [f"head: TEXT {_said(trigger, specials)}", _text(others | {trigger}, _bare(format))]
    else:
        lines = [f"head[lazy]: TEXT {_said(trigger, specials)}", _text(others, _bare(format))]
    if not asides:
        return ["start: (head calls)* tail", "tail: TEXT", *lines]
    aside = "aside: " + " | ".join(f"TEXT {_said(text, specials)}" for text in sorted(asides))
    return ["start: (aside | head calls)* tail", "tail: TEXT", aside, *lines]


def _unmarked(format: ModuleType, trigger: str, specials: dict[str, int]) -> list[str]:
    """Calls, or a text in which none begins; a text that holds both could not be told from a broken call."""
    lists_only = _writing(format, "probe_tool").before.startswith("[")
    begins = r"\[\s*\{\s*\"" if lists_only else r"\{\s*\""
    others = {m.open for m in format.MARKERS if m.kind != "reasoning" and m.open}
    return ["start: calls | tail", "tail: TEXT", _text(others, _bare(format) or begins)]


def _bare(format: ModuleType) -> str:
    """A pattern of how a call begins that no marker opens."""
    return getattr(format, "BARE", "")


def _text(without: Collection[str], pattern: str = "") -> str:
    """The terminal TEXT: any text in which none of `without` and nothing like `pattern` occurs."""
    barred = [escaped(text) for text in sorted(without)] + ([pattern] if pattern else [])
    if not barred:
        return f"TEXT: /{_ANY}/"
    return f"TEXT: /{_ANY}/ & ~/{_ANY}({'|'.join(barred)}){_ANY}/"


def _said(text: str, specials: dict[str, int]) -> str:
    """`text` as a sequence of literals and special tokens."""
    if not text:
        return ""
    names = sorted((re.escape(special) for special in specials if special), key=len, reverse=True)
    pieces = re.split(f"({'|'.join(names)})", text) if names else [text]
    return " ".join(
        f"<[{specials[piece]}]>" if piece in specials else json.dumps(piece, ensure_ascii=False)
        for piece in pieces
        if piece
    )


class Vocabulary:
    """A tokenizer as llguidance reads it."""

    def __init__(self, tokenizer: Tokenizer):
        llguidance = _llguidance()
        self.tokenizer = tokenizer
        self._ll = llguidance.LLTokenizer(tokenizer.backend.to_str(), eos_token=tokenizer.eos_id)
        self.end_id = self._ll.eos_token
        ids = {text: tokenizer.backend.token_to_id(text) for text in tokenizer.added_tokens}
        self.specials = {text: id for text, id in ids.items() if self._ll.is_special_token(id)}

    def guide(self, constraint: Constraint, tools: Sequence[dict], ends: Collection[int] = ()) -> "Guide":
        """What holds one reply to `constraint`; `ends` are further tokens that end a reply."""
        text = grammar(tool_formats.named(constraint.format), tools, constraint.mode, self.specials)
        matcher = _llguidance().LLMatcher(self._ll, text, log_level=0)
        if matcher.is_error():
            raise PlaygroundError(f"the tools' schemas cannot be made a grammar: {_first_line(matcher.get_error())}")
        return Guide(matcher, self.end_id, ends)


class Guide:
    """One reply's place in its grammar. `seconds` and `tokens` say what it has cost."""

    def __init__(self, matcher, end_id: int, ends: Collection[int] = ()):
        self.ends = {end_id, *ends}
        self.done = False
        self.error = ""
        self.seconds, self.tokens = 0.0, 0
        self._matcher, self._end_id = matcher, end_id

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens if self.tokens else 0.0

    def allowed(self):
        """A bool for each token of the vocabulary (a numpy array): whether it may come next."""
        import numpy

        started = time.perf_counter()
        bits = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        allowed = numpy.unpackbits(bits, bitorder="little").view(bool)
        if self._matcher.is_error():
            self.error = f"the grammar could not go on: {_first_line(self._matcher.get_error())}"
            allowed[:] = True  # the reply ends now, and a sampler needs something to choose
        elif allowed[self._end_id]:
            allowed[[end for end in self.ends if end < len(allowed)]] = True
        self.seconds += time.perf_counter() - started
        return allowed

    def accept(self, token: int) -> None:
        """Go on after `token`; `done` says that the grammar allows nothing more."""
        started = time.perf_counter()
        self.tokens += 1
        if token in self.ends:
            self.done = True
        elif not self.error:
            if not self._matcher.consume_token(token):
                self.error = f"the grammar could not go on: {_first_line(self._matcher.get_error())}"
            self.done = self._matcher.is_stopped()
        self.seconds += time.perf_counter() - started


def _llguidance():
    try:
        import llguidance
    except ImportError:
        raise PlaygroundError(
            "constrained decoding needs the package llguidance, which is not installed; "
            "install it with: pip install 'llguidance>=1.9,<2'"
        ) from None
    return llguidance


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
