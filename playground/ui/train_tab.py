"""Fine-tune: choose a recipe, start a run, and watch the model learn. The page only reads the run's folder."""

import html
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import gradio as gr
import pandas as pd

from playground.config import TrainConfig, fields, parse
from playground.core import datasets
from playground.core.tokenizer import Tokenizer
from playground.core.training import collate
from playground.core.training.recipes import recipes
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Run
from playground.ui.common import QUEUED, QUIET, Services, shown

SIMPLE = ("data", "template", "model", "epochs", "learning_rate", "rank", "batch_size", "probe")
NAMES = tuple(f.name for f in fields(TrainConfig) if f.name != "recipe")
# A change of any of these changes how many rows, tokens or steps there will be.
COUNTED = (
    "data",
    "template",
    "model",
    "rows",
    "epochs",
    "steps",
    "batch_size",
    "max_length",
    "eval_share",
    "eval_rows",
)
LISTED = 30  # newest runs
POINTS = 400  # of a curve on the plot
COUNT_ROWS = 2000  # rendered for the count before a run; more are estimated from these
TICK = 1.5

WORDS = {
    "queued": "Waiting for its turn",
    "preparing": "Getting ready",
    "running": "Training",
    "stopping": "Stopping after this step",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "killed": "Ended by the system",
}
KINDS = {"failed": "bad", "killed": "bad", "finished": "good", "stopped": "calm"}

CSS = """
.plan { font-size: var(--text-sm); color: var(--body-text-color-subdued); padding: 0 4px; overflow-wrap: anywhere; }
.plan.bad, .run-state.bad b { color: #a32019; }
.dark .plan.bad, .dark .run-state.bad b { color: #ff9c94; }
.run-state.good b { color: var(--color-accent); }
.run-state b { font-size: var(--text-lg); }
.run-state p { margin: 2px 0; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 6px 0; }
.figures dt { font-size: var(--text-xs); color: var(--body-text-color-subdued); }
.figures dd { margin: 0; font-size: var(--text-md); font-variant-numeric: tabular-nums; }
.run-list { max-height: 16em; overflow-y: auto; }
.run-list label { width: 100%; }
.answers table { border-collapse: collapse; width: 100%; font-size: var(--text-sm); }
.answers td { padding: 4px 8px; border: 0 !important;
  border-top: 1px solid var(--border-color-primary) !important; vertical-align: top; }
.answers td:first-child { white-space: nowrap; color: var(--body-text-color-subdued); }
.answers pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono); }
.answers { max-height: 22em; overflow-y: auto; }
.run-empty { padding: 24px 12px; color: var(--body-text-color-subdued); }
"""


@dataclass(frozen=True)
class View:
    """The components that show the selected run."""

    runs: gr.Radio
    state: gr.HTML
    plot: gr.LinePlot
    answers: gr.HTML
    log: gr.Textbox
    stop: gr.Button
    discard: gr.Button
    resume: gr.Button
    delete: gr.Button
    seen: gr.State

    @property
    def all(self) -> list:
        return [getattr(self, name) for name in self.__dataclass_fields__]


def build(services: Services) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            recipe, about, form, file, plan, start = _form(services)
        with gr.Column(scale=3, min_width=320):
            view, confirm, question, yes, no = _view()
    pending = gr.State("")
    inputs = [form[name] for name in NAMES]
    page = gr.context.Context.root_block

    recipe.change(use_recipe, recipe, [about, *inputs], **QUIET)
    count = partial(shown_plan, services)
    gr.on(
        [page.load, *(form[name].change for name in COUNTED)], count, inputs, plan, trigger_mode="always_last", **QUIET
    )
    page.load(lambda: gr.update(choices=services.datasets.names()), None, form["data"], **QUIET)
    file.upload(shown(partial(add_file, services)), file, form["data"], **QUEUED)
    start.click(shown(partial(start_run, services)), [recipe, *inputs], view.all, **QUEUED)

    show = partial(show_run, services)
    page.load(partial(show, fresh=True), [view.runs, view.seen], view.all, **QUIET)
    view.runs.input(show, [view.runs, view.seen], view.all, **QUIET)
    gr.Timer(TICK).tick(show, [view.runs, view.seen], view.all, **QUIET)
    view.stop.click(shown(partial(act, services, "stop")), view.runs, view.all, **QUEUED)
    view.resume.click(shown(partial(act, services, "resume")), view.runs, view.all, **QUEUED)
    for action, button in (("discard", view.discard), ("delete", view.delete)):
        button.click(partial(ask, action), view.runs, [confirm, question, pending], **QUIET)
    yes.click(shown(partial(confirmed, services)), [view.runs, pending], [confirm, *view.all], **QUEUED)
    no.click(lambda: gr.update(visible=False), None, confirm, **QUIET)


