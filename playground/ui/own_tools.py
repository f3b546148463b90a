"""A visitor's own tools: a schema with a canned reply, or a Python function that runs in the locked-down process."""

from collections.abc import Iterable
from functools import partial

import gradio as gr

from playground.core.tools import Tool, custom
from playground.errors import PlaygroundError
from playground.services.python_tool import Python
from playground.ui.common import QUEUED, shown

SCHEMA = """{
  "name": "find_book",
  "description": "Find a book of the school library.",
  "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
}"""
REPLY = '{"shelf": "B 12", "copies": 2}'
SOURCE = '''def area_of_circle(radius: float) -> float:
    """Area of a circle.

    Args:
        radius: Its radius.
    """
    import math

    return math.pi * radius**2
'''


def build(toolbox: list[Tool], own: gr.State, groups: list, python: Python | None) -> list:
    """The forms; what is added stands in `own` and is offered in the first of `groups` at once.

    Returns the events that change `own`: a tool has no hash, so a State of tools cannot be listened to.
    """
    with gr.Accordion("Add your own tool", open=False, elem_id="tools-own"):
        with gr.Tabs():  # short names: in a narrow column the second would be behind “…”
            with gr.Tab("Schema"):
                schema = gr.Code(
                    SCHEMA, language="json", label="Its JSON schema", lines=5, max_lines=14, wrap_lines=True
                )
                reply = gr.Textbox(REPLY, label="What it always answers", lines=2, max_lines=6)
                add_schema = gr.Button("Add this tool", size="sm")
            if python is not None:
                with gr.Tab("Python"):
                    source = gr.Code(
                        SOURCE, language="python", label="One function with type hints", lines=8, max_lines=20
                    )
                    add_source = gr.Button("Add this function", size="sm")
        remove = gr.Button("Remove my tools", size="sm")
    outputs = [own, *groups]
    events = [
        add_schema.click(shown(partial(with_schema, toolbox)), [own, *groups, schema, reply], outputs, **QUEUED),
        remove.click(shown(partial(without, toolbox)), [own, *groups], outputs, **QUEUED),
    ]
    if python is not None:
        add = shown(partial(with_source, toolbox, python))
        events.append(add_source.click(add, [own, *groups, source], outputs, **QUEUED))
    return events


def with_schema(toolbox: list[Tool], own: list[Tool], on: list[str], asking: list[str], schema: str, reply: str):
    return _added(toolbox, own, on, asking, custom.from_schema(schema or "", reply or ""))


def with_source(toolbox: list[Tool], python: Python, own: list[Tool], on: list[str], asking: list[str], source: str):
    return _added(toolbox, own, on, asking, custom.from_source(source or "", python.call))


def _added(toolbox: list[Tool], own: list[Tool], on: list[str], asking: list[str], tool: Tool) -> tuple:
    """Values for own, the tools on offer and those that ask first; a tool of the same name is put in its place."""
    if any(tool.name == known.name for known in toolbox):
        raise PlaygroundError(f"there is a built-in tool called {tool.name}; choose another name")
    if any(tool.name == known.name for known in own if known.source):
        raise PlaygroundError(f"an attached server has a tool called {tool.name}; choose another name")
    own = [*(known for known in own if known.name != tool.name), tool]
    kept, reason = custom.fitting(own)
    if len(kept) < len(own):
        raise PlaygroundError(reason)
    gr.Info(f"{tool.name} is on offer; it stands among the tools above.", duration=5)
    return offered(toolbox, own, [*on, tool.name], asking)


def offered(toolbox: list[Tool], own: list[Tool], on: Iterable[str], asking: Iterable[str]) -> tuple:
    """`own`, and the two lists of tools as the page shows them: what is gone is neither offered nor asked about."""
    names = [tool.name for tool in (*toolbox, *own)]
    on, asking = set(on), set(asking)
    return (
        own,
        gr.update(choices=names, value=[name for name in names if name in on]),
        gr.update(choices=names, value=[name for name in names if name in asking]),
    )


def without(toolbox: list[Tool], own: list[Tool], on: list[str], asking: list[str]) -> tuple:
    """The tools of attached servers stay: they go with their server."""
    kept = [tool for tool in own if tool.source]
    if len(kept) == len(own):
        raise PlaygroundError("there are no tools of your own to remove")
    return offered(toolbox, kept, on, asking)
