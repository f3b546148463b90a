"""Controls for the variables of the chosen templates; what is set goes to every view."""

import html
from dataclasses import dataclass, replace
from functools import partial

import gradio as gr

from playground.core.template_variables import Variable, value_of, variables
from playground.core.templates import MODEL
from playground.errors import PlaygroundError
from playground.ui.common import QUIET
from playground.ui.lab.shared import Lab, Reader, listed

DEFAULT = ""  # what a control holds while its variable is not set
SHOWN_NAMES = 3  # of the templates that read a variable

CSS = """
.lab-variables p { margin: 0; font-size: var(--text-md); color: var(--body-text-color-subdued); }
.lab-variables code { font-family: var(--font-mono); font-size: var(--text-sm); }
"""
NONE_CHOSEN = "Choose a template to see what else can be set in it."
NO_VARIABLES = "None of the chosen templates has variables of its own."


@dataclass(frozen=True)
class Control:
    variable: Variable
    readers: tuple[str, ...]  # titles of the templates that read it


def build(lab: Lab) -> None:
    """A control per variable, drawn again when other templates are chosen. A variable that is not set is in no dict."""
    triggers = [lab.chosen.change, lab.model.change]
    if gr.context.Context.root_block is not None:
        triggers.append(gr.context.Context.root_block.load)

    @gr.render(inputs=[lab.chosen, lab.model, lab.variables], triggers=triggers, show_progress="hidden")
    def _draw(chosen, model, values):
        found = controls(lab.reader, chosen, model)
        if not found:
            gr.HTML(sentence(NO_VARIABLES if chosen else NONE_CHOSEN))
            return
        with gr.Row():
            for control in found:
                field = component(control, (values or {}).get(control.variable.name))
                put = partial(changed, control.variable)
                field.input(put, [field, lab.variables], lab.variables, **QUIET)


def sentence(text: str) -> str:
    return f'<div class="lab-variables"><p>{html.escape(text)}</p></div>'


def controls(reader: Reader, chosen: list[str], model: str) -> list[Control]:
    """The variables of all chosen templates that can be read, those of the same name as one."""
    found: dict[str, Control] = {}
    for key in chosen or []:
        try:
            template = reader.template(key, reader.tokenizer(model) if key == MODEL else None)
        except PlaygroundError:  # its card says what is wrong with it
            continue
        for variable in variables(template.text):
            known = found.get(variable.name)
            found[variable.name] = joined(known, Control(variable, (template.title,)))
    return list(found.values())


def joined(known: Control | None, new: Control) -> Control:
    """One control for both: what is open to more values wins; defaults that differ are not named."""
    if known is None:
        return new
    a, b = known.variable, new.variable
    kind = a.kind if a.kind == b.kind else "text"
    choices = tuple(dict.fromkeys(a.choices + b.choices)) if kind == "choice" else ()
    default = a.default_text if a.default_text == b.default_text else ""
    both = replace(a, kind=kind, choices=choices, default_text=default, numeric=a.numeric and b.numeric)
    return Control(both, tuple(dict.fromkeys(known.readers + new.readers)))


def component(control: Control, value=None):
    """Radio, dropdown or text field; `value` is what is set, None where nothing is."""
    variable = control.variable
    common = {"label": variable.name, "info": info(control), "min_width": 200, "key": variable.name}
    default = (default_label(variable), DEFAULT)
    if variable.kind == "switch":
        now = DEFAULT if value not in (True, False) else "on" if value else "off"
        return gr.Radio([default, ("on", "on"), ("off", "off")], value=now, **common)
    if variable.kind == "choice":
        now = value if isinstance(value, str) and value in variable.choices else DEFAULT
        return gr.Dropdown([default, *((c, c) for c in variable.choices)], value=now, filterable=False, **common)
    placeholder = variable.default_text or "the template's default"
    return gr.Textbox("" if value is None else str(value), placeholder=placeholder, max_lines=4, **common)


def default_label(variable: Variable) -> str:
    words = {"true": "on", "false": "off"} if variable.kind == "switch" else {}
    default = words.get(variable.default_text, variable.default_text)
    return f"template's default ({default})" if default else "template's default"


def info(control: Control) -> str:
    names = list(control.readers[:SHOWN_NAMES])
    more = len(control.readers) - len(names)
    return f"Read by {listed(names + ([f'{more} more'] if more else []))}."


def changed(variable: Variable, given, values: dict | None) -> dict:
    """The page's variables after a control was set to `given`."""
    rest = {name: value for name, value in (values or {}).items() if name != variable.name}
    if given is None or not str(given).strip():
        return rest
    return {**rest, variable.name: value_of(variable, str(given))}
