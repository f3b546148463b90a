"""A handful of rows as the trainer sees them: the padded matrix, cell by cell, and what each cell has to predict."""

import html
from functools import partial

import gradio as gr

from playground.core.batch_view import NO_ROW, Line, View, batch_view
from playground.core.training.collate import IGNORE
from playground.errors import PlaygroundError
from playground.ui.common import whenever
from playground.ui.lab.cards import chip_text
from playground.ui.lab.report import follow
from playground.ui.lab.shared import DATA, Lab, Reader, conversation_of, empty, first_upper, notice, view_of

TARGETS, LABELS, TOKENS, POSITIONS = "Targets", "Labels", "Tokens", "Positions"
MOST_CELLS = 400  # of a line that are drawn; the middle of a longer one is left out, the figures are of the whole

CSS = """
.lab-batch {
  overflow-x: auto; contain: inline-size; border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-lg);
}
.lab-batch table { border-collapse: separate; border-spacing: 0; font-family: var(--font-mono); font-size: 0.8em; }
.lab-batch th, .lab-batch td {
  border-right: 1px solid var(--border-color-primary); border-bottom: 1px solid var(--border-color-primary);
  padding: 3px 6px; white-space: pre; text-align: left; min-width: 2.6em;
}
.lab-batch th {
  position: sticky; left: 0; background: var(--block-background-fill); font-weight: 600; z-index: 1;
}
.lab-batch small { display: block; color: var(--body-text-color-subdued); font-size: 0.85em; }
.lab-batch .pad { color: var(--body-text-color-subdued); opacity: 0.55; }
.lab-batch .on { background: var(--assistant); }
.lab-batch .on small { color: var(--body-text-color); }
.lab-batch .edge { border-left: 3px solid var(--trained); }
.lab-batch .cut { color: var(--warn); }
.lab-batch .shared { background: var(--system); }
"""
INTRO = (
    "One line per row, padded on the right to the longest. Under each token stands what the loss asks for at that "
    "place: the next token, or −100, which means that nothing is asked. Coloured cells are trained."
)


def build(lab: Lab) -> None:
    gr.HTML(notice(INTRO))
    with gr.Row():
        template = gr.Dropdown([], label="Template", min_width=180, filterable=False)
        rows = gr.Slider(1, 8, 4, step=1, label="Rows, from the current one", min_width=160)
        length = gr.Slider(8, 1024, 1024, step=8, label="Longest length in tokens", min_width=180)
    with gr.Row():
        masked = gr.Checkbox(True, label="Prompt masked", info="Off: every token is asked for, the prompt too.")
        packed = gr.Checkbox(False, label="Packed", info="As many rows to a line as fit; this trainer does not pack.")
        under = gr.Radio([TARGETS, LABELS, TOKENS, POSITIONS], value=TARGETS, label="Under each token")
    table = gr.HTML()
    page = gr.context.Context.root_block
    choose = partial(follow, lab.reader)
    whenever(choose, [lab.chosen, template], template, [page.load, lab.chosen.change])
    inputs = [lab.source, lab.row, lab.example, lab.variables, lab.model, template, rows, length, masked, packed, under]
    whenever(partial(draw, lab.reader), inputs, table)


def draw(reader: Reader, source, row, text, variables, model, key, count, length, masked, packed, under) -> str:
    """The matrix as HTML, or a sentence that says why there is none."""
    try:
        if not key:
            return view_of(empty("Choose one or more templates above to see the rows as a batch."))
        tokenizer = reader.tokenizer(model)
        if tokenizer is None:
            return view_of(empty(f"{reader.title(model)} is not on this machine yet: a batch is made of its tokens."))
        conversations = [conversation_of(text, variables)]
        if source.startswith(DATA):
            rows = reader.data(source).conversations
            conversations += [rows[place % len(rows)] for place in range(row + 1, row + min(int(count), len(rows)))]
        view = batch_view(
            reader.template(key, tokenizer), conversations, tokenizer, int(length), mask_prompt=masked, packed=packed
        )
    except PlaygroundError as error:
        return view_of(notice(first_upper(str(error)) + ".", warn=True))
    return view_of(figures(view, int(length), row, packed) + matrix(view, tokenizer, under, row))


def figures(view: View, length: int, first: int, packed: bool) -> str:
    padding = 1 - view.tokens / view.cells
    words = [
        f"{len(view.lines):,} × {view.width:,} = <b>{view.cells:,}</b> cells, <b>{padding:.0%}</b> of them padding; "
        f"the loss is on <b>{view.trained:,}</b>."
    ]
    if view.shared_prefix > 1 and not packed:
        words.append(
            f"The first {view.shared_prefix:,} tokens are the same in all rows: this trainer runs them once a step."
        )
    told = [
        f'<span class="cut">Row {first + place + 1:,} is cut: {len(ids):,} tokens are beyond {length:,}.</span>'
        for place, ids in view.cut.items()
    ]
    told += [
        f'<span class="cut">Row {first + place + 1:,} is left out: {html.escape(why)}.</span>'
        for place, why in view.left_out.items()
    ]
    return f'<p class="templates-note">{" ".join([*words, *told])}</p>'


def matrix(view: View, tokenizer, under: str, first: int) -> str:
    columns = shown_columns(view.width)
    body = "".join(
        f"<tr><th>{_name(line, first)}</th>{_cells(line, columns, tokenizer, under, view)}</tr>" for line in view.lines
    )
    return f'<div class="lab-batch" tabindex="0" aria-label="The batch, cell by cell"><table>{body}</table></div>'


def _name(line: Line, first: int) -> str:
    rows = [first + row + 1 for row in dict.fromkeys(line.rows) if row != NO_ROW]
    return f"row {rows[0]:,}" if len(rows) == 1 else "rows " + ", ".join(f"{row:,}" for row in rows)


def shown_columns(width: int) -> list[int | None]:
    """The places that are drawn; None stands for those left out in the middle."""
    if width <= MOST_CELLS:
        return list(range(width))
    half = MOST_CELLS // 2
    return [*range(half), None, *range(width - half, width)]


def _cells(line: Line, columns: list[int | None], tokenizer, under: str, view: View) -> str:
    targets, cells = line.targets, []
    for at in columns:
        if at is None:
            cells.append(f'<td class="pad">… {view.width - MOST_CELLS:,} more …</td>')
            continue
        pad = line.rows[at] == NO_ROW
        kinds = ["pad"] if pad else ["shared"] if at < view.shared_prefix and view.shared_prefix > 1 else []
        asked = line.labels[at] if under == LABELS else targets[at]
        if asked != IGNORE:
            kinds = ["on"]
        if at and not pad and line.rows[at] != line.rows[at - 1]:
            kinds.append("edge")
        piece = chip_text(line.pieces[at]) if not pad else "pad"
        title = f"place {at}, id {line.ids[at]}, label {line.labels[at]}, target {targets[at]}"
        if under in (TARGETS, LABELS):
            below = "−100" if asked == IGNORE else chip_text(tokenizer.pieces([asked])[0])
        else:
            below = str(line.ids[at] if under == TOKENS else line.positions[at])
        cells.append(f'<td class="{" ".join(kinds)}" title="{title}">{piece}<small>{below}</small></td>')
    return "".join(cells)
