"""Chat templates: load, render, probe.

`render` is the one way from a conversation to text, token ids, loss mask and spans; preview, training, chat and
evaluation all use it. It gives what `tokenizer.apply_chat_template` gives (a test holds the two equal). What a
template can do and where its turns end is found by rendering marked text, never by its name.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from playground.config import ASSETS
from playground.core import sandbox
from playground.core import spans as spanning
from playground.core.messages import Conversation
from playground.core.spans import Span
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError

BUILT_IN = "built-in"
MODEL = "model"  # the name that stands for the tokenizer's own template
_ORDER = ("chatml-tools", "chatml", "alpaca", "plain", "reasoning", "react", "reasoning-tools")


@dataclass(frozen=True)
class Template:
    """A Jinja chat template. Any `source` other than "built-in" is rendered in a bounded process of its own."""

    name: str
    text: str
    title: str = ""
    description: str = ""
    source: str = BUILT_IN

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def marked(self) -> bool:
        """Whether `{% generation %}` says which text is the assistant's."""
        return bool(sandbox.MARKED.search(self.text))


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation. `spans` tile `text`; ids, offsets and mask are None without a tokenizer."""

    text: str
    spans: list[Span]
    mask_rule: str  # "generation": the template's markers; "prefix": found by rendering prefixes; "none"
    ids: list[int] | None = None
    offsets: list[tuple[int, int]] | None = None  # characters of each token
    mask: list[bool] | None = None  # which tokens the loss is on
    shape: str = ""  # what had to be written in another shape, because the template fails on the usual one

    @property
    def trained_text(self) -> str:
        return "".join(self.text[span.start : span.end] for span in self.spans if span.trained)


@dataclass(frozen=True)
class Abilities:
    """What of a conversation reaches the rendered text, found by probing."""

    system: bool
    tools: bool
    tool_results: bool
    reasoning: bool
    multi_turn: bool
    masks: bool  # trained text can be told from the rest


# Loading --------------------------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The built-in templates, the most used first."""
    found = {file.stem for file in (ASSETS / "templates").glob("*.jinja")}
    return [*(name for name in _ORDER if name in found), *sorted(found - set(_ORDER))]


