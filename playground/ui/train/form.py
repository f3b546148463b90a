"""The form of a run: recipe, settings in groups, and what the run would train on, counted before it starts."""

import html
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from playground.config import METHODS, TrainConfig, fields, parse
from playground.core import datasets, estimate
from playground.core.export import cli_line
from playground.core.tokenizer import Tokenizer
from playground.core.training import collate, layers
from playground.core.training.recipes import recipes
from playground.errors import PlaygroundError
from playground.services import runs
from playground.ui.common import QUEUED, QUIET, Services, shown, whenever
from playground.ui.train import again, fit, words

SIMPLE = ("data", "template", "model", "epochs", "learning_rate", "rank", "batch_size", "probe")
NAMES = tuple(f.name for f in fields(TrainConfig) if f.name != "recipe")
# Headings of the further settings; one that is new to this list comes under the last heading by itself.
GROUPS = {
    "What is trained": (
        *("method", "targets", "first_layer", "alpha", "dropout", "new_tokens"),
        *("prompt_tokens", "prompt_steps", "prompt_learning_rate"),
        *("continue_from", "load_in_4bit"),
    ),
    "Rows": ("rows", "max_length", "eval_share", "eval_rows"),
    "Steps": ("steps", "warmup_steps", "final_lr_share", "weight_decay", "beta2", "clip", "prefix_every", "skip_above"),
    "While it runs": ("eval_every", "patience", "restore_best", "probe_tokens", "log_to"),
    "This run and this machine": ("name", "seed", "dtype", "threads", "piece_tokens", "processes", "shard"),
}
OTHERS = "Advanced"
# Whether the chat's models make way for a run.
IF_TIGHT, UNLOAD, KEEP = "if tight", "always", "never"
WAYS = [("make way if memory is tight", IF_TIGHT), ("make way", UNLOAD), ("stay, and answer during the run", KEEP)]
# A change of any of these changes how many rows, tokens or steps there will be, or the memory they take.
COUNTED = (
    *("data", "template", "model", "rows", "epochs", "steps", "batch_size", "max_length", "eval_share", "eval_rows"),
    *("method", "rank", "targets", "first_layer", "dtype", "load_in_4bit", "piece_tokens", "prompt_steps"),
    *("prompt_tokens", "warmup_steps", "prefix_every"),
)
COUNT_ROWS = 2000  # rendered for the count before a run; more are estimated from these

CSS = """
.plan { font-size: var(--text-sm); color: var(--body-text-color-subdued); padding: 0 4px; overflow-wrap: anywhere; }
.plan.bad { color: #a32019; }
.dark .plan.bad { color: #ff9c94; }
.plan p { margin: 2px 0; }
.plan b { color: var(--body-text-color); }
#run-settings { scroll-margin-top: 130px; }
.group-title { font-size: var(--text-sm); font-weight: 600; margin: 6px 4px 0; }
.command textarea { font-family: var(--font-mono); font-size: var(--text-sm); }
"""


@dataclass(frozen=True)
class Form:
    recipe: gr.Dropdown
    about: gr.HTML
    back: gr.Button
    fields: dict
    file: gr.UploadButton
    plan: gr.HTML
    way: gr.Radio
    start: gr.Button
    command: gr.Textbox
    fit: tuple
    fit_opened: gr.Accordion
    kept: gr.Textbox  # what the browser has kept

    @property
    def inputs(self) -> list:
        return [self.fields[name] for name in NAMES]

    @property
    def filled(self) -> list:
        """What a recipe, a run or the browser fills in."""
        return [self.recipe, self.about, *self.inputs]