def _form(services: Services):
    """Recipe, the simple fields, all other fields, what will be trained on, and the button."""
    known = recipes()
    first = next(iter(known.values()), None)
    config = first.config() if first else TrainConfig()
    recipe = gr.Dropdown(
        [*((r.title, r.name) for r in known.values()), ("My own settings", "")],
        value=first.name if first else "",
        label="Recipe",
        info="Fills in the settings below",
    )
    about = gr.HTML(_about(first.name if first else ""))
    form = {}
    for name in SIMPLE[:3]:
        form[name] = _component(services, name, getattr(config, name))
    file = gr.UploadButton("Add a data file", file_types=[*datasets.SUFFIXES, ".gz"], size="sm")
    with gr.Row():
        for name in SIMPLE[3:7]:
            form[name] = _component(services, name, getattr(config, name))
    form["probe"] = _component(services, "probe", config.probe)
    with gr.Accordion("All settings", open=False), gr.Row():
        for name in NAMES:
            if name not in SIMPLE:
                form[name] = _component(services, name, getattr(config, name))
    plan = gr.HTML('<div class="plan">Counting the rows …</div>')
    start = gr.Button("Start training", variant="primary")
    return recipe, about, form, file, plan, start


def _component(services: Services, name: str, value):
    """The form's component for a setting, from its type, bounds and help text."""
    field = next(f for f in fields(TrainConfig) if f.name == name)
    look = {"label": name.replace("_", " ").capitalize(), "info": field.metadata["help"], "min_width": 140}
    choices = field.metadata.get("choices") or {
        "model": [(entry.title or entry.name, entry.name) for entry in services.sources.entries()],
        "data": services.datasets.names(),
        "template": services.templates.choices(),
    }.get(name)
    if choices:
        return gr.Dropdown(list(choices), value=value, allow_custom_value="choices" not in field.metadata, **look)
    if isinstance(value, bool):
        return gr.Checkbox(value, **look)
    if isinstance(value, int | float):
        return gr.Number(value, **look)
    return gr.Textbox(value, max_lines=3, **look)


def _view():
    state = gr.HTML(EMPTY)
    plot = gr.LinePlot(
        curve([]),
        x="step",
        y="loss",
        color="kind",
        color_map={"training": "#0f766e", "held out": "#c2410c"},
        x_title="step",
        y_title="loss on the trained tokens",
        height=260,
        visible=False,
    )
    with gr.Row():
        stop = gr.Button("Stop and keep", size="sm", visible=False)
        discard = gr.Button("Stop and discard", size="sm", visible=False)
        resume = gr.Button("Resume", size="sm", visible=False)
        delete = gr.Button("Delete", size="sm", visible=False)
    with gr.Group(visible=False) as confirm:
        question = gr.HTML()
        with gr.Row():
            yes = gr.Button("Yes", variant="stop", size="sm")
            no = gr.Button("No", size="sm")
    answers = gr.HTML()
    chooser = gr.Radio([], label="Runs", visible=False, elem_classes="run-list")
    with gr.Accordion("Log", open=False):
        log = gr.Textbox(lines=8, max_lines=16, show_label=False, interactive=False, autoscroll=True)
    seen = gr.State()
    return View(chooser, state, plot, answers, log, stop, discard, resume, delete, seen), confirm, question, yes, no


EMPTY = (
    '<div class="run-empty"><b>No run yet.</b><p>Pick a recipe on the left and press <i>Start training</i>. '
    "The loss, the time left and the model's answer to the probe prompt then appear here as it learns. "
    "The run goes on when this page is closed.</p></div>"
)


# ---- the form --------------------------------------------------------------------------------------------------


def use_recipe(name: str) -> list:
    """The recipe's description and settings; "" leaves the settings as they are."""
    if not name:
        return [_about(""), *[gr.skip()] * len(NAMES)]
    config = asdict(recipes()[name].config())
    return [_about(name), *(config[field] for field in NAMES)]


def _about(name: str) -> str:
    text = recipes()[name].description if name else "Every setting is yours; a recipe's values are a good start."
    return f'<div class="plan">{html.escape(text)}</div>'


def add_file(services: Services, file: str) -> dict:
    """Keep an uploaded data file where every tab and every run finds it, once it can be read; select it."""
    entry = services.datasets.add(Path(file))
    if entry.problem:
        raise PlaygroundError(
            f"{entry.name} was added, but its rows are not understood yet: {entry.problem}. Say what its columns mean "
            "in the Templates tab, under “Add your own data”"
        )
    return gr.update(choices=services.datasets.names(), value=entry.name)


def config_from(recipe: str, values: tuple) -> TrainConfig:
    return parse(TrainConfig, {"recipe": recipe or "", **dict(zip(NAMES, values, strict=True))})


