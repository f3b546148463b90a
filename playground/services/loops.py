"""The guided loop: rows, training, score, rows for the weakest error, and again; each loop is a folder.

loop.json       what is learned, and of each round its data set, run, scorecard and what rows were added for
held-out.json   the questions of all rounds
rows-1.jsonl    the rows of round 1; rows-2.jsonl those that round 2 added, and so on

Nothing about a loop is kept in memory. What a step needs stands in its folder, in the run's and in the scorecard's, so
a page that is opened again, or an app that was ended, goes on where it was.
"""

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import filelock

from playground.config import Paths, TrainConfig, parse
from playground.core import rounds, scorecard
from playground.core.generator.writer import Row
from playground.core.jsonl import printable
from playground.core.messages import load_json
from playground.core.progress import Progress
from playground.core.question_sets import Question
from playground.core.rounds import Kit, Made, Report, Weakness
from playground.core.scorecard import Card, Comparison
from playground.core.training.recipes import recipe
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.engine import Lane
from playground.services.runs import Run, write_json
from playground.services.scorecards import FREE, Scorecards, entrant

AFRESH, ON = "afresh", "on"
WAYS = {AFRESH: "from the start, with all rows", ON: "go on from the last round's adapter, with the added rows"}
ON_RATE = 0.5  # of the recipe's learning rate: what is learned already should stay
# What there is to do next.
TRAIN, TRAINING, SCORE, SCORING, IMPROVE = "train", "training", "score", "scoring", "improve"
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
MAX_LOOPS = 200
MAX_ROUNDS = 20


@dataclass(frozen=True)
class Round:
    """`added`: rows that are new in it; `reason`: the error they were made for; `card`: its scorecard."""

    number: int
    data: str  # name of the data set
    rows: int
    added: int
    report: Report
    reason: str = ""
    run: str = ""
    way: str = ""
    card: str = ""


@dataclass(frozen=True)
class Loop:
    id: str
    created: float
    model: str
    kit: Kit
    seed: int
    questions: int
    rounds: tuple[Round, ...] = field(default=())

    @property
    def now(self) -> Round:
        return self.rounds[-1]

    @property
    def name(self) -> str:
        """The beginning of the names of its runs and data sets."""
        return f"loop-{self.id[4:13]}-{self.id[-4:]}"

    @property
    def title(self) -> str:
        tools = "your tools" if self.kit.tools else "calculator and weather"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.created))
        many = f"{len(self.rounds)} round{'s' if len(self.rounds) > 1 else ''}"
        return f"{when} · {self.kit.recipe}, {tools} · {many}"