def build(services: Services) -> Form:
    """Recipe, the simple fields, all other fields in groups, what will be trained on, and the button."""
    known = recipes()
    first = next(iter(known.values()), None)
    config = first.config() if first else TrainConfig()
    recipe = gr.Dropdown(
        [*((r.title, r.name) for r in known.values()), ("My own settings", "")],
        value=first.name if first else "",
        label="Recipe",
        info="Fills in the settings below",
    )
    about = gr.HTML(about_html(first.name if first else ""), elem_id="run-settings")
    back = gr.Button("Back to the recipe's values", size="sm", visible=False)
    form = {name: component(services, name, getattr(config, name)) for name in SIMPLE[:3]}
    file = gr.UploadButton("Add a data file", file_types=[*datasets.SUFFIXES, ".gz"], size="sm")
    for pair in (SIMPLE[3:5], SIMPLE[5:7]):
        with gr.Row():
            form |= {name: component(services, name, getattr(config, name)) for name in pair}
    form["probe"] = component(services, "probe", config.probe)
    with gr.Accordion("All settings", open=False):
        for title, names in groups():
            gr.HTML(f'<div class="group-title">{title}</div>')
            with gr.Row():
                form |= {name: component(services, name, getattr(config, name)) for name in names}
    plan = gr.HTML('<div class="plan">Counting the rows …</div>')
    way = gr.Radio(
        WAYS, value=IF_TIGHT, label="Models of the Chat tab", info="They load again at the first question after the run"
    )
    start = gr.Button("Start training", variant="primary")
    with gr.Accordion("Would it fit on another device?", open=False) as fit_opened:
        elsewhere = fit.build()
    with gr.Accordion("The same from the command line", open=False):
        command = gr.Textbox(
            command_line(first.name if first else "", *(getattr(config, name) for name in NAMES)),
            label="Command line",  # without a label there is no button to copy it
            interactive=False,
            buttons=["copy"],
            elem_classes="command",
        )
    kept = gr.Textbox(visible=False)
    return Form(recipe, about, back, form, file, plan, way, start, command, elsewhere, fit_opened, kept)


def groups() -> list[tuple[str, list[str]]]:
    """(heading, fields) of all settings that are not among the simple ones, each exactly once."""
    found = [(title, [name for name in names if name in NAMES]) for title, names in GROUPS.items()]
    placed = {*SIMPLE, *(name for _, names in found for name in names)}
    found.append((OTHERS, [name for name in NAMES if name not in placed]))
    return [(title, names) for title, names in found if names]


def wire(services: Services, form: Form, started: Callable, outputs: list) -> None:
    """`started(run)` gives the values for `outputs` once a run was queued."""
    page, inputs = gr.context.Context.root_block, form.inputs
    settings, named = [form.recipe, *inputs], [form.about, *inputs]
    # a choice of the visitor's: a recipe that is put there with other values keeps them
    gr.on([form.recipe.select, form.back.click], use_recipe, form.recipe, named, **QUIET)
    changes = [page.load, *(form.fields[name].change for name in COUNTED)]
    whenever(partial(shown_plan, services), inputs, form.plan, changes)
    # what is said of a recipe changes when its values are there, the recipe before
    others = [form.fields[name].change for name in NAMES if name not in COUNTED]
    whenever(partial(checked_plan, services), [form.plan, *inputs], form.plan, others)
    everything = [form.about.change, *(form.fields[name].change for name in NAMES)]
    whenever(followed, settings, [form.command, form.back], everything)
    fit.wire(services, form.fit, form.fit_opened.expand, inputs, config_from)
    opened = page.load(partial(reopened, services), form.kept, [form.way, *form.filled], js=again.READ, **QUIET)
    opened.then(None, None, None, js=again.READY, **QUIET)
    keep = again.keep(("way", "recipe", *NAMES))
    gr.on([*everything, form.way.change], None, [form.way, *settings], None, js=keep, **QUIET)
    form.file.upload(shown(partial(add_file, services)), form.file, form.fields["data"], **QUEUED)
    begun = form.start.click(
        shown(lambda way, recipe, *values: started(start_run(services, recipe, *values, way=way))),
        [form.way, form.recipe, *inputs],
        outputs,
        # the rows are counted once more, which takes a moment: the page says that it is at it
        **{**QUEUED, "show_progress": "minimal"},
        show_progress_on=form.plan,
    )
    begun.success(None, js=words.into_view("run-state"))


def wire_again(services: Services, form: Form, button: gr.Button, chooser: gr.Radio) -> None:
    """`button` fills in the settings of the run that is chosen."""
    event = button.click(shown(partial(settings_of, services)), chooser, form.filled, **QUEUED)
    event.success(None, js=words.into_view("run-settings"))