def load(name: str, tokenizer: Tokenizer | None = None) -> Template:
    """A built-in template by name, "model" for the tokenizer's own, or a `.jinja` file by path."""
    name = str(name)
    if name == MODEL:
        if tokenizer is None or not tokenizer.chat_template:
            why = "no model is chosen" if tokenizer is None else "this model brings none"
            raise PlaygroundError(f"the model's own chat template is not there: {why}; choose from {_choices()}")
        return Template(MODEL, tokenizer.chat_template, "The model's own", "Shipped with the model.", source="model")
    if name in names():
        text = (ASSETS / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
        return Template(name, text, _header(text, "title") or name, _header(text, "description"))
    path = Path(name).expanduser()
    if path.suffix in (".jinja", ".jinja2", ".j2") or path.is_file():
        try:
            return Template(path.stem, path.read_text(encoding="utf-8"), path.stem, source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise PlaygroundError(f"the template file {name} cannot be read: {_reason(error)}") from None
    raise PlaygroundError(f"there is no template {name!r}; choose from {_choices()}")


def pasted(text: str, name: str = "pasted") -> Template:
    """A template that a visitor wrote or pasted."""
    if not text.strip():
        raise PlaygroundError("the template is empty: paste a Jinja chat template")
    return Template(name, text, name[:1].upper() + name[1:], source="pasted")


def _choices() -> str:
    return f"{', '.join(names())}, 'model' (its own) or the path of a .jinja file"


def _header(text: str, key: str) -> str:
    comment = re.match(r"\{#-?(.*?)-?#\}", text, re.DOTALL)
    found = re.search(rf"^\s*{key}:\s*(.+)$", comment[1], re.MULTILINE) if comment else None
    return found[1].strip() if found else ""


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


# Rendering ------------------------------------------------------------------------------------------------------------


def render(
    template: Template,
    conversation: Conversation,
    tokenizer: Tokenizer | None = None,
    add_generation_prompt: bool = False,
    sanitize: bool = False,
    spans: bool = True,
    masks: bool = True,
) -> Rendered:
    """Text, spans and, with a tokenizer, ids and loss mask of `conversation` under `template`.

    The conversation's variables win over the tokenizer's; a variable `add_generation_prompt` wins over the argument.
    `sanitize` encodes control tokens inside messages as plain text. `spans=False` skips the search for message
    contents (the spans then say only what is trained): the quick form for data sets. `masks=False` skips the search
    for what is trained, too: the form that only counts a prompt's tokens.
    Raises PlaygroundError with the template's line where the template fails or outgrows its bounds.
    """
    call = _call(conversation, tokenizer, add_generation_prompt)
    control = _control_tokens(template, tokenizer) if sanitize and tokenizer is not None else None
    calls = [_mark_control(call, control) if control and _holds(call, control) else call]
    calls += _mask_calls(template, call) if masks else []
    probes, located = spanning.sentinel_calls(call) if spans else [], None
    results = _run(template, calls + [probe for probe, _ in probes])
    text, cuts = _strip_control(_text(template, results[0]))
    rule, ranges = _mask_rule(template, text, cuts, results[: len(calls)]) if masks else ("none", [])
    if spans:
        located = spanning.locate(text, results[len(calls) :], [units for _, units in probes])
        if located is None:
            located = spanning.locate_by_prefixes(text, call, partial(_run, template))
    located = located or [(start, end, "assistant") for start, end in ranges]
    tiles, shape = spanning.tile(text, located, ranges), results[0].get("shape", "")
    if tokenizer is None:
        return Rendered(text, tiles, rule, shape=shape)
    ids, offsets = _encode(tokenizer, text, cuts)
    return Rendered(text, tiles, rule, ids, offsets, _token_mask(ranges, offsets), shape)


class Text(NamedTuple):
    """A rendering without tokens: the text and the characters [start, end) that are trained."""

    text: str
    ranges: list[tuple[int, int]]
    mask_rule: str


def texts(template: Template, conversations: list[Conversation], tokenizer=None, masks=False) -> list:
    """A `Text` per conversation, or the PlaygroundError that `render` would raise for it: the form for many rows.

    `masks=False` skips the search for what is trained: `ranges` is empty then and the rule "none".
    Raises PlaygroundError when the template is cut off on several of the conversations.
    """
    out, late = [], 0
    for start in range(0, len(conversations), _ROWS_PER_REQUEST):
        groups = []
        for conversation in conversations[start : start + _ROWS_PER_REQUEST]:
            try:
                call = _call(conversation, tokenizer, False)
                groups.append([call, *(_mask_calls(template, call) if masks else ())])
            except PlaygroundError as error:
                groups.append(error)
        good = [calls for calls in groups if isinstance(calls, list)]
        results = _run(template, [call for calls in good for call in calls])
        alone = any(result.get("kind") in _CUT_OFF for result in results) and len(good) > 1
        results = iter(results)
        for calls in groups:
            if not isinstance(calls, list):
                out.append(calls)
                continue
            own = list(islice(results, len(calls)))
            if alone:  # which of them was it?
                own = _run(template, calls)
                late += any(result.get("kind") == "time" for result in own)
            try:
                text, cuts = _strip_control(_text(template, own[0]))
                rule, ranges = _mask_rule(template, text, cuts, own) if masks else ("none", [])
                out.append(Text(text, ranges, rule))
            except PlaygroundError as error:
                out.append(error)
                if late >= _LATE_ROWS:
                    raise
    return out


_CUT_OFF = ("time", "memory")
_ROWS_PER_REQUEST = 64  # what one request to a worker asks for: its deadline is for all of them
_LATE_ROWS = 3  # so many rows of one call cut off, each asked for alone, say that it is the template


def _call(conversation: Conversation, tokenizer: Tokenizer | None, add_generation_prompt: bool) -> dict:
    """A template's variables as apply_chat_template sets them: no None values, reasoning under all its names."""
    messages = []
    for message in conversation.messages:
        if not isinstance(message, dict):
            raise PlaygroundError(f"messages must be objects with a role and a content, got {message!r:.80}")
        message = {key: value for key, value in message.items() if value is not None}
        reasoning = next((message[k] for k in ("reasoning_content", "thinking", "reasoning") if k in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        messages.append(message)
    if not messages:
        raise PlaygroundError("a conversation needs at least one message")
    return {
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **(tokenizer.variables if tokenizer is not None else {}),
        **conversation.variables,
        "messages": messages,
        "tools": conversation.tools or None,
    }


def _run(template: Template, calls: list[dict]) -> list[dict]:
    run = sandbox.run if template.source == BUILT_IN else sandbox.run_bounded
    try:
        return run(template.text, calls)
    except (TypeError, ValueError, RecursionError) as error:
        raise PlaygroundError(f"the example cannot be handed to the template {template.name}: {error}") from None


def _text(template: Template, result: dict) -> str:
    if "error" not in result:
        return result["text"]
    where = f"the template {template.name}" + (f", line {result['line']}" if result["line"] else "")
    if result["kind"] == "raised":
        raise PlaygroundError(f"{where}, refuses this conversation: {result['error']}")
    if result["kind"] in ("time", "output", "memory"):
        raise PlaygroundError(f"{where}, was stopped: {result['error']}")
    raise PlaygroundError(f"{where}, fails: {result['error']}")


# What is trained ------------------------------------------------------------------------------------------------------


def _mask_calls(template: Template, call: dict) -> list[dict]:
    """The further renderings that `_mask_rule` needs: none where the template marks what is trained."""
    calls = []
    if template.marked:
        return calls
    for i in (i for i, message in enumerate(call["messages"]) if message.get("role") == "assistant"):
        calls.append({**call, "messages": call["messages"][:i], "add_generation_prompt": True})
        calls.append({**call, "messages": call["messages"][: i + 1], "add_generation_prompt": False})
    return calls


def _mask_rule(template: Template, text: str, cuts, results: list[dict]) -> tuple[str, list[tuple[int, int]]]:
    """The rule and the trained characters, from the results of the call and its `_mask_calls`."""
    if template.marked:
        return "generation", [_moved(r, cuts) if cuts else tuple(r) for r in results[0]["ranges"]]
    return _prefix_rule(text, results[1:])


def _prefix_rule(text: str, results: list[dict]) -> tuple[str, list[tuple[int, int]]]:
    """For a template without markers: what an assistant message adds to the prompt before it is trained.

    Holds only where prefixes of the conversation render to prefixes of its text; else nothing is trained.
    """
    ranges = []
    for prompt, upto in zip(results[::2], results[1::2], strict=True):
        if "error" in prompt or "error" in upto:
            return "none", []
        prompt, upto = _strip_control(prompt["text"])[0], _strip_control(upto["text"])[0]
        if not upto.startswith(prompt) or not text.startswith(upto):
            return "none", []
        ranges.append((len(prompt), len(upto)))
    return ("prefix", ranges) if ranges else ("none", [])


def _token_mask(ranges, offsets) -> list[bool]:
    mask, ends = [False] * len(offsets), [end for _, end in offsets]
    for first, end in token_ranges(ranges, len(offsets), partial(_token_at, offsets, ends)):
        mask[first:end] = [True] * (end - first)
    return mask


def token_ranges(ranges, count: int, token_at: Callable[[int], int | None]) -> Iterator[tuple[int, int]]:
    """The trained tokens [first, end) of a text of `count` tokens, from its trained characters.

    They go from the token that holds a range's first character to the one that holds its last, as in transformers.
    `token_at` gives the number of the token that holds a character (`Encoding.char_to_token`), or None.
    """
    for start, end in ranges:
        first = token_at(start)
        if first is None:
            break
        last = token_at(end - 1)
        yield first, last + 1 if last else count


def _token_at(offsets, ends, character: int) -> int | None:
    i = bisect_right(ends, character)
    return i if i < len(offsets) and offsets[i][0] <= character else None


# Control tokens typed by a user ---------------------------------------------------------------------------------------

_CONTROL_START, _CONTROL_END = "\U000f0000", "\U000f0001"


def _control_tokens(template: Template, tokenizer: Tokenizer) -> re.Pattern | None:
    """Special tokens, and added tokens that the config or the template's own text uses as control tokens."""
    tokens = set(tokenizer.special_tokens)
    if tokenizer.control_tokens is not None:
        tokens |= set(tokenizer.control_tokens) & set(tokenizer.added_tokens)
    else:
        tokens |= {token for token in tokenizer.added_tokens if token.strip() and token in template.text}
    if not tokens:
        return None
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def _holds(value, pattern: re.Pattern) -> bool:
    if isinstance(value, str):
        return bool(pattern.search(value))
    if isinstance(value, dict):
        return any(_holds(v, pattern) for k, v in value.items() if not k.endswith("_token"))
    return isinstance(value, list) and any(_holds(v, pattern) for v in value)


def _mark_control(call: dict, pattern: re.Pattern) -> dict:
    def marked(value):
        if isinstance(value, str):
            value = value.replace(_CONTROL_START, "").replace(_CONTROL_END, "")
            return pattern.sub(f"{_CONTROL_START}\\g<0>{_CONTROL_END}", value)
        if isinstance(value, dict):
            return {key: marked(v) for key, v in value.items()}
        return [marked(v) for v in value] if isinstance(value, list) else value

    return {key: value if key.endswith("_token") else marked(value) for key, value in call.items()}


def _strip_control(text: str) -> tuple[str, list[tuple[int, str]]]:
    """`text` without the marks around control tokens, and the marks: (place in the text with marks, mark)."""
    if _CONTROL_START not in text and _CONTROL_END not in text:
        return text, []
    cuts = [(m.start(), m[0]) for m in re.finditer(f"[{_CONTROL_START}{_CONTROL_END}]", text)]
    return text.translate({ord(_CONTROL_START): None, ord(_CONTROL_END): None}), cuts


def _moved(span, cuts) -> tuple[int, int]:
    start, end = span
    return start - sum(at < start for at, _ in cuts), end - sum(at < end for at, _ in cuts)


def _encode(tokenizer: Tokenizer, text: str, cuts) -> tuple[list[int], list[tuple[int, int]]]:
    if not cuts:
        return tokenizer.encode(text)
    parts, here, open_at = [], 0, None
    for number, (at, mark) in enumerate(cuts):
        at -= number
        if mark == _CONTROL_START:
            parts.append((text[here:at], False))
            here, open_at = at, at
        elif open_at is not None:
            parts.append((text[here:at], True))
            here, open_at = at, None
    parts.append((text[here:], False))
    return tokenizer.encode_parts(parts)


# Probing --------------------------------------------------------------------------------------------------------------

_TOOL = {
    "type": "function",
    "function": {
        "name": "qztoolqz",
        "description": "qzdescriptionqz",
        "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}},
    },
}
_CALL = {"type": "function", "id": "call00000", "function": {"name": "qztoolqz", "arguments": {"x": "qzargumentqz"}}}
_USER, _ANSWER = {"role": "user", "content": "qzuserqz"}, {"role": "assistant", "content": "qzanswerqz"}
_NEXT = {"role": "user", "content": "qznextqz"}
_RESULT = {"role": "tool", "content": "qzresultqz", "name": "qztoolqz", "tool_call_id": "call00000"}


def stop_strings(template: Template, tokenizer: Tokenizer | None = None) -> list[str]:
    """The texts at which a reply ends: the end-of-turn text, or what opens the next turn where there is none.

    Where a turn ends with the tokenizer's EOS alone, the opening of the next turn is listed too: a model that never
    learned EOS (a base model, say) goes on with it.
    """
    stops = []
    for after in ([_NEXT], [_RESULT, _ANSWER]):
        first = _ANSWER if after[0] is _NEXT else {"role": "assistant", "content": "", "tool_calls": [_CALL]}
        tools = [] if after[0] is _NEXT else [_TOOL]
        try:
            done = render(template, Conversation([_USER, first, *after], tools), tokenizer)
        except PlaygroundError:
            continue
        mark = "qzanswerqz" if after[0] is _NEXT else "qzargumentqz"
        stop, opening = _turn_end(done, mark, after[0]["content"])
        eos = (tokenizer.variables.get("eos_token") if tokenizer is not None else None) or ""
        stops += [stop] if stop else []
        if not stop or stop == eos:
            stops += [opening] if opening else []
    return list(dict.fromkeys(stops))


def _turn_end(done: Rendered, mark: str, following: str) -> tuple[str, str]:
    """The end-of-turn text after `mark`, and the first piece of what then precedes `following`."""
    at = done.text.find(mark)
    upto = done.text.find(following, at)
    if at < 0 or upto < 0:
        return "", ""
    at += len(mark)
    end = next((span.end for span in done.spans if span.trained and span.start <= at < span.end), at)
    while (following_span := next((s for s in done.spans if s.start == end and s.trained), None)) is not None:
        end = following_span.end
    end = min(end, upto)
    tail = [piece for piece in re.findall(r"<[^<>\n]*>|[^<\n]+|<", done.text[at:end]) if piece.strip()]
    opening = [line.strip() for line in done.text[end:upto].split("\n") if line.strip()]
    stop = tail[-1].strip() if tail and tail[-1].strip(" \"'}])") else ""
    return stop, opening[0] if opening else ""


def abilities(template: Template, tokenizer: Tokenizer | None = None) -> Abilities:
    """What the template does with a system message, tools, tool results, reasoning and a second turn."""

    variables = tokenizer.variables if tokenizer is not None else {}

    def shows(word: str, messages: list[dict], tools=()) -> bool:
        try:
            return word in render(template, Conversation(messages, list(tools), variables), spans=False).text
        except PlaygroundError:
            return False

    calling = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    thinking = {**_ANSWER, "reasoning_content": "qzreasoningqz"}
    try:
        masks = render(template, Conversation([_USER, _ANSWER], [], variables), spans=False).mask_rule != "none"
    except PlaygroundError:
        masks = False
    return Abilities(
        system=shows("qzsystemqz", [{"role": "system", "content": "qzsystemqz"}, _USER, _ANSWER]),
        tools=shows("qztoolqz", [_USER], [_TOOL]),
        tool_results=shows("qzresultqz", [_USER, calling, _RESULT, _ANSWER], [_TOOL]),
        reasoning=shows("qzreasoningqz", [_USER, thinking]),
        multi_turn=shows("qznextqz", [_USER, _ANSWER, _NEXT]),
        masks=masks,
    )
