"""Settings put into the form again: those of a run, and those that the browser has kept over a reload.

The page's own script keeps them in the browser: gr.BrowserState (gradio 6.31) holds nothing at the page's load where it
stands in a tab that is not open, and would send all fields to the server and back at each change.
"""

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from playground.config import TrainConfig, fields, parse
from playground.core import datasets, templates
from playground.core.training import collate
from playground.core.training.recipes import recipe
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Run
from playground.ui.common import Services

KEY = "playground-fine-tune"
# Not kept until what was kept is on the page: a field that is drawn meanwhile tells of a change, too.
READ = f"() => {{ try {{ return localStorage.getItem('{KEY}') ?? ''; }} catch {{ return ''; }} }}"
READY = "() => { window.playgroundFormReady = true; return []; }"


def keep(names: Iterable[str]) -> str:
    """The script that keeps the values of these fields in the browser."""
    return f"""(...values) => {{
  if (!window.playgroundFormReady) return [];
  const kept = Object.fromEntries({json.dumps(list(names))}.map((name, i) => [name, values[i]]));
  try {{ localStorage.setItem('{KEY}', JSON.stringify(kept)); }} catch {{ /* private window, or full */ }}
  return [];
}}"""


@dataclass(frozen=True)
class Taken:
    """The settings that can be used here, by name, and a sentence for each that cannot."""

    values: dict
    refused: list[str]


def taken(services: Services, settings: dict) -> Taken:
    """Each of `settings`, of whichever version, looked at alone; those that it does not hold have their defaults."""
    values, refused = asdict(TrainConfig()), []
    for name, value in settings.items():
        try:
            values[name] = _checked(services, name, setting(value))
        except PlaygroundError as error:
            values.pop(name, None)
            refused.append(f"{name.replace('_', ' ')}: {error}")
    return Taken(values, refused)


def setting(value):
    """A field's value as the config takes it: of several layers, the names with commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _checked(services: Services, name: str, value):
    """The value as the config holds it. Raises PlaygroundError where it, or what it names, is not to be had here."""
    if name not in {f.name for f in fields(TrainConfig)}:
        raise PlaygroundError("a setting that this version does not know")
    value = getattr(parse(TrainConfig, {name: value}), name)
    match name:
        case "recipe" if value:
            recipe(value)
        case "data":
            rows_of(services, value)
        case "model":
            services.sources.find(value)
        case "template" if value != templates.MODEL:
            services.templates.load(value)
        case "continue_from" if value:
            runs.adapter_to_go_on_from(services.paths, value)
    return value


def rows_of(services: Services, name: str) -> datasets.Dataset:
    """A data set that is kept here, or a file."""
    return services.datasets.load(name) if name in services.datasets.names() else datasets.load(name, services.paths)


def of_run(services: Services, run: Run) -> tuple[Taken, str]:
    """The run's settings without its name, and what is to be said about them, as HTML."""
    settings = {name: value for name, value in run.settings.items() if name != "name"}
    found = taken(services, settings)
    remarks = [f"<b>not taken over</b>, {html.escape(problem)}" for problem in found.refused]
    if unsaid := [f.name for f in fields(TrainConfig) if f.name not in (*settings, "name", "recipe")]:
        remarks.append(f"the run's folder does not say {', '.join(unsaid)}: the usual values are taken")
    if _changed(services, run, found):
        remarks.append(f"{html.escape(str(found.values['data']))} holds other rows now than when the run began")
    return found, said(f"These are the settings of <b>{html.escape(run.name)}</b>", remarks)


def _changed(services: Services, run: Run, found: Taken) -> bool:
    before = next((event.get("data_hash") for event in run.events() if event["kind"] == "plan"), None)
    if before is None or "data" not in found.values:
        return False
    return collate.data_hash(rows_of(services, found.values["data"]).conversations) != before


def kept(services: Services, text: str) -> tuple[Taken | None, str, str]:
    """What the browser kept: the settings (None: nothing), where the chat's models go, and what is to be said."""
    try:
        settings = json.loads(text or "null")
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        return None, "", ""
    way = settings.pop("way", "")
    found = taken(services, settings)
    return found, way, said("As you left it, but", map(html.escape, found.refused)) if found.refused else ""


def said(sentence: str, remarks: Iterable[str]) -> str:
    items = "".join(f"<li>{remark}</li>" for remark in remarks)
    return f"<p>{sentence}{':' if items else '.'}</p>" + (f"<ul>{items}</ul>" if items else "")