def settings_of(services: Services, selected: str | None) -> list:
    """The selected run's settings, as `Form.filled` takes them."""
    if not selected:
        raise PlaygroundError("select a run first")
    found, said = again.of_run(services, runs.find(services.paths, selected))
    return filled(services, found.values, said)


def reopened(services: Services, kept: str) -> list:
    """The form as the browser has kept it; without that, the recipe's values with the data sets and adapters of now."""
    found, way, said = again.kept(services, kept)
    if found is None:
        return [gr.skip(), gr.skip(), gr.skip(), *(_update(services, name) for name in NAMES)]
    return [way if way in (IF_TIGHT, UNLOAD, KEEP) else gr.skip(), *filled(services, found.values, said)]


def filled(services: Services, values: dict, said: str) -> list:
    """These values, under what is said of them; a field whose value is not among them stays as it is."""
    name = values.get("recipe", "")
    given = {field: {"value": form_value(field, values[field])} for field in NAMES if field in values}
    return [name, about_html(name, said), *(_update(services, field, **given.get(field, {})) for field in NAMES)]


def _update(services: Services, name: str, **value) -> dict:
    """Update of a field, with the choices that come and go as they are now."""
    if name == "data":
        value["choices"] = services.datasets.names()
    elif name == "continue_from":
        value["choices"] = adapter_choices(services)
    return gr.update(**value) if value else gr.skip()


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    names = [runs.adapter_name(folder) for folder in runs.adapters(services.paths)]
    return [("none: start afresh", ""), *((name, name) for name in names)]


def component(services: Services, name: str, value):
    """The form's component for a setting, from its type, bounds and help text."""
    field = next(f for f in fields(TrainConfig) if f.name == name)
    look = {"label": name.replace("_", " ").capitalize(), "info": field.metadata["help"], "min_width": 140}
    if name == "targets":
        picked = [part.strip() for part in value.split(",") if part.strip()]
        return gr.Dropdown(
            LAYERS, value=picked, multiselect=True, allow_custom_value=True, **{**look, "min_width": 280}
        )
    choices = field.metadata.get("choices") or {
        "model": [(entry.title or entry.name, entry.name) for entry in services.sources.entries()],
        "data": services.datasets.names(),
        "template": services.templates.choices(),
        "continue_from": adapter_choices(services),
    }.get(name)
    if name == "method":
        choices, look["min_width"] = [(f"{method}: {text}", method) for method, text in METHODS.items()], 280
    if choices:
        return gr.Dropdown(list(choices), value=value, allow_custom_value="choices" not in field.metadata, **look)
    if isinstance(value, bool):
        return gr.Checkbox(value, **look)
    if isinstance(value, int | float):
        return gr.Number(value, **look)
    return gr.Textbox(value, max_lines=3, **look)


