"""A scorecard as HTML: how it stands, its tables, its replies one by one, and what changed between two."""

import html
import json
from collections.abc import Sequence

from playground.core import scorecard
from playground.core.question_sets import Question
from playground.core.scorecard import FAILED, VALID, WORDS, Card, Cell, Comparison, Row
from playground.ui.lab.progress import duration

PAGE = 50  # rows of a list shown at a time
MAX_SHOWN = 20_000  # characters of one text

CSS = """
.score table { border-collapse: collapse; font-size: var(--text-sm); margin: 4px 0 8px; }
.score th, .score td { padding: 4px 12px; text-align: right; vertical-align: top; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; font-variant-numeric: tabular-nums; }
.score th:first-child { text-align: left; font-weight: 600; overflow-wrap: anywhere; max-width: 22em; }
.score thead th { overflow-wrap: anywhere; max-width: 16em; }
.score tr.valid td { font-weight: 600; }
.score small { display: block; font-weight: 400; color: var(--body-text-color-subdued); font-size: var(--text-xs); }
.score .none { color: var(--body-text-color-subdued); font-weight: 400; }
.score-scroll { overflow-x: auto; }
.score h4 { margin: 8px 0 2px; font-size: var(--text-md); font-weight: 600; }
.score p { margin: 4px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
.score p.failed { color: #a32019; }
.dark .score p.failed { color: #ff9c94; }
.score-empty { padding: 20px 12px; color: var(--body-text-color-subdued); }
.score details { border-bottom: 1px solid var(--border-color-primary); padding: 4px 0; font-size: var(--text-sm); }
.score summary { cursor: pointer; overflow-wrap: anywhere; }
.score summary b { font-weight: 600; }
.score summary i { font-style: normal; color: var(--body-text-color-subdued); }
.score dl { margin: 6px 0 6px 16px; }
.score dt { font-size: var(--text-xs); color: var(--body-text-color-subdued); margin-top: 6px; }
.score dd { margin: 0; }
.score pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono);
  font-size: var(--text-sm); }
.score .up { color: #0a6b3d; } .dark .score .up { color: #5fdd96; }
.score .down { color: #a32019; } .dark .score .down { color: #ff9c94; }
"""

EMPTY = (
    "No scorecard yet. Choose questions and lanes and press Start: each reply is read, checked, and counted by what "
    "went wrong."
)
STATES = {
    "running": "Asking",
    "done": "Done",
    "cancelled": "Cancelled; what was answered until then is counted",
    "failed": "Failed; what was answered until then is counted",
    "unfinished": "Not finished: its app was ended, or another one is still at it",
}


def empty() -> str:
    return f'<div class="score"><div class="score-empty">{html.escape(EMPTY)}</div></div>'


def status(card: Card | None, running=None) -> str:
    """One line: how far it is and how long it will take, or how it ended."""
    other = ""
    if running is not None and (card is None or running.card.id != card.id):
        other = f"<p>Another scorecard is running: {html.escape(running.card.name)}. It is in the list above.</p>"
    if card is None:
        return f'<div class="score">{other}</div>' if other else ""
    parts = [STATES.get(card.state, card.state), f"{len(card.rows):,} of {card.total:,} replies"]
    bar = ""
    if running is not None and running.card.id == card.id:
        step = running.step
        if not card.rows:
            parts.append("the first replies come when the model is loaded")
        elif step is not None and step.eta is not None:
            parts.append(f"{duration(step.eta)} left")
        bar = f'<div class="bar"><b style="width:{len(card.rows) / card.total:.0%}"></b></div>'
    elif card.seconds:
        parts.append(duration(card.seconds))
    reason = f'<p class="failed">{html.escape(card.error)}</p>' if card.error else ""
    line = html.escape(" · ".join(parts))
    return f'<div class="score notice" role="status">{other}<p>{line}</p>{bar}{reason}</div>'


def tables(card: Card) -> str:
    """Outcomes by lane, and how often each lane was right by kind of question."""
    heads = "".join(
        f'<th scope="col">{html.escape(column.title)}'
        f"<small>template {html.escape(column.template)}, calls as {html.escape(column.format)}</small></th>"
        for column in card.columns
    )
    columns = scorecard.table(card)
    lines = "".join(
        f'<tr class="{word}"><th scope="row">{html.escape(scorecard.title(word))}<small>{html.escape(WORDS[word])}'
        f"</small></th>{''.join(cell(column[word]) for column in columns)}</tr>"
        for word in WORDS
    )
    failed = [sum(row.word == FAILED for row in card.of(number)) for number in range(len(columns))]
    if any(failed):
        counts = "".join(f"<td>{number}</td>" for number in failed)
        lines += f'<tr><th scope="row">{scorecard.title(FAILED)}<small>not counted above</small></th>{counts}</tr>'
    head = f'<thead><tr><th scope="col">Outcome</th>{heads}</tr></thead>'
    kinds = "".join(
        f'<tr><th scope="row">{html.escape(kind)}</th>{"".join(kind_cell(column) for column in by_lane)}</tr>'
        for kind, by_lane in scorecard.by_kind(card).items()
    )
    kind_heads = "".join(f'<th scope="col">{html.escape(column.title)}</th>' for column in card.columns)
    return (
        f'<div class="score"><div class="score-scroll"><table>{head}<tbody>{lines}</tbody></table></div>'
        "<p>Below each rate: the 95 % interval (Wilson) in which it would lie with very many questions like these.</p>"
        f'<h4>Valid, by kind of question</h4><div class="score-scroll"><table><thead><tr><th scope="col">Kind</th>'
        f"{kind_heads}</tr></thead><tbody>{kinds}</tbody></table></div></div>"
    )