class Loops:
    """The folder of loops. `cards` asks the models; `jobs` starts the trainers."""

    def __init__(self, paths: Paths, datasets, jobs, cards: Scorecards, engine):
        self.paths, self.datasets, self.jobs, self.cards, self.engine = paths, datasets, jobs, cards, engine
        self._folder = paths.loops

    # What there is ----------------------------------------------------------------------------------------------------

    def all(self) -> list[Loop]:
        """Newest first; what cannot be read is left out."""
        found = []
        for id in self.ids():
            with contextlib.suppress(PlaygroundError):
                found.append(self.load(id))
        return sorted(found, key=lambda loop: loop.id, reverse=True)

    def load(self, id: str) -> Loop:
        try:
            text = (self._of(id) / "loop.json").read_text(encoding="utf-8")
        except OSError:
            raise PlaygroundError(f"there is no loop {id!r}; it may have been deleted") from None
        return _loop(load_json(text, f"the loop {id}"))

    def held_out(self, loop: Loop) -> list[Question]:
        value = load_json((self._of(loop.id) / "held-out.json").read_text(encoding="utf-8"), "the held-out questions")
        return [Question(**one) for one in value]

    def rows(self, loop: Loop, until: int | None = None) -> list[Row]:
        """The rows of all rounds up to `until`."""
        found = []
        for one in loop.rounds[:until]:
            with open(self._of(loop.id) / f"rows-{one.number}.jsonl", encoding="utf-8") as file:
                found += [Row(**json.loads(text)) for text in file]
        return found

    def stage(self, loop: Loop) -> str:
        """What is going on, or what is next."""
        run, card = self.run(loop), self.card(loop)
        if run is not None and run.status.live:
            return TRAINING
        if run is None or run.adapter is None:
            return TRAIN
        if card is None or card.state in ("cancelled", "failed", "unfinished"):
            return SCORE
        return SCORING if card.state == "running" else IMPROVE

    def run(self, loop: Loop, number: int | None = None) -> Run | None:
        """The run of a round (the last one); None where none was started, or it was deleted. It may be renamed."""
        one = loop.rounds[(number or len(loop.rounds)) - 1]
        if not one.run:
            return None
        known = runs.list_runs(self.paths)
        named = next((run for run in known if run.name == one.run), None)
        return named or next((run for run in known if one.run in run.former_names), None)

    def card(self, loop: Loop, number: int | None = None) -> Card | None:
        one = loop.rounds[(number or len(loop.rounds)) - 1]
        if not one.card:
            return None
        try:
            return self.cards.load(one.card)
        except PlaygroundError:
            return None

    def column(self, loop: Loop, number: int | None = None) -> int:
        """Of a round's scorecard, that of its adapter; the first round's has the model as it was before it."""
        return 1 if (number or len(loop.rounds)) == 1 else 0

    def weaknesses(self, loop: Loop) -> list[Weakness]:
        """Of the last round that was scored; [] where it made no error."""
        card = self.card(loop)
        return rounds.weaknesses(card, self.column(loop)) if card is not None and card.state == "done" else []

    def compared(self, loop: Loop) -> list[tuple[str, scorecard.Cell, dict[str, int], Comparison | None]]:
        """(what, valid, errors, against the one before) for the model as it was and for each round that was scored."""
        found, before = [], None
        for one in loop.rounds:
            card = self.card(loop, one.number)
            if card is None or card.state != "done":
                continue
            columns = [(0, "before"), (1, "round 1")] if one.number == 1 else [(0, f"round {one.number}")]
            for column, what in columns:
                cells = scorecard.cells(card.of(column))
                errors = {w: cell.count for w, cell in cells.items() if cell.count and w != scorecard.VALID}
                change = scorecard.compare(*before, card, column) if before else None
                found.append((what, cells[scorecard.VALID], errors, change))
                before = (card, column)
        return found

    # Steps ------------------------------------------------------------------------------------------------------------

    def create(self, kit: Kit, n: int = 600, questions: int = 40, seed: int = 0, model: str = "") -> Iterator[Progress]:
        """Make the first round's rows and the questions of all rounds; the last step's result is the loop."""
        if len(self.ids()) >= MAX_LOOPS:
            raise PlaygroundError(f"there are {MAX_LOOPS} loops; delete some of them first")
        if seed < 0:
            raise PlaygroundError(f"the seed must be 0 or more, got {seed}")
        asked = rounds.held_out(kit, questions, seed)
        apart = {rounds.question_key(kit, question) for question in asked}
        for step in rounds.make(kit, n, seed, apart):
            if isinstance(step.result, Made):
                id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
                loop = Loop(id, time.time(), model or TrainConfig.model, kit, seed, questions)
                with self._keeping():
                    folder = self._of(id)
                    part = folder.with_name(f".{id}.part")
                    part.mkdir(parents=True)
                    write_json(part / "held-out.json", printable([asdict(question) for question in asked]))
                    _write_rows(part / "rows-1.jsonl", step.result.rows)
                    first = self._round(loop, 1, step.result.rows, len(step.result.rows), step.result.report)
                    loop = replace(loop, rounds=(first,))
                    write_json(part / "loop.json", _json(loop))
                    part.rename(folder)
                step = replace(step, result=loop)
            yield step

    def train(self, id: str, way: str = AFRESH, steps: int = 0) -> Loop:
        """Start the run of the last round. `steps` 0: once over the rows."""
        if way not in WAYS:
            raise PlaygroundError(f"a round is trained {' or '.join(WAYS)}, got {way!r}")
        with self._alone(id):
            loop = self.load(id)
            self._must_be(loop, TRAIN, SCORE, IMPROVE)
            number = len(loop.rounds)
            config = self._config(loop, number, way, steps)
            run = self.jobs.start(config)
            now = replace(loop.now, run=run.name, way=way, card="")
            return self._save(replace(loop, rounds=(*loop.rounds[:-1], now)))

    def _config(self, loop: Loop, number: int, way: str, steps: int) -> TrainConfig:
        settings = {**recipe(loop.kit.recipe).settings, "model": loop.model, "steps": steps}
        settings |= {"data": loop.now.data, "name": f"{loop.name}-round-{number}", "seed": loop.seed}
        if loop.kit.tools:
            settings["probe"] = self.held_out(loop)[0].messages[-1]["content"]
        if way == ON:
            last = self.run(loop, number - 1) if number > 1 else None
            if last is None or last.adapter is None:
                raise PlaygroundError("there is no adapter of an earlier round to go on from; train from the start")
            rows = self.rows(loop)
            old, added = rows[: len(rows) - loop.now.added], rows[len(rows) - loop.now.added :]
            chosen = rounds.training_rows(old, added, afresh=False)
            settings["data"] = self._dataset(loop, f"{loop.name}-round-{number}-added", chosen)
            settings |= {"continue_from": last.name, "learning_rate": settings["learning_rate"] * ON_RATE}
        return parse(TrainConfig, settings)

    def score(self, id: str) -> Loop:
        """Ask the held-out questions, in the background: in round 1 of the model as it is and of the adapter."""
        with self._alone(id):
            loop = self.load(id)
            self._must_be(loop, SCORE, IMPROVE)
            card = self.cards.start(self._card_name(loop), self._entrants(loop), self.held_out(loop))
            return self._save(self._with_card(loop, card))

    def score_here(self, id: str) -> Iterator[Progress]:
        """The same in this thread."""
        loop = self.load(id)
        self._must_be(loop, SCORE, IMPROVE)
        for step in self.cards.run(self._card_name(loop), self._entrants(loop), self.held_out(loop)):
            if loop.now.card != step.result.id:
                loop = self._save(self._with_card(loop, step.result.id))
            yield step

    def _card_name(self, loop: Loop) -> str:
        return f"{loop.name}, round {len(loop.rounds)}"

    def _with_card(self, loop: Loop, card: str) -> Loop:
        return replace(loop, rounds=(*loop.rounds[:-1], replace(loop.now, card=card)))

    def _entrants(self, loop: Loop) -> list:
        """Both in the template and the format that are trained, so that they are asked alike."""
        run = self.run(loop)
        template, format = run.config.template, rounds.FORMATS[loop.kit.recipe]
        tuned = Lane(loop.model, run.name, "", label=run.name)
        lanes = [tuned] if len(loop.rounds) > 1 else [Lane(loop.model, None, template, label="before"), tuned]
        # a pair's prompt says nothing of tools: the adapter has learned them
        return [entrant(self.engine, lane, format, FREE, announce=not loop.kit.pairs) for lane in lanes]

    def more(self, loop: Loop, weak: Weakness, n: int) -> Made:
        """Rows against an error, to be looked at and then added; the same `n`, the same rows."""
        rows = self.rows(loop)
        apart = {rounds.question_key(loop.kit, question) for question in self.held_out(loop)}
        *_, last = rounds.more(loop.kit, weak, n, rows, loop.seed * MAX_ROUNDS + len(loop.rounds), apart)
        return last.result

    def add(self, id: str, weak: Weakness, n: int) -> Loop:
        """A new round, with the rows of `more` added."""
        with self._alone(id), self._keeping():
            loop = self.load(id)
            self._must_be(loop, IMPROVE)
            if len(loop.rounds) >= MAX_ROUNDS:
                raise PlaygroundError(f"a loop has {MAX_ROUNDS} rounds at most; begin a new one")
            made, number = self.more(loop, weak, n), len(loop.rounds) + 1
            _write_rows(self._of(id) / f"rows-{number}.jsonl", made.rows)
            added = self._round(loop, number, [*self.rows(loop), *made.rows], len(made.rows), made.report)
            added = replace(added, reason=weak.sentence())
            return self._save(replace(loop, rounds=(*loop.rounds, added)))

    def delete(self, id: str) -> None:
        """The folder; runs, scorecards and data sets stay."""
        folder = self._of(id)
        gone = folder.with_name(f".{id}.deleted")
        if folder.exists():
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    # Underneath -------------------------------------------------------------------------------------------------------

    def _must_be(self, loop: Loop, *stages: str) -> None:
        stage = self.stage(loop)
        if stage in stages:
            return
        told = {
            TRAIN: "its last round is not trained yet", TRAINING: f"the run {loop.now.run} is not done yet",
            SCORE: "its last round is not scored yet", SCORING: "its last round is being scored",
            IMPROVE: "its last round is trained and scored",
        }  # fmt: skip
        raise PlaygroundError(f"this step of the loop cannot be done now: {told[stage]}")

    def _round(self, loop: Loop, number: int, rows: Sequence[Row], added: int, report: Report) -> Round:
        data = self._dataset(loop, f"{loop.name}-round-{number}", rows)
        return Round(number, data, len(rows), added, report)

    def _dataset(self, loop: Loop, name: str, rows: Sequence[Row]) -> str:
        """Kept where every tab sees it."""
        return self.datasets.add_rows((rounds.line(loop.kit, row) for row in rows), f"{name}.jsonl").name

    def ids(self) -> list[str]:
        try:
            return list(filter(ID.fullmatch, os.listdir(self._folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _of(self, id: str) -> Path:
        if not ID.fullmatch(id or ""):
            raise PlaygroundError(f"there is no loop {id!r}")
        return self._folder / id

    def _save(self, loop: Loop) -> Loop:
        write_json(self._of(loop.id) / "loop.json", _json(loop))
        return loop

    @contextlib.contextmanager
    def _alone(self, id: str):
        """One step at a time, whoever presses the button."""
        folder = self._of(id)
        if not folder.exists():
            raise PlaygroundError(f"there is no loop {id!r}; it may have been deleted")
        try:
            with filelock.FileLock(folder / ".lock", timeout=20):
                yield
        except filelock.Timeout:
            raise PlaygroundError("another page is doing a step of this loop; look again in a moment") from None

    @contextlib.contextmanager
    def _keeping(self):
        try:
            yield
        except OSError as error:
            raise PlaygroundError(f"the loop cannot be kept in {self._folder}: {error.strerror or error}") from None


def _json(loop: Loop) -> dict:
    return {"version": 1, **asdict(loop)}


def _loop(value) -> Loop:
    try:
        value = dict(value)
        if value.pop("version") != 1:
            raise PlaygroundError("this loop was written by a newer app; update this one to read it")
        kit = {k: tuple(v) if isinstance(v, list) else v for k, v in value.pop("kit").items()}
        made = [Round(**{**one, "report": Report(**one["report"])}) for one in value.pop("rounds")]
        loop = Loop(**value, kit=Kit(**kit), rounds=tuple(made))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise PlaygroundError(f"this is no loop: {error}") from None
    if not loop.rounds:
        raise PlaygroundError("this is no loop: it has no round")
    return loop


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(printable(asdict(row)), ensure_ascii=False) + "\n" for row in rows)
    part.replace(path)