def shown_plan(services: Services, *values) -> str:
    """What a run with these settings would train on, as HTML; a mistake is said there, not in a pop-up."""
    try:
        return f'<div class="plan">{html.escape(plan(services, config_from("", values)))}</div>'
    except PlaygroundError as error:
        return f'<div class="plan bad">{html.escape(str(error))}</div>'


def plan(services: Services, config: TrainConfig) -> str:
    """Rows, trained tokens and steps in a sentence. Raises PlaygroundError when the run could not work."""
    known = config.data in services.datasets.names()
    data = services.datasets.load(config.data) if known else datasets.load(config.data, services.paths)
    rows = min(config.rows or len(data.conversations), len(data.conversations))
    folder = services.sources.find(config.model)
    if folder is None:
        return f"{rows:,} rows. The model is not on this machine yet; it is fetched when the run starts."
    tokenizer = Tokenizer.load(Path(folder))
    counted = TrainConfig(**{**asdict(config), "rows": min(rows, COUNT_ROWS)})
    template = services.templates.load(config.template, tokenizer)
    examples = collate.prepare(counted, data.conversations, template, tokenizer, data.problems)
    if rows <= COUNT_ROWS:
        held, train = len(examples.held_out), len(examples.train)
        sentence = examples.report.sentence()
    else:
        kept = round(rows * examples.report.kept / COUNT_ROWS)
        held = min(max(1, round(config.eval_share * kept)), config.eval_rows) if config.eval_share else 0
        train = kept - held
        sentence = (
            f"about {kept:,} of {rows:,} rows, from the first {COUNT_ROWS:,} counted: {examples.report.sentence()}"
        )
    steps = collate.total_steps(config, train)
    return (
        f"{sentence}. {train:,} rows to train on and {held:,} held out: {steps:,} steps of {config.batch_size:,} rows."
    )


def start_run(services: Services, recipe: str, *values) -> list:
    config = config_from(recipe, values)
    if services.sources.status(config.model) == "needs licence":
        raise PlaygroundError(f"the terms of {config.model} are to be read and accepted first, in the Chat tab")
    plan(services, config)
    run = services.jobs.start(config)
    return show_run(services, run.name, None)


# ---- the selected run ------------------------------------------------------------------------------------------


def show_run(services: Services, selected: str | None, seen, fresh: bool = False) -> list:
    """Values for `View.all`; all skipped when nothing has changed since `seen`.

    Without a selection the newest run is shown, so that a page that is opened again finds its run.
    """
    found = runs.list_runs(services.paths)[:LISTED]
    names = [run.name for run in found]
    run = next((run for run in found if run.name == selected), found[0] if found else None)
    now = (run.name if run else None, [(other.name, other.state, _changed(other, run)) for other in found])
    if now == seen and not fresh:
        return [gr.skip()] * len(View.__dataclass_fields__)
    if run is None:
        hidden = gr.update(visible=False)
        return [gr.update(choices=[], value=None, visible=False), EMPTY, hidden, "", "", *[hidden] * 4, now]
    events, status = run.events(), run.status
    choices = [(run_label(services, other), other.name) for other in found]
    old = {name: (state, changed) for name, state, changed in seen[1]} if seen else {}
    same_list = seen and seen[0] == run.name and [n for n, _ in old.items()] == names
    relabelled = not same_list or any(old.get(o.name, ("",))[0] != o.state or o.status.live for o in found)
    table = curve(events)
    return [
        gr.update(choices=choices, value=run.name, visible=True) if relabelled else gr.skip(),
        state_html(services, run, events),
        # one point is no curve, and a plot that begins without a line never gets it into its legend
        gr.update(value=table, visible=True) if (table["kind"] == "training").sum() > 1 else gr.update(visible=False),
        answers_html(events),
        run.log(),
        gr.update(visible=status.live, interactive=status.state != "stopping"),
        gr.update(visible=status.live),
        gr.update(visible=run.resumable),
        gr.update(visible=not status.live),
        now,
    ]


def _changed(run: Run, selected: Run | None) -> tuple:
    """What changes when the run has something new to show; the others are known by their state and step."""
    if run.name != selected.name:
        return ()
    return tuple(path.stat().st_size for name in ("events.jsonl", "log.txt") if (path := run.folder / name).exists())


def run_label(services: Services, run: Run) -> str:
    """A run in the list: name, state, and where it stands."""
    status = run.status
    words = WORDS[status.state].lower()
    if status.state == "queued" and (before := services.jobs.position(run)):
        words += f", {before} before it"
    if status.state in ("running", "stopping") and (step := run.last("step")):
        words += f", step {step['step']:,} of {step['steps']:,}"
    return f"{run.name} · {words} · {time.strftime('%d %b %H:%M', time.localtime(run.created))}"