def cell(one: Cell) -> str:
    if not one.count:
        return '<td class="none">0</td>' if one.total else '<td class="none">–</td>'
    return f"<td>{one.count} ({one.rate:.0%})<small>{interval(one)}</small></td>"


def interval(one: Cell) -> str:
    low, high = one.interval
    return f"{low:.0%} to {high:.0%}"


def kind_cell(column: dict[str, Cell]) -> str:
    valid = column[VALID]
    if not valid.total:
        return '<td class="none">–</td>'
    wrong = sorted(((w, c.count) for w, c in column.items() if w != VALID and c.count), key=lambda pair: -pair[1])
    most = "; ".join(f"{scorecard.title(word)} {count}" for word, count in wrong[:2])
    return (
        f"<td>{valid.count} of {valid.total} ({valid.rate:.0%})<small>{interval(valid)}</small>"
        + (f"<small>{html.escape(most)}</small>" if most else "")
        + "</td>"
    )


def row_list(card: Card, rows: Sequence[Row], number: int = 1) -> str:
    """Rows that open: what was asked, the raw reply, what was read in it, what was expected."""
    if not rows:
        what = "No reply has this outcome." if card.rows else "No reply yet."
        return f'<div class="score"><p>{what}</p></div>'
    start = (number - 1) * PAGE
    return f'<div class="score">{"".join(row_item(card, row) for row in rows[start : start + PAGE])}</div>'


def row_item(card: Card, row: Row) -> str:
    question = card.questions[row.question]
    text = question.messages[-1].get("content") or ""
    lane = f"<i>{html.escape(card.columns[row.column].title)}</i> · " if len(card.columns) > 1 else ""
    title = f"{lane}<b>{html.escape(scorecard.title(row.word))}</b> · {html.escape(_short(text))}"
    return f"<details><summary>{title}</summary>{parts(question, row)}</details>"


def parts(question: Question, row: Row) -> str:
    ended = {"length": " (cut at the token limit)", "error": " (failed)"}.get(row.ended, "")
    asked = "\n".join(f"{m['role']}: {_said(m)}" for m in question.messages)
    names = ", ".join(tool["function"]["name"] for tool in question.tools)
    shown = [
        ("Asked", asked),
        ("Tools on offer", names),
        (f"Raw reply, {row.tokens} tokens{ended}", row.raw or "(nothing)"),
        ("Parsed", _calls(row.calls) or "(no call)"),
        ("Expected, one of" if question.bfcl else "Expected", _calls(question.expected) or "(no call)"),
    ]
    if row.detail:
        shown.insert(0, ("Verdict", f"{scorecard.title(row.word)}: {row.detail}"))
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd><pre>{html.escape(_cut(text))}</pre></dd>" for name, text in shown
    )
    return f"<dl>{items}</dl>"


def _said(message: dict) -> str:
    calls = _calls([call["function"] for call in message.get("tool_calls") or []])
    return "\n".join(part for part in (message.get("content") or "", calls) if part)


def _calls(calls: Sequence[dict]) -> str:
    return "\n".join(json.dumps(call, ensure_ascii=False) for call in calls)


def _short(text: str, longest: int = 140) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} … ({len(text):,} characters)"


def difference(found: Comparison, before: str, after: str) -> str:
    """What has changed from one to the other, word by word and question by question."""
    if not found.questions:
        return '<div class="score"><p>These two have no question in common, so they cannot be compared.</p></div>'
    lines = "".join(
        f'<tr class="{word}"><th scope="row">{html.escape(scorecard.title(word))}</th>{cell(old)}{cell(new)}'
        f"{change(word, new.count - old.count)}</tr>"
        for word, (old, new) in found.words.items()
        if old.count or new.count
    )
    told = f"{found.gained} became valid, {found.lost} no longer are."
    if found.gained or found.lost:
        told += f" If both were equally good, so uneven a change would come by chance with p = {p_text(found.p_value)}."
    items = "".join(changed_item(found, place) for place in found.changed[:PAGE])
    more = len(found.changed) - PAGE
    return (
        f'<div class="score"><p>{len(found.questions)} questions in common. {html.escape(told)}</p>'
        '<div class="score-scroll"><table><thead><tr><th scope="col">Outcome</th>'
        f'<th scope="col">{html.escape(before)}</th><th scope="col">{html.escape(after)}</th>'
        f'<th scope="col">Change</th></tr></thead><tbody>{lines}</tbody></table></div>'
        f"<h4>Questions whose verdict changed: {len(found.changed)}</h4>{items}"
        + (f"<p>and {more} more</p>" if more > 0 else "")
        + "</div>"
    )


def change(word: str, number: int) -> str:
    if not number:
        return '<td class="none">0</td>'
    better = (number > 0) == (word == VALID)
    return f'<td class="{"up" if better else "down"}">{number:+d}</td>'


def p_text(value: float) -> str:
    return "0.001 or less" if value < 0.001 else f"{value:.3f}"


def changed_item(found: Comparison, place: int) -> str:
    question, old, new = found.questions[place], found.before[place], found.after[place]
    words = f"{scorecard.title(old.word)} → {scorecard.title(new.word)}"
    text = _short(question.messages[-1].get("content") or "")
    return (
        f"<details><summary><b>{html.escape(words)}</b> · {html.escape(text)}</summary>"
        f"<p>Before</p>{parts(question, old)}<p>After</p>{parts(question, new)}</details>"
    )
