"""What a lane can be: the choices, the lanes a page or a preset begins with, their names, and reading them back."""

from dataclasses import asdict

from playground.config import SamplingConfig, fields, parse
from playground.errors import PlaygroundError
from playground.services.engine import Lane
from playground.ui.common import Services

MAX_LANES = 4
PRESETS = ("base / instruct / tuned", "same model, wrong template", "temperature 0 / 0.7 / 1.5")


def model_choices(services: Services) -> list[tuple[str, str]]:
    """Models that are here, as (title, name)."""
    return [(entry.title, entry.name) for entry in services.sources.entries() if services.sources.find(entry.name)]


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    """Shipped adapters and those of finished runs, each with the model it fits."""
    found = services.engine.adapters()
    return [("None", ""), *((f"{info.name} (for {info.base_model or 'any model'})", info.name) for info in found)]


def template_choices(services: Services) -> list[tuple[str, str]]:
    return [("Automatic (adapter's or model's own)", ""), *services.templates.choices()]


def default_lanes(services: Services) -> list[tuple[str, str, str, float | None]]:
    """(model, adapter, template, temperature) of each lane the page opens with: base, instruct and, if there, tuned."""
    bases = [e.name for e in services.sources.entries() if e.role == "base" and services.sources.find(e.name)]
    lanes = [(bases[0] if bases else services.model, "", "plain", None), (services.model, "", "model", None)]
    fitting = [info.name for info in services.engine.adapters() if info.base_model == services.model]
    if fitting:
        lanes.append((services.model, fitting[0], "", None))
    return lanes


def preset_lanes(services: Services, preset: str) -> list[tuple[str, str, str, float | None]]:
    if preset == "same model, wrong template":
        return [(services.model, "", name, None) for name in ("model", "alpaca", "llama-2")]
    if preset == "temperature 0 / 0.7 / 1.5":
        return [(services.model, "", "model", temperature) for temperature in (0.0, 0.7, 1.5)]
    return default_lanes(services)


def lane_title(services: Services, model: str, adapter: str, template: str, temperature: float | None = None) -> str:
    """A lane in a few words, as it is shown and as it is stored with a vote."""
    entry = next((entry for entry in services.sources.entries() if entry.name == model), None)
    parts = [entry.title if entry else model]
    if adapter:
        parts.append(f"adapter {adapter}")
    if template == "plain" and entry and entry.role == "instruct" and not adapter:
        parts = [parts[0], "same weights, no chat template"]
    elif template not in ("", "model") and not (entry and entry.role == "base" and template == "plain"):
        parts.append(f"template {template}")
    if temperature is not None:
        parts.append(f"temperature {temperature:g}")
    return " · ".join(parts)


def read_lanes(services: Services, count: int, sanitize: bool, values: tuple) -> list[Lane]:
    """The lanes as set on the page. `values`: 4 × (model, adapter, template, temperature), then the sampling fields."""
    names = [f.name for f in fields(SamplingConfig)]
    sampling = parse(SamplingConfig, dict(zip(names, values[4 * MAX_LANES :], strict=True)))
    lanes = []
    for index in range(count):
        model, adapter, template, temperature = values[4 * index : 4 * index + 4]
        if not model:
            raise PlaygroundError(f"lane {index + 1} has no model; choose one in its settings")
        own = {} if temperature is None else {"temperature": temperature}
        title = lane_title(services, model, adapter, template, temperature)
        lane_sampling = parse(SamplingConfig, {**asdict(sampling), **own})
        lanes.append(Lane(model, adapter or None, template, lane_sampling, title, sanitize))
    return lanes
