"""Votes as files: out, in, as preference pairs; and the reset of a class session."""

import html
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gradio as gr

from playground.core import vote_files
from playground.errors import PlaygroundError
from playground.ui.common import QUEUED, QUIET, Services, shown
from playground.ui.lanes import with_value

ALL = " all"  # no session is called this: a name begins with no blank
FORMATS = {
    "JSONL: everything": "jsonl",
    "CSV: everything": "csv",
    "Parquet: everything": "parquet",
    "Preference pairs (chosen, rejected) as JSONL": "pairs",
}
SHOWN = 20  # problems that are listed

CSS = """
.vote-report ul { margin: 4px 0; padding-left: 1.4em; max-height: 14em; overflow-y: auto; }
.vote-report li { overflow-wrap: anywhere; }
"""


def build(services: Services) -> None:
    with gr.Accordion("Export, import, reset", open=False):
        session = gr.Dropdown([("all sessions", ALL)], value=ALL, label="Class session", elem_id="votes-session")
        with gr.Row():
            format = gr.Dropdown(list(FORMATS.items()), value="jsonl", label="Export as", min_width=220)
            export_button = gr.Button("Export", elem_id="votes-export", min_width=100)
            pairs_button = gr.Button("Keep the pairs as a data set", elem_id="votes-keep", min_width=180)
        download = gr.DownloadButton("Download", visible=False, elem_id="votes-download")
        gr.HTML("<div>A file to import says left, right and winner in each row; all else may be absent.</div>")
        upload = gr.File(
            label="Import: JSONL, JSON, CSV or Parquet",
            file_types=[".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz"],
            height=150,
        )
        into = gr.Textbox(label="Session of rows that name none", max_length=80, placeholder="none")
        import_button = gr.Button("Import", elem_id="votes-import")
        reset_button = gr.Button("Reset this session …", variant="stop", size="sm", elem_id="votes-reset")
        with gr.Group(visible=False) as confirm:
            question = gr.HTML()
            with gr.Row():
                yes = gr.Button("Yes, delete them", variant="stop", size="sm", elem_id="votes-yes")
                no = gr.Button("No", size="sm")
        told = gr.HTML(elem_id="votes-told")
    choices = partial(session_choices, services)
    gr.context.Context.root_block.load(choices, session, session, **QUIET)
    session.focus(choices, session, session, **QUIET)
    export_button.click(partial(shown(export), services), [session, format], [download, told], **QUEUED)
    pairs_button.click(partial(shown(keep_pairs), services), session, told, **QUEUED)
    import_button.click(partial(shown(take), services), [upload, into, session], [told, session], **QUEUED)
    reset_button.click(partial(shown(ask_reset), services), session, [confirm, question], **QUEUED)
    no.click(lambda: gr.update(visible=False), None, confirm, **QUIET)
    yes.click(partial(shown(reset), services), session, [confirm, told, session], **QUEUED)


def session_choices(services: Services, chosen: str = ALL):
    try:
        sessions = services.votes.sessions()
    except PlaygroundError:
        return gr.skip()
    found = [("all sessions", ALL), *((named(name), name) for name in sessions)]
    return gr.update(choices=with_value(found, chosen), value=chosen)


def named(session: str) -> str:
    return session or "without a name"


def export(services: Services, session: str, format: str) -> Iterator[tuple]:
    """The file to download, and how many rows it has."""
    rows = services.votes.export(None if session == ALL else session)
    with tempfile.TemporaryDirectory(prefix="votes-") as folder:  # gradio takes a copy of its own
        name = "preference-pairs" if format == "pairs" else "votes"
        file = Path(folder) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}{vote_files.FORMATS.get(format, '')}"
        count = vote_files.write(rows, file, format)
        left_out = vote_files.pairs(rows)[1] if format == "pairs" else ""
        what = ("pair" if format == "pairs" else "vote") + ("s" if count != 1 else "")
        yield (
            gr.update(value=str(file), visible=True, label=f"Download {count:,} {what}"),
            report(
                f"{count:,} {what} {'are' if count != 1 else 'is'} ready to download.",
                [left_out + "."] if left_out else [],
            ),
        )


def keep_pairs(services: Services, session: str) -> str:
    """Store the preference pairs as a data set that the Templates and Fine-tune tabs offer."""
    rows = services.votes.export(None if session == ALL else session)
    found, why = vote_files.pairs(rows)
    if not found:
        raise PlaygroundError(f"there is no pair to keep: {why}")
    entry = services.datasets.add_rows(iter(found), "preference-pairs.jsonl")
    count = f"{len(found):,} pair{'s' if len(found) != 1 else ''}"
    return report(
        f"{count} kept as the data set “{entry.name}”; Templates and Fine-tune offer it.", [why] if why else []
    )


def take(services: Services, file: str | None, into: str, chosen: str = ALL) -> tuple:
    """Import a file's votes: what was added, and each row that was left out with its number."""
    if not file:
        raise PlaygroundError("add a file of votes first")
    rows, problems, bad = vote_files.read(Path(file), " ".join((into or "").split()))
    new, known = services.votes.import_rows(rows)
    said = f"{new:,} vote{'s' if new != 1 else ''} added"
    said += f", {known:,} were here already" if known else ""
    said += f", {bad:,} row{'s' if bad != 1 else ''} left out:" if bad else "."
    lines = [str(problem) for problem in problems[:SHOWN]]
    if bad > len(lines):
        lines.append(f"and {bad - len(lines):,} more")
    return report(said, lines), session_choices(services, chosen)


def ask_reset(services: Services, session: str) -> tuple:
    if session == ALL:
        raise PlaygroundError("choose the class session to reset; all of them at once cannot be reset")
    votes = services.votes.sessions().get(session, 0)
    said = (
        f"<p>Delete the session “{html.escape(named(session))}” with its {votes:,} votes and all its battles? A copy "
        "of the votes is kept in a file beside the database.</p>"
    )
    return gr.update(visible=True), said


def reset(services: Services, session: str) -> tuple:
    if session == ALL:
        raise PlaygroundError("choose the class session to reset first")
    kept = services.votes.reset(session)
    said = f"The session “{named(session)}” is empty."
    said += f" Its votes are kept in {kept.name}, in the app's folder." if kept else ""
    return gr.update(visible=False), report(said, []), session_choices(services)


def report(said: str, lines: list[str]) -> str:
    """A sentence and a list, as HTML."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<div class="vote-report"><p>{html.escape(said)}</p>{f"<ul>{items}</ul>" if items else ""}</div>'
