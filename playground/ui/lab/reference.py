"""What a chat template can use, as a page of reference: variables, tags, functions, filters and tests."""

import html
from functools import cache

from playground.core import sandbox

CSS = """
.own-help { font-size: var(--text-md); line-height: 1.5; }
.own-help h4 { margin: 12px 0 4px; font-size: var(--text-md); font-weight: 600; }
.own-help dl { display: grid; grid-template-columns: minmax(0, auto) minmax(0, 1fr); gap: 3px 12px; margin: 0; }
.own-help dt, .own-help code { font-family: var(--font-mono); font-size: var(--text-sm); overflow-wrap: anywhere; }
.own-help dd { margin: 0; }
.own-help .names { overflow-wrap: anywhere; margin: 0; }
@media (max-width: 640px) { .own-help dl { grid-template-columns: minmax(0, 1fr); } .own-help dd { margin: 0 0 6px; } }
"""

_VARIABLES = {
    "messages": "The conversation: a list of objects with role and content, and where they apply tool_calls, "
    "reasoning_content, name and tool_call_id.",
    "tools": "JSON schemas of the tools that the model may call, or none.",
    "documents": "Texts for retrieval, each with a title and a text, or none.",
    "add_generation_prompt": "True in a chat: end with what asks the assistant to speak. False in training.",
    "bos_token, eos_token": "The tokenizer's own begin and end tokens; pad_token and unk_token too, where it has them.",
}
_FUNCTIONS = {
    "raise_exception": "raise_exception('why') refuses a conversation that the model was not trained for.",
    "strftime_now": "strftime_now('%d %b %Y') gives the time of now, for a date in the system message.",
    "namespace": "namespace(found=false) holds what a loop is to change; a plain set inside a loop is lost after it.",
    "range": "range(3) counts 0, 1, 2.",
}
_TAGS = {
    "{% generation %} … {% endgeneration %}": "Marks what the assistant wrote: that is what training learns.",
    "{% break %}, {% continue %}": "Leave a loop, or go on with its next round.",
    "{% for %}, {% if %}, {% set %}, {% macro %}": "Jinja's own; “-” inside a tag removes the white space beside it.",
}
_FILTERS = {
    "tojson": "{{ tool | tojson(indent=4) }} writes JSON, with letters of all scripts as they are.",
    "trim": "Takes white space off both ends.",
    "default": "{{ name | default('none') }} where the name is not set.",
    "selectattr": "{{ messages | selectattr('role', 'equalto', 'system') | list }} picks messages.",
}
_TESTS = {"defined": "{% if tools is defined %}", "string": "{% if message.content is string %}"}


@cache
def usable() -> str:
    """Variables, tags, functions, filters and tests that apply_chat_template offers, as HTML."""
    env = sandbox.environment()
    parts = [
        _listed("Variables", _VARIABLES),
        "<p>Any other name is a variable of your own: it is not set until a caller sets it.</p>",
        _listed("Tags", _TAGS),
        _listed("Functions", _FUNCTIONS, sorted(env.globals)),
        _listed("Filters", _FILTERS, sorted(env.filters)),
        _listed("Tests", _TESTS, sorted(name for name in env.tests if name.isidentifier())),
    ]
    return f'<div class="own-help">{"".join(parts)}</div>'


def _listed(title: str, described: dict[str, str], names=()) -> str:
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in described.items())
    rest = ", ".join(f"<code>{html.escape(name)}</code>" for name in names if name not in described)
    also = f'<p class="names">Also: {rest}</p>' if rest else ""
    return f"<h4>{title}</h4><dl>{rows}</dl>{also}"
