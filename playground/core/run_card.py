"""A run's card: what was trained, how, how it went and how to repeat it; and what differs between two runs.

Everything is read from plain dicts (config.json, playground.json, events), so that folders of an older or newer
version give a card too: what they do not say is listed as missing.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from playground.config import TrainConfig, fields
from playground.core import overfit
from playground.core.export import cli_line
from playground.errors import PlaygroundError

FILE = "run-card.md"
GIB = 2**30
# Shown on every card; any other setting only where it is not the default.
ALWAYS = ("learning_rate", "rank", "alpha", "targets", "batch_size", "max_length", "seed")
SAID_ELSEWHERE = ("name", "recipe", "model", "data", "template", "probe")


@dataclass(frozen=True)
class Card:
    """`sections`: titles with (label, value) pairs; `missing`: what the folder does not say; `command`: repeats it."""

    name: str
    state: str
    note: str
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    command: str
    missing: tuple[str, ...]


def card(name: str, state: str, config: dict, about: dict, events: list[dict], note: str = "") -> Card:
    """The card of a run. `about` is its adapter's playground.json, {} where there is none yet."""
    newest = {event["kind"]: event for event in events}
    missing: list[str] = []

    def say(label: str, value, what: str = "") -> tuple[tuple[str, str], ...]:
        if value in (None, "", {}):
            if what:
                missing.append(what)
            return ()
        return ((label, str(value)),)

    plan, scores = newest.get("plan", {}), newest.get("scores") or about.get("scores") or {}
    trained = (
        *say("Model", config.get("model"), "the model"),
        *say("Revision", about.get("base_revision")),
        *say("Data", config.get("data"), "the data"),
        *say("Data hash (SHA-256)", about.get("data_hash") or plan.get("data_hash"), "the data's hash"),
        *say("Rows", plan.get("sentence"), "the count of rows"),
        *say("Template", about.get("template_name") or config.get("template"), "the template's name"),
        *say("Template hash (SHA-256)", about.get("template_hash"), "the template's hash"),
        *say("Loss mask", mask_words(about.get("mask_rule") or plan.get("mask_rule")), "the mask rule"),
        *say("Method", plan.get("method") or about.get("method")),
        *say("Trained parameters", trained_words(events)),
        *say("Device", " ".join(str(plan[k]) for k in ("device", "dtype") if k in plan)),
    )
    went = (
        *_went(events, newest, missing),
        *say("Truth check", _truth(newest.get("truth")), "the truth check"),
        *say(scores.get("what", "Scores"), scores.get("summary")),
    )
    sections = (
        ("What was trained", trained),
        ("Settings", tuple(_settings(config))),
        ("How it went", went),
        ("Memory: estimate and measured", tuple(_memory(about, plan, events))),
        ("Time: estimate and measured", tuple(_time(about, plan, events))),
        ("Answers to the probe", tuple(_answers(events))),
        ("Versions", tuple((k, str(v)) for k, v in (about.get("versions") or {}).items())),
    )
    if not about.get("versions"):
        missing.append("the versions of the libraries")
    return Card(name, state, note, tuple(s for s in sections if s[1]), _command(config, name), tuple(missing))


def mask_words(rule: str | None) -> str:
    words = {
        "generation": "generation: the template marks what the assistant wrote",
        "prefix": "prefix: what an assistant message adds to the prompt before it",
        "none": "none: nothing could be told apart",
    }
    return words.get(rule, rule or "")


def trained_words(events: list[dict]) -> str:
    """How many numbers were trained, in each stage; "" where no event says it."""
    plan = next((e for e in reversed(events) if e["kind"] == "plan"), {})
    stages = {e["stage"]: e for e in events if e["kind"] == "stage" and "stage" in e}
    if stages:
        numbers = [f"{e.get('trainable', 0):,} ({e.get('name', e['stage'])})" for e in stages.values()]
        return ", then ".join(numbers)
    return f"{plan['trainable']:,}" if plan.get("trainable") is not None else ""


def _settings(config: dict):
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    for key, value in config.items():
        if key in SAID_ELSEWHERE:
            continue
        if key not in defaults:
            yield key, f"{value} (a setting that this version does not know)"
        elif key in ALWAYS or value != defaults[key]:
            yield key.replace("_", " "), str(value)


