"""How a model writes a call, one module per format, all with the same names:

    NAME                          what the format is called
    STOPS                         what a reply must not go past: the result is not the model's to write
    MARKERS                       what opens and closes its spans (see playground.core.streaming)
    write(calls) -> str           the calls as the model should write them
    read(body, raw, closed)       one span as a Call or a Fault
    parse(text, reasoning=True)   a whole reply as Parsed(content, reasoning, calls)
    write_result(name, content)   a tool's result as it goes back

A call that cannot be read is a Fault that keeps the raw text and says why; it is never repaired by guessing.
"""

from types import ModuleType

from playground.core.tool_formats import hermes, react, reasoning
from playground.core.tool_formats.values import FAULTS, Call, Fault, Parsed

__all__ = ["FAULTS", "FORMATS", "Call", "Fault", "Parsed", "for_template", "from_text"]

FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (hermes, react, reasoning)}

_PROBE = Call("probe_tool", {"probe_argument": "probe value 17"})
_THOUGHT = "probe thought 23"


def for_template(template, tokenizer=None) -> ModuleType | None:
    """The format in which `template` writes calls, found by rendering one; None where it writes none."""
    from playground.core import templates
    from playground.core.messages import Conversation
    from playground.errors import PlaygroundError

    parameters = {
        "type": "object",
        "properties": {"probe_argument": {"type": "string"}},
        "required": ["probe_argument"],
    }
    function = {"name": _PROBE.name, "description": "A probe", "parameters": parameters}
    question = {"role": "user", "content": "probe question"}
    call = {"role": "assistant", "content": "", "reasoning_content": _THOUGHT, "tool_calls": [_PROBE.message]}
    tools = [{"type": "function", "function": function}]
    try:
        whole = templates.render(template, Conversation([question, call], tools), tokenizer).text
        prompt = templates.render(template, Conversation([question], tools), tokenizer, add_generation_prompt=True).text
    except PlaygroundError:
        return None
    return from_text(whole[len(prompt) :] if whole.startswith(prompt) else whole)


def from_text(text: str) -> ModuleType | None:
    """The format whose parser finds exactly the probe call in `text`; of several, the one that splits off the most."""
    fitting = []
    for number, module in enumerate(FORMATS.values()):
        parsed = module.parse(text)
        if parsed.valid and parsed.valid[-1] == _PROBE:
            fitting.append(
                (_THOUGHT in parsed.reasoning, -len(parsed.faults), -len(parsed.content), -number, module.NAME)
            )
    return FORMATS[max(fitting)[-1]] if fitting else None
