"""The leaderboard, live: ratings with intervals, Elo beside them, who beats whom, votes over time."""

import html
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import gradio as gr

from playground.core import ratings
from playground.core.ratings import Standing, Tally
from playground.errors import PlaygroundError
from playground.ui.common import QUIET, Services
from playground.ui.lanes import with_value

ALL = " all"  # no session, category or model is called this: their names begin with no blank
KINDS = {"all votes": "", "blind battles": "blind", "side by side": "open"}
ROUNDS, SEED = 100, 0
TICK = 5.0  # seconds between two looks for new votes
MOST_MODELS = 40  # in the matrix
MOST_BARS = 40
SPANS = ((60, "%H:%M"), (3600, "%d %b %H:00"), (86_400, "%d %b"), (7 * 86_400, "%d %b"), (28 * 86_400, "%b %Y"))

CSS = """
.board { contain: inline-size; overflow-x: auto; }
.board table { border-collapse: collapse; font-size: var(--text-sm); width: 100%; }
.board :is(table, thead, tbody, tr, td, th) { border: 0 !important; }
.board td, .board th { padding: 4px 10px; text-align: right; }
.board tr { border-bottom: 1px solid var(--border-color-primary) !important; }
.board td { white-space: nowrap; }
.board td.name, .board th.name { white-space: normal; text-align: left; overflow-wrap: anywhere; min-width: 11em; }
.board .none { color: var(--body-text-color-subdued); white-space: normal; }
.board p { margin: 4px 0; color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.board .range { position: relative; display: inline-block; width: 9em; height: 0.9em; vertical-align: middle; }
.board .range i { position: absolute; height: 4px; top: 0.35em; border-radius: 2px; background: var(--primary-500); }
.board .range b { position: absolute; width: 3px; top: 0; bottom: 0; background: var(--body-text-color); }
.matrix td { text-align: center; min-width: 3.4em; }
.matrix td.met { background: color-mix(in srgb, var(--side) var(--share), var(--block-background-fill)); }
.matrix th { font-weight: 600; } .matrix thead th { text-align: center; }
.board .bars { display: flex; align-items: flex-end; gap: 2px; height: 7em; min-width: max-content; }
.board .bars span { width: 1.6em; background: var(--primary-600); border-radius: 2px 2px 0 0; min-height: 1px; }
"""
EMPTY = (
    '<div class="board"><p>There are no votes to rate yet. Open “Blind battle”, ask something and say which reply is '
    "better; or vote in “Side by side”; or import a file of votes below.</p></div>"
)
NARROW = '<div class="board"><p>No vote fits these filters. Choose “all” in one of them.</p></div>'
LEGEND = (
    "<p>Rating: Bradley–Terry by maximum likelihood on Elo’s scale (400 points are odds of ten to one), {centre}; the "
    "interval holds 95 % of {rounds} resamples of the votes. A tie is half a win for each; “both bad” is counted apart "
    "and decides nothing. Elo depends on the order of the votes, which is why it is only beside the rating.</p>"
)


@dataclass(frozen=True)
class Filter:
    """Which of people's votes are rated, and how."""

    session: str = ALL
    category: str = ALL
    kind: str = ""
    leaks: bool = False  # keep blind battles in which a reply gave away a name
    style: bool = False
    base: str = ALL  # the model whose rating is 0; ALL: chosen by us

    def fits(self, row: dict) -> bool:
        return (
            self.session in (ALL, row["session"])
            and self.category in (ALL, row["category"])
            and self.kind in ("", row["kind"])
            and (self.leaks or row["kind"] != "blind" or not row["leaked"])
        )


@dataclass(frozen=True)
class Board:
    """What the view shows of one set of votes."""

    standings: tuple[Standing, ...] = ()
    tally: Tally | None = None
    base: str | None = None
    times: tuple[float, ...] = ()
    length_weight: float | None = None
    votes: int = 0  # of people, before the filters
    left_out: int = 0  # for a name that was given away


class Boards:
    """Boards by votes and filter: thirty pages that look at the same one rate the votes once."""

    def __init__(self, services: Services):
        self._services = services
        self.get = lru_cache(maxsize=32)(self._make)

    def _make(self, state: tuple, wanted: Filter) -> Board:
        people = [row for row in self._services.votes.rows() if row["judge"] is None]
        rows = [row for row in people if wanted.fits(row)]
        tally = ratings.count(rows)
        base = base_of(self._services, tally.models) if wanted.base == ALL else wanted.base
        base = base if base in tally.models else None
        return Board(
            tuple(ratings.leaderboard(tally, base, ROUNDS, SEED, wanted.style)),
            tally,
            base,
            tuple(row["time"] for row in rows),
            ratings.style_controlled(tally)[1] if wanted.style and tally.outcomes else None,
            len(people),
            sum(row["kind"] == "blind" and bool(row["leaked"]) for row in people) if not wanted.leaks else 0,
        )


