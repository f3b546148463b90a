"""What a lane can be: the choices, the lanes a page or a preset begins with, their names, and reading them back."""

import json
from dataclasses import asdict

from playground.config import SamplingConfig, fields, parse
from playground.errors import PlaygroundError
from playground.services.engine import Lane
from playground.services.hosts import is_local
from playground.ui.common import Services

MAX_LANES = 4
COT, REACT = "chain-of-thought prompt vs plain", "ReAct prompt on base and instruct"
PRESETS = ("base / instruct / tuned", "same model, wrong template", COT, REACT, "temperature 0 / 0.7 / 1.5")
# Kojima et al. 2022 (arXiv:2205.11916): the words alone make a model write its steps down.
THINK = "Think step by step: write down every step, then give the result on a last line that begins with Answer:"
LANE_FIELDS = 6  # what is set per lane on the page
ALTERNATIVES = 5  # likeliest tokens noted at each step, for the token view

# model, adapter, template, temperature, system prompt, other sampling as "seed=7 top_p=0.9"
Settings = tuple[str, str, str, float | str | None, str, str]


def model_choices(services: Services) -> list[tuple[str, str]]:
    """Models that are here, and servers that were named, as (title, name)."""
    here = [(entry.title, entry.name) for entry in services.sources.entries() if services.sources.find(entry.name)]
    return [*here, *((f"{one.name} (elsewhere)", one.name) for one in services.engine.remotes.all())]


def first_choices(services: Services, model: str) -> list[tuple[str, str]]:
    """What a page offers when it opens: `model_choices`, or `model` alone while nothing is here yet."""
    return model_choices(services) or [(lane_title(services, model, "", ""), model)]


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    """Shipped adapters and those of finished runs, each with the model it fits."""
    found = services.engine.adapters()
    return [("None", ""), *((f"{info.name} (for {info.base_model or 'any model'})", info.name) for info in found)]


def template_choices(services: Services) -> list[tuple[str, str]]:
    return [("Automatic (adapter's or model's own)", ""), *services.templates.choices()]


def default_lanes(services: Services) -> list[Settings]:
    """The lanes that the page opens with: base, instruct and, if there, tuned."""
    lanes = [(_base(services), "", "plain", None, "", ""), (services.model, "", "model", None, "", "")]
    fitting = [info.name for info in services.engine.adapters() if info.base_model == services.model]
    if fitting:
        lanes.append((services.model, fitting[0], "", None, "", ""))
    return lanes


def _base(services: Services) -> str:
    """A base model that is here; the app's own model where there is none."""
    bases = [e.name for e in services.sources.entries() if e.role == "base" and services.sources.find(e.name)]
    return bases[0] if bases else services.model


def preset_lanes(services: Services, preset: str) -> list[Settings]:
    model = services.model
    if preset == "same model, wrong template":
        return [(model, "", name, None, "", "") for name in ("model", "alpaca", "llama-2")]
    if preset == "temperature 0 / 0.7 / 1.5":
        return [(model, "", "model", temperature, "", "") for temperature in (0.0, 0.7, 1.5)]
    if preset == COT:
        return [(model, "", "model", None, system, "") for system in ("", THINK)]
    if preset == REACT:
        base = _base(services)
        other = ("react", base) if base != model else ("plain", model)  # without a base model: no ReAct beside ReAct
        return [(other[1], "", other[0], None, "", ""), (model, "", "react", None, "", "")]
    return default_lanes(services)


def lane_title(
    services: Services,
    model: str,
    adapter: str,
    template: str,
    temperature: float | str | None = None,
    system: str = "",
    sampling: str = "",
) -> str:
    """A lane in a few words, as it is shown and as it is stored with a vote."""
    entry = next((entry for entry in services.sources.entries() if entry.name == model), None)
    adapter, template = _here(services, model, adapter, template)
    parts = [entry.title if entry else model]
    if adapter:
        parts.append(f"adapter {adapter}")
    if template == "plain" and entry and entry.role == "instruct" and not adapter:
        parts = [parts[0], "same weights, no chat template"]
    elif template not in ("", "model") and not (entry and entry.role == "base" and template == "plain"):
        parts.append(f"template {template}")
    if own := own_temperature(temperature):
        parts.append(f"temperature {own}")
    if sampling and sampling.strip():
        parts.append(_cut(sampling))
    if system and system.strip():
        parts.append(f"system prompt “{_cut(system)}”")
    return " · ".join(parts)


def _here(services: Services, model: str, adapter: str, template: str) -> tuple[str, str]:
    """Adapter and template of a lane; a lane elsewhere has what its server has, whatever its fields say."""
    return ("", "") if services.engine.remotes.find(model) is not None else (adapter, template)


