"""How a model writes a call, one module per format, all with the same names:

    NAME                          what the format is called
    STOPS                         what a reply must not go past: the result is not the model's to write
    MARKERS                       what opens and closes its spans (see playground.core.streaming)
    announce(tools) -> str        the tools as a system prompt shows them, where no template does it
    write(calls) -> str           the calls as the model should write them
    read(body, raw, closed, tools)  one span as a Call, a Fault, or a list of them
    parse(text, reasoning=True, tools=())  a whole reply as Parsed(content, reasoning, calls)
    write_result(name, content)   a tool's result as it goes back

and, where a grammar needs to know (see playground.core.constrained): ARGUMENT_FORM, how arguments are written that are
not one JSON object; BARE or TRIGGER, how a call begins that no marker opens; reply(said), what stands around calls.

A call that cannot be read is a Fault that keeps the raw text and says why; it is never repaired by guessing. `tools`
are schemas: only formats that write arguments as bare text need them (they say whether `3` is a number or a text).
"""

import re
from collections.abc import Sequence
from types import ModuleType

from playground.core.streaming import Span, Stream
from playground.core.tool_formats import (
    apertus,
    cohere,
    command_r,
    deepseek_v3,
    deepseek_v31,
    deepseek_v32,
    functionary_v31,
    functionary_v32,
    functiongemma,
    gemma4,
    gigachat,
    glm4,
    gpt_oss,
    granite,
    hermes,
    internlm2,
    json_object,
    kimi_k2,
    lfm2,
    llama3_json,
    minimax_m1,
    minimax_m2,
    mistral,
    olmo3,
    phi4_mini,
    pythonic,
    qwen3_coder,
    react,
    reading,
    reasoning,
    seed_oss,
    xlam,
)
from playground.core.tool_formats.values import FAULTS, Call, Fault, Parsed
from playground.errors import PlaygroundError

__all__ = [
    "FAULTS",
    "FORMATS",
    "Call",
    "Fault",
    "Parsed",
    "Reading",
    "for_template",
    "from_text",
    "guess",
    "named",
]

# Where several formats read a text equally well, the first of them has it.
FORMATS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        *(hermes, react, reasoning, qwen3_coder, glm4, deepseek_v31, deepseek_v3, deepseek_v32, kimi_k2, mistral),
        *(gpt_oss, functiongemma, gemma4, minimax_m2, minimax_m1, seed_oss, cohere, command_r, apertus, gigachat),
        *(functionary_v31, functionary_v32),
        *(olmo3, internlm2, granite, phi4_mini, pythonic, lfm2, llama3_json, xlam, json_object),
    )
}

# Other names the same formats go by, mostly those of other projects' parsers.
ALIASES = {
    **dict.fromkeys(("qwen", "qwen2.5", "qwen3", "qwq", "longcat", "ernie45", "ernie45_moe", "mimo"), "hermes"),
    **dict.fromkeys(("llama4_pythonic", "llama3.2_pythonic", "gemma3_pythonic", "toolace"), "pythonic"),
    **dict.fromkeys(("llama_json", "llama3", "llama4_json", "llama3.1_json", "llama3.2_json"), "llama3_json"),
    **dict.fromkeys(("qwen3coder", "qwen3_xml", "qwen3xml", "qwen3.5"), "qwen3_coder"),
    **dict.fromkeys(("deepseek", "deepseekv3", "deepseek3", "deepseek_r1"), "deepseek_v3"),
    **dict.fromkeys(("deepseekv31", "deepseek_v3_1", "deepseek_v3.1"), "deepseek_v31"),
    **dict.fromkeys(("deepseekv32", "deepseek_v3_2", "deepseek_v3.2", "deepseek_v4", "dsml"), "deepseek_v32"),
    **dict.fromkeys(("seed", "seedoss"), "seed_oss"),
    **dict.fromkeys(("minimax", "minimax_m2.5"), "minimax_m2"),
    **dict.fromkeys(("minimaxm1", "hunyuan", "hunyuan_a13b", "apriel"), "minimax_m1"),
    **dict.fromkeys(("cohere2", "command_r7b", "command_a"), "cohere"),
    **dict.fromkeys(("command_r_plus", "c4ai_command_r"), "command_r"),
    **dict.fromkeys(("gigachat3", "gigachat3.1"), "gigachat"),
    **{"functionary": "functionary_v32", "functionary_v3.2": "functionary_v32", "functionary_v3.1": "functionary_v31"},
    **{"functionary_v3_llama_3.1": "functionary_v31", "gemma_4": "gemma4"},
    **dict.fromkeys(("glm", "glm45", "glm46", "glm47", "glm4_moe", "glm47_moe"), "glm4"),
    **dict.fromkeys(("granite-20b-fc", "granite_20b_fc", "granite4"), "granite"),
    **{"ministral": "mistral", "phi4": "phi4_mini", "phi4_mini_json": "phi4_mini", "firefunction": "phi4_mini"},
    **{"kimi": "kimi_k2", "internlm": "internlm2", "harmony": "gpt_oss", "openai": "gpt_oss", "gpt-oss": "gpt_oss"},
    **{"json_object": "json", "function_calling_pairs": "json"},
}