# Names that most models have; any other can be typed, and a name that the model has not is refused with those it has.
LAYERS = [
    ("all linear layers", "all-linear"),
    ("attention only", "attention"),
    *(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")),
]


def use_recipe(name: str) -> list:
    """The recipe's description and settings; "" leaves the settings as they are."""
    if not name:
        return [about_html(""), *[gr.skip()] * len(NAMES)]
    config = asdict(recipes()[name].config())
    return [about_html(name), *(form_value(field, config[field]) for field in NAMES)]


def form_value(name: str, value):
    """A setting as its component takes it."""
    if name == "targets":
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def about_html(name: str, said: str = "") -> str:
    """What the recipe is about, under `said` (HTML) where there is something to say of the settings."""
    if not name:
        return f'<div class="plan">{said}<p>Every setting is yours; a recipe\'s values are a good start.</p></div>'
    recipe = recipes()[name]
    lines = [html.escape(recipe.description)]
    if changes := getattr(recipe, "changes", ""):
        lines.append(f"<b>What will change:</b> {html.escape(changes)}")
    if probe := recipe.settings.get("probe", ""):
        lines.append(f"<b>The prompt that shows it:</b> {html.escape(probe)}")
    return f'<div class="plan">{said}{"".join(f"<p>{line}</p>" for line in lines)}</div>'


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
    given = dict(zip(NAMES, map(again.setting, values), strict=True))
    return parse(TrainConfig, {"recipe": recipe or "", **given})


def command_line(recipe: str, *values) -> str:
    """The line that does the same run; "" while a setting is wrong, which the plan says."""
    try:
        return cli_line(asdict(config_from(recipe, values)))
    except PlaygroundError:
        return ""


def followed(recipe: str, *values) -> tuple[str, dict]:
    """The command line, and the way back to the recipe's values where some are not its own."""
    return command_line(recipe, *values), gr.update(visible=bool(recipe) and list(values) != use_recipe(recipe)[1:])


# ---- before the run --------------------------------------------------------------------------------------------


def shown_plan(services: Services, *values) -> str:
    """What a run with these settings would train on, and whether it fits; a mistake is said there, not in a pop-up."""
    try:
        config = runs.check_given_name(config_from("", values))
        found = plan(services, config)
        fits = fit.before_run(config, found.folder, found.examples, found.steps) if found.examples else ""
        return f'<div class="plan">{html.escape(found.sentence)}{fits}</div>'
    except PlaygroundError as error:
        return f'<div class="plan bad">{html.escape(str(error))}</div>'


def checked_plan(services: Services, said: str, *values):
    """The plan after a change of what is not counted, which is left as it is unless a mistake comes or goes."""
    try:
        runs.check_given_name(config_from("", values))
    except PlaygroundError as error:
        return f'<div class="plan bad">{html.escape(str(error))}</div>'
    return shown_plan(services, *values) if 'class="plan bad"' in (said or "") else gr.skip()


@dataclass(frozen=True)
class Plan:
    """Rows, trained tokens and steps in a sentence; the examples that were counted, where the model is here."""

    sentence: str
    examples: collate.Examples | None = None
    folder: Path | None = None
    steps: int = 0


def plan(services: Services, config: TrainConfig) -> Plan:
    """What a run would do. Raises PlaygroundError when it could not work."""
    if config.processes > 1:
        from playground.core.training.ranks import check_processes

        check_processes(config.processes)
    data = again.rows_of(services, config.data)
    rows = min(config.rows or len(data.conversations), len(data.conversations))
    folder = services.sources.find(config.model)
    if folder is None:
        return Plan(f"{rows:,} rows. The model is not on this machine yet; it is fetched when the run starts.")
    tokenizer = Tokenizer.load(Path(folder))
    counted = TrainConfig(**{**asdict(config), "rows": min(rows, COUNT_ROWS)})
    template = services.templates.load(config.template, tokenizer)
    examples = collate.prepare(counted, data.conversations, template, tokenizer, data)
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
    sentence += f". {train:,} rows to train on and {held:,} held out: {steps:,} steps of {config.batch_size:,} rows."
    if rows <= COUNT_ROWS:
        collate.check_batch(config, examples)
    layers.check_folder(Path(folder), config)
    if config.warmup_steps >= steps:
        sentence += (
            f" The warm-up of {config.warmup_steps:,} steps is no shorter: the learning rate stays below its peak."
        )
    sentence += trained_words(config, folder)
    steps += config.prompt_steps
    return Plan(sentence, examples, Path(folder), steps)


def trained_words(config: TrainConfig, folder: Path) -> str:
    """How many numbers each stage trains; "" where the model does not say its shape."""
    try:
        shape = estimate.read_shape(folder)
    except PlaygroundError:
        return ""
    count = f"{estimate.trainable(shape, config):,} trained parameters"
    if not config.prompt_steps:
        return f" {count}."
    soft = estimate.trainable(shape, config.first_stage)
    return f" Before them {config.prompt_steps:,} steps of a soft prompt: {soft:,} trained parameters, then {count}."


def start_run(services: Services, recipe: str, *values, way: str = IF_TIGHT) -> runs.Run:
    """Queue the run; `way` says whether the models of the chat make way for it."""
    config = config_from(recipe, values)
    if services.sources.status(config.model) == "needs licence":
        raise PlaygroundError(f"the terms of {config.model} are to be read and accepted first, in the Chat tab")
    found = plan(services, config)
    crowded = way == IF_TIGHT and found.examples is not None and fit.crowded(config, found.folder, found.examples)
    run = services.jobs.start(config)
    if crowded or way == UNLOAD:
        runs.take_chat_memory(run)
        services.engine.make_way(run.name)
    return run