def base_of(services: Services, models: Sequence[str]) -> str | None:
    """The name of a base model among `models`: the one that everything is compared with."""
    titles = [entry.title for entry in services.sources.entries() if entry.role == "base"]
    plain = [model for model in models if model in titles]
    derived = [model for model in models if "no chat template" in model or model.split(" · ")[0] in titles]
    return next(iter([*plain, *derived]), None)


def build(services: Services) -> None:
    boards = Boards(services)
    with gr.Row():
        shown_session = gr.Dropdown([("all", ALL)], value=ALL, label="Class session", min_width=150)
        category = gr.Dropdown([("all", ALL)], value=ALL, label="Category", min_width=150)
        kind = gr.Dropdown(list(KINDS.items()), value="", label="Votes from", min_width=150)
        base = gr.Dropdown([("the base model", ALL)], value=ALL, label="Rating 0 is", min_width=180)
    with gr.Row():
        leaks = gr.Checkbox(
            False,
            label="Count battles in which a reply gave away a name",
            info="in blind battles; left out otherwise",
            min_width=260,
        )
        style = gr.Checkbox(
            False,
            label="Take length out",
            info="style control: how well a lane does at equal length of the replies",
            min_width=260,
        )
    table = gr.HTML(EMPTY, elem_id="board-table")
    with gr.Column(visible=False) as details:
        with gr.Accordion("Who beats whom", open=True):
            matrix = gr.HTML(elem_id="board-matrix")
        with gr.Accordion("Votes over time", open=False):
            over_time = gr.HTML(elem_id="board-time")
    seen = gr.State(None)
    filters = [shown_session, category, kind, base, leaks, style]
    outputs = [seen, shown_session, category, base, table, details, matrix, over_time]
    look = partial(refresh, services, boards)
    page = gr.context.Context.root_block
    triggers = [page.load, gr.Timer(TICK).tick, *(component.change for component in filters)]
    gr.on(triggers, look, [seen, *filters], outputs, trigger_mode="always_last", **QUIET)


def refresh(services: Services, boards: Boards, seen, shown_session, category, kind, base, leaks, style) -> tuple:
    """Choices and views; nothing where neither votes nor filters have changed."""
    session = ALL if shown_session is None else shown_session  # "" is the session without a name
    wanted = Filter(session, category or ALL, kind or "", bool(leaks), bool(style), base or ALL)
    try:
        state = services.votes.state()
        if seen == (state, wanted):
            return (gr.skip(),) * 8
        sessions, categories = services.votes.sessions(), services.votes.categories()
        board = boards.get(state, wanted)
    except PlaygroundError as error:
        failed = f'<div class="notice failed"><p>{html.escape(str(error))}</p></div>'
        return None, *(gr.skip(),) * 3, failed, gr.update(visible=False), "", ""
    everything = ("all", ALL)
    named = [everything, *((name or "without a name", name) for name, votes in sessions.items() if name or votes)]
    categories = [everything, *((name, name) for name in categories)]
    models = [("the base model", ALL), *((name, name) for name in sorted(board.tally.models))]
    return (
        (state, wanted),
        gr.update(choices=with_value(named, wanted.session)),
        gr.update(choices=with_value(categories, wanted.category)),
        gr.update(choices=with_value(models, wanted.base)),
        table_of(board),
        gr.update(visible=bool(board.standings)),
        matrix_of(board),
        times_of(board.times),
    )


# --- the views as HTML ---