_PROBE = Call("probe_tool", {"probe_argument": "probe value 17"})
_THOUGHT = "probe thought 23"
_ANSWER = "probe answer 41"
# What may stand around a call besides the turn markers that stand around any answer.
_TURN_MARKS = ("<|eom_id|>", "<|im_end|>", "<|observation|>", "<think>", "</think>", "[]", "</s>", "<|tool_response>")
# What a prompt asks for, where its template leaves calls out of a conversation or writes them otherwise.
_ASKED = {
    "functools[": "phi4_mini",
    "[func_name1(": "pythonic",
    "<|tool_list_start|>": "lfm2",
    "List of tools: [": "lfm2",
    "<｜tool▁calls▁begin｜>": "deepseek_v3",
    "Write 'Action:' followed by a json-formatted list": "command_r",
}
_UNMARKED = ("llama3_json", "xlam", "json")


def named(name: str) -> ModuleType:
    """The format called `name`; other projects' names for it will do."""
    key = name.split(" (")[0].strip().lower().replace("-", "_")
    module = FORMATS.get(key) or FORMATS.get(ALIASES.get(key) or ALIASES.get(key.replace("_", "-"), ""))
    if module is None:
        raise PlaygroundError(f"there is no tool-call format named {name!r}; there are {', '.join(FORMATS)}")
    return module


class Reading:
    """One reply read while it grows: `feed` gives the spans to show, `finish` what `parse` gives for the whole."""

    def __init__(self, format: ModuleType, reasoning: bool = True, tools: Sequence[dict] = ()):
        self.format, self.tools = format, tools
        self.stream = Stream(reading.visible(format.MARKERS, reasoning), reasoning)

    def feed(self, piece: str) -> list[Span]:
        return self.stream.feed(piece)

    def finish(self) -> Parsed:
        return reading.from_spans(self.stream.finish(), self.format.read, self.tools)


def guess(text: str, tools: Sequence[dict] = ()) -> ModuleType | None:
    """The format that `text`, a reply, is written in: the one that reads the most calls and leaves the least over.

    Calls of tools that are among `tools` count more. None where no format finds a call.
    """
    known = {(tool.get("function") or tool).get("name") for tool in tools}
    best, best_key = None, None
    for number, module in enumerate(FORMATS.values()):
        parsed = module.parse(text, tools=tools)
        if not parsed.calls:
            continue
        fits = sum(call.name in known for call in parsed.valid)
        faults = len(parsed.faults)
        key = (fits, len(parsed.valid) - faults, -len(parsed.content), -number)
        if best_key is None or key > best_key:
            best, best_key = module, key
    return best


