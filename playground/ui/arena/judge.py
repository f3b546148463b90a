"""A model as judge, beside the leaderboard: start it, watch it, and see how far it agrees with people."""

import html
from functools import partial

import gradio as gr

from playground.core import ratings
from playground.errors import PlaygroundError
from playground.services import judge as judging
from playground.services.judge import Judging, Report, State
from playground.ui.common import QUEUED, QUIET, Services, shown, whole
from playground.ui.lanes import default_pool, lane_choices, read_lane, with_value

ALL = " all"  # no session is called this: a name begins with no blank
TICK = 1.5

CSS = """
.judge .notice .bar { max-width: 30em; }
"""
INTRO = (
    "<div>A lane reads both replies and says which is better, each pair twice with the places swapped; a reply wins "
    "only when it is preferred both times. The judge's votes are kept apart: they never count in the ratings above. "
    "Small models are poor judges, and mostly prefer a place: the table shows it.</div>"
)
NO_JUDGE = (
    "<p>Small models often do not keep to the form of a verdict, and then there is no vote. Choose a larger model, or "
    "a lane elsewhere.</p>"
)
EMPTY = (
    '<div class="board"><p>No judge has voted yet. Vote on some battles, then choose a lane and press Start.</p></div>'
)


def build(services: Services, work: Judging | None = None) -> None:
    work = work or Judging(services.engine, services.votes)
    with gr.Accordion("A model as judge", open=False, elem_classes="judge"):
        gr.HTML(INTRO)
        with gr.Row():
            lane = gr.Dropdown([], label="Judge", min_width=240, scale=2, elem_id="judge-lane")
            session = gr.Dropdown([("all", ALL)], value=ALL, label="Battles of", min_width=150)
            limit = gr.Number(50, label="At most", precision=0, minimum=1, maximum=judging.MAX_BATTLES, min_width=90)
        with gr.Row():
            start_button = gr.Button("Start", variant="primary", elem_id="judge-start", min_width=100)
            cancel_button = gr.Button("Cancel", visible=False, elem_id="judge-cancel", min_width=100)
        status = gr.HTML(elem_id="judge-status")
        table = gr.HTML(EMPTY, elem_id="judge-table")
    seen = gr.State(None)
    outputs = [seen, start_button, cancel_button, status, table]
    page = gr.context.Context.root_block
    page.load(partial(opened, services), None, [lane, session], **QUIET)
    session.focus(partial(session_choices, services), session, session, **QUIET)
    gr.on([page.load, gr.Timer(TICK).tick], partial(refresh, services, work), seen, outputs, **QUIET)
    start_button.click(partial(shown(start), services, work), [lane, session, limit], outputs, **QUEUED)
    cancel_button.click(work.cancel, None, None, **QUIET)


def opened(services: Services) -> tuple:
    """The lanes that can judge, and the sessions."""
    choices = lane_choices(services)
    first = next((key for key in default_pool(services)[1:2]), choices[0][1] if choices else None)
    return gr.update(choices=choices, value=first), session_choices(services, ALL)


def session_choices(services: Services, chosen: str):
    try:
        sessions = [(name or "without a name", name) for name in services.votes.sessions()]
    except PlaygroundError:
        sessions = []
    return gr.update(choices=with_value([("all", ALL), *sessions], chosen))


def start(services: Services, work: Judging, lane: str | None, session: str, limit: float | None) -> tuple:
    if not lane:
        raise PlaygroundError("choose the lane that judges first; if there is none, get a model")
    most = whole(limit, "how many battles at most")
    work.start(read_lane(services, lane), None if session == ALL else session, most)
    return refresh(services, work, None)


def refresh(services: Services, work: Judging, seen) -> tuple:
    """Buttons, status and table; nothing where nothing has changed."""
    now = work.now
    try:
        state = services.votes.state(), now
        if seen == state:
            return (gr.skip(),) * 5
        rows = services.votes.rows()
    except PlaygroundError as error:
        return None, gr.skip(), gr.skip(), f'<div class="notice failed"><p>{html.escape(str(error))}</p></div>', ""
    busy = work.running
    return (
        state,
        gr.update(visible=not busy),
        gr.update(visible=busy),
        status_of(now),
        table_of(judging.report(rows), rows),
    )


def status_of(now: State | None) -> str:
    if now is None:
        return ""
    step, name = now.progress, html.escape(now.judge)
    done = f"{step.done:,} of {step.total:,} battles judged, {now.voted:,} votes"
    failures = "".join(f"<p>{number:,} without a vote: {html.escape(why)}</p>" for why, number in now.failures.items())
    if now.state == "done" and not now.voted:
        failures += NO_JUDGE
    if now.state == "failed":
        return f'<div class="notice failed"><p>{name} stopped: {html.escape(now.error)} ({done})</p></div>'
    words = {"running": "is judging", "done": "is finished", "cancelled": "was cancelled; what it judged is kept"}
    left = f", {step.eta:,.0f} s left" if now.state == "running" and step.eta is not None else ""
    bar = f'<div class="bar"><b style="width:{step.done / step.total:.0%}"></b></div>' if now.state == "running" else ""
    return f'<div class="notice" role="status"><p>{name} {words[now.state]}: {done}{left}</p>{bar}{failures}</div>'


def table_of(reports: list[Report], rows: list[dict]) -> str:
    """One line per judge: its votes, its bias for a place, its agreement with people, whom it rates highest."""
    if not reports:
        return EMPTY
    body = "".join(_row(one, rows) for one in reports)
    head = (
        '<tr><th class="name">Judge</th><th>Votes</th><th>Same in both orders</th><th>Always the first</th>'
        "<th>Always the second</th><th>Battles with people's votes</th><th>Agreement</th><th>Kappa</th>"
        '<th>Agreement without ties</th><th class="name">Rates highest</th></tr>'
    )
    note = (
        "<p>Agreement: how often judge and people chose the same (left, right, or a tie; “both bad” is a tie to the "
        "judge). Cohen's kappa takes out what chance alone would give: 0 is chance, 1 is always.</p>"
    )
    return f'<div class="board"><table><thead>{head}</thead><tbody>{body}</tbody></table>{note}</div>'


def _row(one: Report, rows: list[dict]) -> str:
    bias, agreed = one.bias, one.agreement
    cells = [f"{one.votes:,}"]
    cells += [f"{bias.share(part):.0%}" if bias.pairs else "–" for part in ("consistent", "first", "second")]
    cells += [f"{agreed.battles:,}", _share(agreed.rate), "–" if agreed.kappa is None else f"{agreed.kappa:.2f}"]
    cells += [_share(agreed.decided_rate) + (f" of {agreed.decided:,}" if agreed.decided else "")]
    board = ratings.leaderboard(ratings.count(row for row in rows if row["judge"] == one.judge))
    best = f"{board[0].model}{'' if board[0].rank else ' (not enough votes)'}" if board else "–"
    names = '<td class="name">{}</td>'
    return (
        f"<tr>{names.format(html.escape(one.judge))}{''.join(f'<td>{cell}</td>' for cell in cells)}"
        f"{names.format(html.escape(best))}</tr>"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