def table_of(board: Board) -> str:
    if not board.standings:
        return NARROW if board.votes else EMPTY
    low = min(line.low for line in board.standings)
    span = max(line.high for line in board.standings) - low or 1.0
    body = "".join(_row(line, low, span) for line in board.standings)
    head = (
        '<tr><th>Rank</th><th class="name">Lane</th><th>Rating</th><th>95 % interval</th><th></th><th>Votes</th>'
        "<th>Win rate</th><th>Elo</th><th>Both bad</th></tr>"
    )
    centre = f"{html.escape(board.base)} is 0" if board.base else "the mean is 0"
    notes = LEGEND.format(centre=centre, rounds=ROUNDS)
    if any(line.rank is None for line in board.standings):
        notes += (
            "<p>“not enough votes”: the interval overlaps those of all others, or there are fewer than "
            f"{ratings.MIN_VOTES} votes that decide, so there is no rank yet.</p>"
        )
    if board.length_weight is not None:
        factor = "longer" if board.length_weight > 0 else "shorter"
        notes += (
            f"<p>Length is taken out: here voters prefer {factor} replies (weight {board.length_weight:+.2f} per "
            "standard deviation of the difference in length).</p>"
        )
    if board.left_out:
        notes += f"<p>Blind votes left out because a reply gave away a name: {board.left_out:,}.</p>"
    if board.tally.problems:
        first = html.escape(board.tally.problems[0])
        notes += f"<p>Votes that cannot be rated: {len(board.tally.problems):,}; the first: {first}.</p>"
    decided = len(board.tally.outcomes)
    return (
        f'<div class="board" data-votes="{decided}"><table><thead>{head}</thead><tbody>{body}</tbody></table>'
        f"{notes}</div>"
    )


def _row(line: Standing, low: float, span: float) -> str:
    rank = line.rank if line.rank is not None else '<span class="none">not enough votes</span>'
    left, width = (line.low - low) / span, (line.high - line.low) / span
    drawn = (
        f'<span class="range" aria-hidden="true"><i style="left:{left:.1%};width:{width:.1%}"></i>'
        f'<b style="left:{(line.rating - low) / span:.1%}"></b></span>'
    )
    rate = f"{line.win_rate:.0%}" if line.win_rate == line.win_rate else "–"
    cells = [f"{line.rating:+.0f}", f"{line.low:+.0f} … {line.high:+.0f}", drawn, f"{line.votes:,}", rate]
    cells += [f"{line.elo:.0f}", f"{line.both_bad:,}"]
    return f'<tr><td>{rank}</td><td class="name">{html.escape(line.model)}</td>' + "".join(
        f"<td>{cell}</td>" for cell in cells
    ) + "</tr>"  # fmt: skip


def matrix_of(board: Board) -> str:
    """Win rates of the row's lane against the column's, in the leaderboard's order."""
    if not board.standings:
        return ""
    lines = board.standings[:MOST_MODELS]
    places = [board.tally.models.index(line.model) for line in lines]
    rates, games = ratings.win_rates(board.tally.wins), board.tally.games
    head = "".join(f'<th title="{html.escape(line.model)}">{n}</th>' for n, line in enumerate(lines, 1))
    body = ""
    for number, (line, i) in enumerate(zip(lines, places, strict=True), 1):
        cells = "".join(_cell(rates[i, j], games[i, j]) for j in places)
        body += f'<tr><th class="name">{number}. {html.escape(line.model)}</th>{cells}</tr>'
    return (
        "<div class=\"board matrix\"><p>How often the row's lane beat the column's; a tie is half a win.</p>"
        f'<table><thead><tr><th class="name"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(rate: float, games: float) -> str:
    if rate != rate:
        return '<td class="none" title="never met">–</td>'
    side = "var(--primary-500)" if rate >= 0.5 else "#d97706"
    share = abs(rate - 0.5) * 2 * 60  # never so strong that the figure is hard to read
    told = f"{games:,.0f} vote{'s' if games != 1 else ''}"
    return f'<td class="met" style="--side:{side};--share:{share:.0f}%" title="{told}">{rate:.0%}</td>'


def times_of(times: Sequence[float]) -> str:
    """Votes per minute, hour, day, …, as many as fit."""
    if not times:
        return ""
    first, last = min(times), max(times)
    span, words = next(((s, w) for s, w in SPANS if (last - first) / s < MOST_BARS), SPANS[-1])
    counts = Counter(int(moment // span) for moment in times)
    from_, to = max(int(first // span), int(last // span) - 12 * MOST_BARS), int(last // span)
    top = max(counts.values())
    bars = "".join(
        f'<span style="height:{counts[at] / top:.0%}" title="{_when(at * span, words)}: {counts[at]:,}"></span>'
        for at in range(from_, to + 1)
    )
    unit = {60: "minute", 3600: "hour", 86_400: "day", 7 * 86_400: "week"}.get(span, "four weeks")
    count = f"{len(times):,} vote{'s' if len(times) != 1 else ''}"
    told = f"{count} from {_when(first, '%Y-%m-%d %H:%M')} to {_when(last, '%Y-%m-%d %H:%M')}"
    return (
        f'<div class="board"><p>{told}; one bar per {unit}, at most {top:,}.</p>'
        f'<div class="bars" role="img" aria-label="{told}">{bars}</div></div>'
    )


def _when(moment: float, words: str) -> str:
    return time.strftime(words, time.localtime(moment))