def for_template(template, tokenizer=None) -> ModuleType | None:
    """The format in which `template` writes calls, found by rendering one; None where it writes none.

    A template that shows tools but leaves calls out of what it renders may still ask for them in words we know.
    """
    if "tool" not in template.text:
        return None
    parameters = {
        "type": "object",
        "properties": {"probe_argument": {"type": "string"}},
        "required": ["probe_argument"],
    }
    function = {"name": _PROBE.name, "description": "A probe", "parameters": parameters}
    question = {"role": "user", "content": "probe question"}
    answer = {"role": "assistant", "content": _ANSWER, "reasoning_content": _THOUGHT}
    tools = [{"type": "function", "function": function}]
    prompt = _render(template, [question], tools, tokenizer, ask=True) or ""
    around = _after(prompt, _render(template, [question, answer], tools, tokenizer) or "").replace(_ANSWER, " ")
    plain, *others, as_text = _probe_messages()
    wholes = [_render(template, [question, plain], tools, tokenizer)]
    while wholes[-1] is None and others:
        wholes.append(_render(template, [question, others.pop(0)], tools, tokenizer))
    unmarked = None
    for number in range(2):
        whole = wholes[-1] if number == 0 else _render(template, [question, as_text], tools, tokenizer)
        found = from_text(_after(prompt, whole), around) if whole is not None else None
        if found and found.NAME not in _UNMARKED:
            return found
        unmarked = unmarked or found
    asked = next((name for words, name in _ASKED.items() if words in prompt), None)
    return FORMATS[asked] if asked else unmarked


def _probe_messages() -> list[dict]:
    """The probe's call as templates want it: plain, with an id, without content, and with arguments as a text."""
    import json

    plain = {"role": "assistant", "content": "", "reasoning_content": _THOUGHT, "tool_calls": [_PROBE.message]}
    with_id = {**_PROBE.message, "id": "abcde1234"}
    as_text = {"name": _PROBE.name, "arguments": json.dumps(_PROBE.arguments)}
    return [
        plain,
        {**plain, "tool_calls": [with_id]},
        {**plain, "content": None, "tool_calls": [with_id]},
        {**plain, "tool_calls": [{**with_id, "function": as_text}]},
    ]


def _render(template, messages, tools, tokenizer, ask=False) -> str | None:
    from playground.core import templates
    from playground.core.messages import Conversation

    variables = {} if tokenizer else {"bos_token": "", "eos_token": "</s>"}
    conversation = Conversation(messages, tools, variables)
    try:
        return templates.render(template, conversation, tokenizer, add_generation_prompt=ask).text
    except PlaygroundError:
        return None


def _after(prompt: str, whole: str) -> str:
    """What `whole` says after `prompt`, or after what the two have in common of the prompt's last turn."""
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    question = whole.rfind("probe question")
    return whole[question + len("probe question") :] if question >= 0 else whole


def from_text(text: str, around: str | None = None) -> ModuleType | None:
    """The format whose parser finds exactly the probe call in `text`; of several, the one that splits off the most.

    With `around`, what a template puts around any answer, nothing else may be left over.
    """
    fitting = []
    for number, module in enumerate(FORMATS.values()):
        parsed = module.parse(text)
        if not (parsed.valid and parsed.valid[-1] == _PROBE):
            continue
        if around is not None and _leftover(parsed.content, around):
            continue
        fitting.append((_THOUGHT in parsed.reasoning, -len(parsed.faults), -len(parsed.content), -number, module.NAME))
    return FORMATS[max(fitting)[-1]] if fitting else None


def _leftover(content: str, around: str) -> str:
    around = re.sub(r"<\|[^<>|]*\|>", r" \g<0> ", around)
    for mark in (*_TURN_MARKS, _THOUGHT):
        content, around = content.replace(mark, " "), around.replace(mark, " ")
    for part in sorted(around.split(), key=len, reverse=True):
        content = content.replace(part, " ", 1)
    return content.strip()
