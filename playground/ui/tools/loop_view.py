"""The guided loop as HTML: where it is, what its rows are, what went wrong, and the rounds beside each other."""

import html
import json
from collections.abc import Sequence

from playground.core import scorecard
from playground.core.generator.writer import Row
from playground.core.rounds import Kit, Made, Weakness
from playground.core.scorecard import Card, Cell, Comparison
from playground.services.loops import IMPROVE, SCORE, SCORING, TRAIN, TRAINING, Loop
from playground.ui.scorecard_view import interval, p_text, row_item

STEPS = ("Rows", "Training", "Score", "Weakest error", "Again")
AT = {TRAIN: 1, TRAINING: 1, SCORE: 2, SCORING: 2, IMPROVE: 3}  # stage → place among STEPS
SHOWN = 5  # made rows, and questions that went wrong

CSS = """
.loop-steps { display: flex; flex-wrap: wrap; gap: 4px 14px; padding: 0; margin: 4px 0; list-style: none;
  font-size: var(--text-sm); color: var(--body-text-color-subdued); }
.loop-steps li { display: flex; gap: 6px; align-items: center; margin: 0 !important; }
.loop-steps i { font-style: normal; width: 1.7em; height: 1.7em; border-radius: 50%; display: grid; place-items: center;
  border: 1px solid var(--border-color-primary); font-size: var(--text-xs); flex: none; }
.loop-steps .done i { background: var(--primary-700); border-color: var(--primary-700); color: #fff; }
.loop-steps .now { color: var(--body-text-color); font-weight: 600; }
.loop-steps .now i { border: 2px solid var(--primary-600); }
.loop h4 { margin: 10px 0 2px; font-size: var(--text-md); font-weight: 600; }
.loop p { margin: 4px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.loop ul { margin: 4px 0 4px 18px; font-size: var(--text-sm); overflow-wrap: anywhere; }
.score .words { text-align: left; }
.loop ul code { font-size: var(--text-xs); overflow-wrap: anywhere; white-space: pre-wrap; }
"""
INTRO = (
    "A model that should call tools is made in rounds: make rows, train, score on questions it has not seen, look "
    "where it errs most, add rows of that kind, train again. Each step waits for you; all of it is kept when the page "
    "is closed."
)


def steps(stage: str | None) -> str:
    """The five steps; `stage` None: no loop yet."""
    at = 0 if stage is None else AT[stage]
    items = []
    for number, title in enumerate(STEPS):
        kind = "done" if number < at else "now" if number == at else ""
        current = ' aria-current="step"' if kind == "now" else ""
        items.append(f'<li class="{kind}"{current}><i>{"✓" if kind == "done" else number + 1}</i>{title}</li>')
    return f'<ol class="loop-steps">{"".join(items)}</ol>'


def rows(loop: Loop) -> str:
    """What each round's rows are, and what their check found."""
    lines = []
    for one in loop.rounds:
        report = one.report
        said = report.sentence()
        out = ", ".join(f"{count:,} {reason}" for reason, count in report.left_out.items())
        why = f"<br>For: {html.escape(one.reason)}" if one.reason else ""
        left = f"<br>Drawn and left out: {html.escape(out)}." if out else ""
        title = "Round 1" if one.number == 1 else f"Round {one.number}, added"
        lines.append(f"<p><b>{title}:</b> {html.escape(said)}{left}{why}</p>")
    data = html.escape(loop.now.data)
    return (
        f'<div class="loop">{"".join(lines)}<p>{loop.questions} held-out questions, the same in every round. The data '
        f"set is <b>{data}</b> in the Templates and Fine-tune tabs.</p></div>"
    )


def weakest(weak: Sequence[Weakness], card: Card | None, column: int, chosen: Weakness | None, kit: Kit) -> str:
    if card is None or chosen is None:
        return '<div class="loop"><p>No error on these questions. More of them may show some.</p></div>'
    wrong = [row for row in card.of(column) if row.question in chosen.questions][:SHOWN]
    items = "".join(row_item(card, row) for row in wrong)
    rest = len(weak) - 1
    others = f" {rest} other{'s are' if rest > 1 else ' is'} in the list." if rest else ""
    return (
        f'<div class="loop"><p><b>Weakest: {html.escape(chosen.sentence())}</b>{others}</p></div>'
        f'<div class="score">{items}</div><div class="loop"><p>{html.escape(chosen.remedy(kit))}</p></div>'
    )


def offered(made: Made) -> str:
    """Some of the rows that were made against an error."""
    every = max(1, len(made.rows) // SHOWN)
    items = "".join(f"<li>{html.escape(_said(row))}<br><code>{html.escape(_due(row))}</code></li>" for row in
                    made.rows[::every][:SHOWN])  # fmt: skip
    return (
        f'<div class="loop"><p>{len(made.rows):,} new rows were made; some of them:</p><ul>{items}</ul>'
        f"<p>{html.escape(made.report.sentence())}</p></div>"
    )


def _said(row: Row) -> str:
    return " / ".join(message["content"] for message in row.messages if message["role"] == "user")


def _due(row: Row) -> str:
    if row.calls:
        return "; ".join(f"{c['name']} {json.dumps(c['arguments'], ensure_ascii=False)}" for c in row.calls)
    return row.messages[-1]["content"]


def compared(table: Sequence[tuple[str, Cell, dict[str, int], Comparison | None]]) -> str:
    """Round by round: valid with its interval, what changed from the one before, and the errors that are left."""
    if not table:
        return ""
    lines = []
    for what, valid, errors, change in table:
        told = "; ".join(f"{html.escape(scorecard.title(word))} {count}" for word, count in errors.items()) or "none"
        moved = '<td class="none">–</td>'
        if change is not None:
            p = f"<small>p = {p_text(change.p_value)}</small>" if change.gained or change.lost else ""
            moved = f'<td><span class="up">+{change.gained}</span> <span class="down">−{change.lost}</span>{p}</td>'
        lines.append(
            f'<tr><th scope="row">{html.escape(what)}</th><td>{valid.count} of {valid.total} ({valid.rate:.0%})'
            f"<small>{interval(valid)}</small></td>{moved}<td class='words'>{told}</td></tr>"
        )
    return (
        '<div class="score"><h4>Round by round</h4><div class="score-scroll"><table><thead><tr><th scope="col"></th>'
        '<th scope="col">Valid</th><th scope="col">Gained, lost</th><th scope="col" class="words">Errors</th>'
        "</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div><p>Gained and lost: questions that became valid, and that no "
        "longer are, against the line above; p: the chance of so uneven a change if both were equally good.</p></div>"
    )