def _cut(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 40 else words[:39] + "…"


def own_temperature(value: float | str | None) -> str:
    """A lane's own temperature as its field has it, in as few digits as say it; "" for the shared one."""
    text = str("" if value is None else value).strip()
    try:
        return f"{float(text):g}" if text else ""
    except ValueError:
        return text  # refused where it is used


def own_sampling(text: str) -> dict[str, str]:
    """What a lane sets for itself, written `seed=7 top_p=0.9`. Raises PlaygroundError."""
    known = [f.name for f in fields(SamplingConfig)]
    own = {}
    for part in (text or "").replace(",", " ").split():
        name, equals, value = part.partition("=")
        if name not in known or not equals or not value:
            raise PlaygroundError(
                f"{part!r} is no sampling setting; write NAME=VALUE, several apart by blanks, with one of the names "
                f"{', '.join(known)}"
            )
        own[name] = value
    return own


def read_lanes(services: Services, count: int, sanitize: bool, values: tuple) -> list[Lane]:
    """The lanes as set on the page. `values`: the settings of each of 4 lanes, then the sampling fields."""
    names = [f.name for f in fields(SamplingConfig)]
    sampling = parse(SamplingConfig, dict(zip(names, values[LANE_FIELDS * MAX_LANES :], strict=True)))
    lanes = []
    for index in range(count):
        model, adapter, template, temperature, system, others = _settings(values, index)
        if not model:
            raise PlaygroundError(f"lane {index + 1} has no model; choose one in its settings")
        title = lane_title(services, model, adapter, template, temperature, system, others)
        try:
            own = own_sampling(others)
            if warm := own_temperature(temperature):
                own["temperature"] = warm
            lane_sampling = parse(SamplingConfig, {**asdict(sampling), **own})
        except PlaygroundError as error:
            raise PlaygroundError(f"lane {index + 1}: {error}") from error
        adapter, template = _here(services, model, adapter, template)
        lanes.append(Lane(model, adapter or None, template, lane_sampling, title, sanitize, alternatives=ALTERNATIVES))
    return lanes


def check_here(services: Services, model: str, template: str = "") -> None:
    """Raise PlaygroundError for a model or template that is not on offer, but on this machine's own page: a folder's
    or a file's path is for that one alone, others must not find out what there is."""
    if is_local(services.host):
        return
    here = [name for _, name in model_choices(services)]
    if model not in (*here, *(entry.name for entry in services.sources.entries())):
        raise PlaygroundError(f"choose one of the models that are here: {', '.join(here)}")
    if template and template not in [key for _, key in template_choices(services)]:
        raise PlaygroundError("choose one of the templates of the list")


def read_systems(count: int, shared: str, values: tuple) -> list[str]:
    """The system prompt of each lane: its own, else the shared one."""
    own = [_settings(values, index)[4] for index in range(count)]
    return [system if system and system.strip() else shared for system in own]


def _settings(values: tuple, index: int) -> Settings:
    return values[LANE_FIELDS * index : LANE_FIELDS * (index + 1)]


def with_value(choices: list[tuple[str, str]], value: str) -> list[tuple[str, str]]:
    """The choices, and the chosen one too where it is gone: gradio refuses every event with a value not among them."""
    return choices if any(one == value for _, one in choices) else [*choices, (f"{value} (gone)", value)]


# --- lanes for a battle or a judge, named by a key ---


def lane_choices(services: Services) -> list[tuple[str, str]]:
    """Every model that is here × no adapter or one that fits × templates, as (title, key)."""
    adapters = services.engine.adapters()
    templates = ["", *(key for _, key in services.templates.choices() if key != "model")]
    found: dict[str, str] = {}  # a title once: the automatic template of a lane is also there by name
    for _, model in model_choices(services):
        for adapter in ("", *(info.name for info in adapters if info.base_model in (model, None, ""))):
            for template in templates:
                key = lane_key(model, *_here(services, model, adapter, template))
                found.setdefault(lane_title(services, model, adapter, template), key)
    return list(found.items())


def lane_key(model: str, adapter: str = "", template: str = "") -> str:
    return json.dumps([model, adapter, template], ensure_ascii=False)


def read_lane(services: Services, key: str, sampling: SamplingConfig | None = None) -> Lane:
    """The lane that a key stands for. Raises PlaygroundError."""
    try:
        model, adapter, template = (str(part) for part in json.loads(key))
    except (TypeError, ValueError):
        raise PlaygroundError(f"{str(key)[:80]!r} is no lane; choose one of the list") from None
    title = lane_title(services, model, adapter, template)
    return Lane(model, adapter or None, template, sampling or SamplingConfig(), title)


def default_pool(services: Services) -> list[str]:
    """Keys of the lanes that the side-by-side view opens with: base, instruct and, if there, tuned."""
    keys = dict(lane_choices(services))
    titles = [lane_title(services, *settings[:3]) for settings in default_lanes(services)]
    return [keys[title] for title in dict.fromkeys(titles) if title in keys]