def _went(events: list[dict], newest: dict, missing: list[str]):
    step, held = newest.get("step"), [event for event in events if event["kind"] == "eval" and "eval_loss" in event]
    if not step:
        missing.append("any step")
        return
    yield "Steps", f"{step.get('step', 0):,} of {step.get('steps', 0):,}"
    if "loss" in step:
        yield "Training loss at the end", f"{step['loss']:.4f}"
    if held:
        best = min(held, key=lambda event: event["eval_loss"])
        yield (
            "Held-out loss",
            f"{held[0]['eval_loss']:.4f} at step {held[0]['step']:,}, {held[-1]['eval_loss']:.4f} at step "
            f"{held[-1]['step']:,}, best {best['eval_loss']:.4f} at step {best['step']:,}",
        )
        light = overfit.light(events)
        yield "Overfit light", f"{light.colour or 'none'}: {light.sentence}"
    if early := newest.get("early_stop"):
        yield "Stopped early", early_words(early)
    rates = sorted(e["tokens_per_second"] for e in events if e["kind"] == "step" and "tokens_per_second" in e)
    if rates:
        yield "Tokens/s (median step)", f"{rates[len(rates) // 2]:,.0f}"
    yield "Began", time.strftime("%Y-%m-%d %H:%M", time.localtime(events[0]["time"]))


def early_words(event: dict) -> str:
    """Why it stopped before its last step, from an "early_stop"."""
    return (
        f"{event.get('waited', 'several')} evaluations without a better held-out loss than "
        f"{event.get('best_loss', float('nan')):.4f} at step {event.get('best_step', 0):,}"
    )


def _truth(truth: dict | None) -> str:
    if not truth:
        return ""
    return f"{'passed' if truth.get('passed') else 'FAILED'}: {truth.get('sentence', '')}"


def _memory(about: dict, plan: dict, events: list[dict]):
    """Estimate and measured peak, where the folder has them; bytes."""
    guess = (about.get("estimate") or plan.get("estimate") or {}).get("total", 0)
    steps = [event["memory"] for event in events if event["kind"] == "step" and "memory" in event]
    peak = about.get("peak_memory") or max(steps, default=0)
    if guess:
        yield "Estimate", f"{guess / GIB:.2f} GiB"
    if peak:
        yield "Measured peak", f"{peak / GIB:.2f} GiB"
    if guess and peak:
        yield "Estimate ÷ measured", f"{guess / peak:.2f}"


def _time(about: dict, plan: dict, events: list[dict]):
    """The same of steps and evaluations; only of a run that did all its steps at one go is the estimate."""
    guess = (about.get("estimate") or plan.get("estimate") or {}).get("seconds")
    begun = [event["time"] for event in events if event["kind"] == "state" and event.get("state") == "running"]
    steps = [event for event in events if event["kind"] == "step"]
    if not steps or len(begun) != 1:
        return
    took = max(event["time"] for event in events if event["kind"] in ("step", "eval", "sample")) - begun[0]
    whole = steps[-1].get("step") == steps[-1].get("steps")
    if guess and whole:
        yield "Estimate (time)", f"{guess:,.0f} s"
    yield "Steps and evaluations took", f"{took:,.0f} s"
    if guess and whole and took > 0:
        yield "Estimate ÷ measured (time)", f"{guess / took:.2f}"


def _answers(events: list[dict]):
    samples = [event for event in events if event["kind"] == "sample" and "text" in event]
    for prompt in dict.fromkeys(str(event.get("prompt", "")) for event in samples):
        own = [event for event in samples if str(event.get("prompt", "")) == prompt]
        for event in dict.fromkeys((own[0]["step"], own[-1]["step"])):
            text = next(e["text"] for e in reversed(own) if e["step"] == event)
            yield f"“{prompt}” at step {event:,}", text.strip() or "(nothing)"


def _command(config: dict, name: str) -> str:
    try:
        return cli_line({**config, "name": name})
    except PlaygroundError as error:
        return f"# this version cannot repeat it: {error}"


def markdown(card: Card) -> str:
    """The card as a file; also the body of a model card."""
    lines = [f"# {_flat(card.name)}", "", f"State: {card.state}", ""]
    lines += [*(f"> {line}" for line in card.note.splitlines()), ""] if card.note else []
    for title, pairs in card.sections:
        lines += [f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {_flat(label)} | {_flat(value)} |" for label, value in pairs]
        lines.append("")
    lines += ["## Repeat it", "", "```bash", card.command, "```", ""]
    if card.missing:
        lines += [f"This run's folder does not say: {', '.join(card.missing)}.", ""]
    return "\n".join(lines)


def _flat(text: str) -> str:
    """One line of a Markdown table; what a model wrote is no markup."""
    text = " ".join(str(text).split())
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, "\\" + sign)
    return text


def config_differences(configs: Sequence[dict]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) for the settings that differ; a run that does not have one says "not set"."""
    defaults = asdict(TrainConfig())
    names = dict.fromkeys([*defaults, *(key for config in configs for key in config)])
    found = []
    for name in names:
        if name == "name":
            continue
        values = [_value(config, name, defaults) for config in configs]
        if len(set(values)) > 1:
            found.append((name, values))
    return found


def _value(config: dict, name: str, defaults: dict) -> str:
    if name in config:
        value = config[name]
        return f"{value:g}" if isinstance(value, float) else str(value)
    return "not set" if name not in defaults else f"not set ({defaults[name]})"