def state_html(services: Services, run: Run, events: list[dict]) -> str:
    """State in words, the newest figures, the count of rows, the scores and the truth check."""
    status = run.status
    lines = [f"<p><b>{WORDS[status.state]}</b> {html.escape(run.name)}</p>"]
    if status.state == "queued" and (before := services.jobs.position(run)):
        lines.append(f"<p>{before} {'run is' if before == 1 else 'runs are'} before this one; it starts by itself.</p>")
    elif status.sentence:
        lines.append(f"<p>{html.escape(status.sentence)}</p>")
    newest = {event["kind"]: event for event in events}
    if status.state == "preparing" and "fetch" in newest and "plan" not in newest:
        lines.append(f"<p>{html.escape(newest['fetch']['text'])}</p>")
    if "step" in newest:
        lines.append(_figures(newest, status.state in ("running", "stopping")))
    for kind, key, title in (("plan", "sentence", "Rows"), ("scores", "summary", "Exact calls on held-out questions")):
        if kind in newest:
            lines.append(f"<p>{title}: {html.escape(str(newest[kind][key]))}</p>")
    if "truth" in newest:
        passed = newest["truth"]["passed"]
        word = "Truth check passed" if passed else "Truth check failed"
        lines.append(f"<p>{word}: {html.escape(newest['truth']['sentence'])}</p>")
        if passed and run.adapter:
            lines.append(f"<p>Its adapter is in the Chat tab as <b>{html.escape(run.name)}</b>.</p>")
    return f'<div class="run-state {KINDS.get(status.state, "")}">{"".join(lines)}</div>'


def _figures(newest: dict[str, dict], live: bool) -> str:
    step = newest["step"]
    figures = [("Step", f"{step['step']:,} of {step['steps']:,}")]
    if live:
        figures.append(("Time left", duration(step["eta"])))
    figures.append(("Loss", f"{step['loss']:.3f}"))
    if "eval" in newest:
        figures.append(("Held-out loss", f"{newest['eval']['eval_loss']:.3f}"))
    figures += [
        ("Tokens/s", f"{step['tokens_per_second']:,.0f}"),
        ("Memory", f"{step['memory'] / 2**30:.1f} GiB"),
        ("Learning rate", f"{step['lr']:.1e}"),
        ("Gradient norm", f"{step['grad_norm']:.2f}"),
    ]
    return f'<dl class="figures">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in figures)}</dl>'


def curve(events: list[dict]) -> pd.DataFrame:
    """Training and held-out loss by step, thinned out; after a resume the later value of a step counts."""
    lines = []
    for kind, key, name in (("step", "loss", "training"), ("eval", "eval_loss", "held out")):
        points = sorted({event["step"]: event[key] for event in events if event["kind"] == kind}.items())
        every = max(1, -(-len(points) // POINTS))
        # a thinned curve still ends with its last point
        kept = points[len(points) - 1 :: -every][::-1] if points else []
        lines += [{"step": step, "loss": round(value, 4), "kind": name} for step, value in kept]
    return pd.DataFrame(lines, columns=["step", "loss", "kind"])


def answers_html(events: list[dict]) -> str:
    """The probe's answers, newest first."""
    samples = {event["step"]: event for event in events if event["kind"] == "sample"}
    if not samples:
        return ""
    rows = ""
    for step in sorted(samples, reverse=True):
        text = html.escape(samples[step]["text"].strip()) or "(nothing)"
        rows += f"<tr><td>step {step:,}</td><td><pre>{text}</pre></td></tr>"
    prompt = html.escape(next(iter(samples.values()))["prompt"])
    return f'<div class="answers"><p>Asked as it learns: <b>{prompt}</b></p><table>{rows}</table></div>'


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


# ---- buttons ---------------------------------------------------------------------------------------------------


def act(services: Services, action: str, selected: str | None) -> list:
    """Do what a button says to the selected run, and show what became of it."""
    if not selected:
        raise PlaygroundError("select a run first")
    run = runs.find(services.paths, selected)
    match action:
        case "stop":
            services.jobs.stop(run)
        case "discard":
            services.jobs.stop(run, keep=False)
        case "resume":
            services.jobs.resume(run)
        case "delete":
            services.jobs.delete(run)
    return show_run(services, selected, None)


def ask(action: str, selected: str | None) -> tuple:
    """Show the question before something is lost."""
    what = {
        "discard": f"Stop {selected} now and keep nothing of what it learned since its last checkpoint?",
        "delete": f"Delete {selected} with its adapter, its curve and its log?",
    }[action]
    return gr.update(visible=bool(selected)), f"<p>{html.escape(what)}</p>", action


def confirmed(services: Services, selected: str | None, action: str) -> list:
    return [gr.update(visible=False), *act(services, action, selected)]
