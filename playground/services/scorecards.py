"""Scorecards: lanes asked a set of questions in the background, each scorecard stored as one JSON file.

    cards = Scorecards(paths, engine)
    id = cards.start("demo, seed 0", entrants(engine, lanes), questions)
    cards.load(id)                      # the card so far; its state says how it stands
    for step in cards.run(new, entrants, questions): …       # the same without a thread

One scorecard runs at a time: it shares its models' decoding batches with everyone's chats, and leaves them places.
"""

import logging
import os
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from playground.config import Paths, SamplingConfig
from playground.core import scorecard, tool_formats
from playground.core.constrained import Constraint, why_not
from playground.core.messages import load_json
from playground.core.progress import Clock, Progress
from playground.core.question_sets import MAX_QUESTIONS, Question
from playground.core.scorecard import FAILED, Card, Column, Row
from playground.errors import Busy, PlaygroundError
from playground.services.engine import Lane
from playground.services.remote import FORMAT
from playground.services.runs import write_json

log = logging.getLogger(__name__)

AUTO = "auto"
FREE = "free"  # not constrained
# How a lane may decode: free, or held to a mode of core.constrained.
MODES = {FREE: "free", "valid": "constrained: calls fit a schema", "must": "constrained: calls only"}
FALLBACK_TEMPLATE = "chatml-tools"  # for a model whose own template cannot speak of tools
# A call is copied word by word: the likeliest token each time, and no penalty on what was said before.
SAMPLING = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=160)
BATCH, MAX_BATCH = 8, 16  # replies written at the same time
MAX_COLUMNS = 12
MAX_STORED = 500
TICK = 0.1  # seconds between two looks at the replies
SAVE_EVERY = 5.0  # seconds
BUSY_FOR = 30.0  # seconds in which a question is asked again when the engine has no place for it
HOPELESS = 5  # replies that fail before any succeeds
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


# --- who is asked ---


@dataclass(frozen=True)
class Entrant:
    """A lane and the format that its calls are read in. `announced`: that format is told in the system prompt."""

    lane: Lane
    format: ModuleType
    column: Column
    announced: bool = False


def entrants(
    engine, lanes: Sequence[Lane], formats: Sequence[str] = (AUTO,), modes: Sequence[str] = (FREE,)
) -> list[Entrant]:
    """Every lane in every format and mode. Raises PlaygroundError for a lane that cannot be asked."""
    formats, modes = list(dict.fromkeys(formats)) or [AUTO], list(dict.fromkeys(modes)) or [FREE]
    if not lanes:
        raise PlaygroundError("a scorecard needs one lane or more")
    columns = len(lanes) * len(formats) * len(modes)
    if columns > MAX_COLUMNS:
        raise PlaygroundError(f"a scorecard takes {MAX_COLUMNS} columns at most, these choices make {columns}")
    found = [entrant(engine, lane, format, mode) for lane in lanes for format in formats for mode in modes]
    titles = [one.column.title for one in found]
    twice = next((title for title in titles if titles.count(title) > 1), None)
    if twice is not None:
        raise PlaygroundError(f"two lanes are the same, {twice}; choose another model, adapter, template or format")
    return found


def entrant(engine, lane: Lane, format: str = AUTO, mode: str = FREE, announce: bool = True) -> Entrant:
    """The lane as it is asked: greedy, and in a template that speaks of tools where `format` is "auto".

    A format by name that is not the template's own is told to the model in the system prompt, unless it is not to
    `announce`: an adapter may have learned tools and format by heart. `mode`: FREE, or a mode of constrained decoding.
    """
    title = lane.name + (f", {tool_formats.named(format).NAME}" if format != AUTO else "")
    if mode not in MODES:
        raise PlaygroundError(f"a lane decodes in the mode {', '.join(MODES)}, got {mode!r}")
    lane = replace(lane, sampling=SAMPLING, label=title)
    if lane.adapter:
        engine.adapter(lane.adapter)
    if engine.remotes.find(lane.model) is not None:
        return Entrant(lane, FORMAT, Column(lane.label, lane.model, None, "elsewhere", FORMAT.NAME, "", FREE), False)
    tokenizer = engine.tokenizer(lane.model, lane.adapter)
    template = engine.template(lane)
    spoken = tool_formats.for_template(template, tokenizer)
    if spoken is None and format == AUTO and lane.template:
        raise PlaygroundError(
            f"no call format is known for the template {template.name} of {title}; choose the template "
            f"{FALLBACK_TEMPLATE}, leave the choice to us, or name a format, which is then told to the model"
        )
    if spoken is None and format == AUTO:
        lane = replace(lane, template=FALLBACK_TEMPLATE)
        template = engine.template(lane)
        spoken = tool_formats.for_template(template, tokenizer)
    module = spoken if format == AUTO else tool_formats.named(format)
    announced = announce and module is not spoken
    if mode != FREE:
        lane = _constrained(lane, module, announced, mode)
    column = Column(lane.label, lane.model, lane.adapter, template.name, module.NAME, template.hash, mode)
    return Entrant(lane, module, column, announced)


def _constrained(lane: Lane, format: ModuleType, announced: bool, mode: str) -> Lane:
    reason = why_not(format)
    if announced:
        reason = f"the template of {lane.name} does not speak the {format.NAME} format, so it cannot be held to it"
    if reason:
        raise PlaygroundError(reason)
    return replace(lane, constraint=Constraint(mode, format.NAME), label=f"{lane.label}, {MODES[mode]}")


# --- asking ---


def ask(
    engine,
    entrants: Sequence[Entrant],
    questions: Sequence[Question],
    batch: int = BATCH,
    cancel: Callable[[], bool] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Ask everyone everything, question by question; the progress's result is the list of rows so far.

    `batch` replies are written at a time. Those being written when it is cancelled do not count. Raises
    PlaygroundError when nothing can be answered.
    """
    # (column, question, when the engine first had no place for it)
    waiting = deque((column, number, None) for number in range(len(questions)) for column in range(len(entrants)))
    clock = Clock(len(waiting))
    rows: list[Row] = []
    running: list[tuple[int, int, object]] = []
    yield clock.progress("asking", 0, [])
    try:
        while waiting or running:
            if cancel is not None and cancel():
                return
            before = len(rows)
            if len(running) <= batch // 2:  # several join at a time: their prompts are read together
                _refill(engine, entrants, questions, waiting, running, rows, batch)
            for column, number, reply in [one for one in running if one[2].done]:
                running.remove((column, number, reply))
                rows.append(_judge(entrants[column], questions[number], reply, column, number))
            if len(rows) >= min(HOPELESS, clock.total) and all(row.word == FAILED for row in rows):
                raise PlaygroundError(f"no question could be answered: {rows[-1].detail}")
            if len(rows) > before:
                yield clock.progress("asking", len(rows), list(rows))
            else:
                pause(TICK)
    finally:
        for _, _, reply in running:
            reply.cancel()


def _refill(engine, entrants, questions, waiting, running, rows, batch) -> None:
    while waiting and len(running) < batch:
        column, number, since = waiting.popleft()
        entrant = entrants[column]
        asked = scorecard.conversation(questions[number], entrant.format if entrant.announced else None)
        try:
            (reply,) = engine.replies([(entrant.lane, asked)], entrant.format.STOPS, "scorecard")
            running.append((column, number, reply))
        except Busy as error:
            since = time.monotonic() if since is None else since
            if time.monotonic() - since >= BUSY_FOR:
                rows.append(Row(column, number, FAILED, str(error)))
            else:
                waiting.append((column, number, since))
                return
        except PlaygroundError as error:  # too long, more than its template can say, or no grammar for its tools
            rows.append(Row(column, number, FAILED, str(error)))


def _judge(entrant: Entrant, question: Question, reply, column: int, number: int) -> Row:
    ended, tokens = reply.finish_reason, len(reply.ids)
    if ended in ("error", "cancelled"):
        return Row(column, number, FAILED, reply.error or "the reply was stopped", reply.text, (), ended, tokens)
    try:
        found = scorecard.verdict(question, reply.text, entrant.format)
    except PlaygroundError as error:
        return Row(column, number, FAILED, str(error), reply.text, (), ended, tokens)
    calls = tuple(scorecard.written_calls(found.calls))
    return Row(column, number, found.word, found.detail, reply.text, calls, ended, tokens)


# --- keeping ---


@dataclass(frozen=True)
class Entry:
    """A scorecard in a list."""

    id: str
    name: str
    created: float
    state: str
    done: int
    total: int
    columns: tuple[Column, ...]


class Job:
    """The scorecard that runs: `card` and `step` are replaced as it goes on."""

    def __init__(self, card: Card):
        self.card = card
        self.step: Progress | None = None
        self.stop = threading.Event()


class Scorecards:
    """The folder of scorecards, and the one that is running in this process."""

    def __init__(self, paths: Paths, engine=None, pause: Callable[[float], None] = time.sleep):
        self._folder, self._engine, self._pause = paths.scorecards, engine, pause
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._known: dict[str, tuple[int, Entry]] = {}

    # Running ----------------------------------------------------------------------------------------------------------

    def start(self, name: str, entrants: Sequence[Entrant], questions: Sequence[Question], batch: int = BATCH) -> str:
        """Begin in the background and return the scorecard's id. PlaygroundError while another one runs.

        `name` says where the questions are from; how many they are is added.
        """
        job = self._begin(name, entrants, questions, batch)
        work = threading.Thread(target=self._work, args=(job, entrants, batch), name="scorecard", daemon=True)
        work.start()
        return job.card.id

    def run(
        self, name: str, entrants: Sequence[Entrant], questions: Sequence[Question], batch: int = BATCH
    ) -> Iterator[Progress]:
        """The same in this thread; the progress's result is the card, and what was done is kept however it ends."""
        job = self._begin(name, entrants, questions, batch)
        yield from self._steps(job, entrants, batch)

    @property
    def running(self) -> Job | None:
        job = self._job
        return job if job is not None and job.card.state == "running" else None

    def cancel(self, id: str) -> None:
        """Ask the running scorecard to stop; what was answered is kept."""
        job = self.running
        if job is not None and job.card.id == id:
            job.stop.set()

    def _begin(self, name: str, entrants: Sequence[Entrant], questions: Sequence[Question], batch: int) -> Job:
        if not 1 <= batch <= MAX_BATCH:
            raise PlaygroundError(f"batch must be between 1 and {MAX_BATCH}, got {batch:,}")
        if not 1 <= len(questions) <= MAX_QUESTIONS:
            raise PlaygroundError(f"a scorecard takes 1 to {MAX_QUESTIONS:,} questions, got {len(questions):,}")
        with self._lock:
            running = self.running
            if running is not None:
                done = f"{len(running.card.rows):,} of {running.card.total:,} replies"
                raise PlaygroundError(
                    f"a scorecard is running ({running.card.name}, {done}); wait for it, or cancel it"
                )
            if len(self._ids()) >= MAX_STORED:
                raise PlaygroundError(f"there are {MAX_STORED} scorecards; delete some of them first")
            id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
            columns = tuple(one.column for one in entrants)
            count = f"{len(questions):,} question{'s' if len(questions) > 1 else ''}"
            job = Job(Card(id, f"{name}, {count}", time.time(), columns, tuple(questions)))
            self._save(job.card)
            self._job = job
        return job

    def _work(self, job: Job, entrants: Sequence[Entrant], batch: int) -> None:
        try:
            for _ in self._steps(job, entrants, batch):
                pass
        except PlaygroundError as error:
            log.warning("scorecard %s: %s", job.card.id, error)
        except Exception:
            log.exception("scorecard %s failed", job.card.id)

    def _steps(self, job: Job, entrants: Sequence[Entrant], batch: int) -> Iterator[Progress]:
        began = saved = time.monotonic()
        state, reason = "cancelled", ""
        try:
            for step in ask(self._engine, entrants, job.card.questions, batch, job.stop.is_set, self._pause):
                seconds = time.monotonic() - began
                job.card = replace(job.card, rows=tuple(step.result), seconds=seconds)
                job.step = replace(step, result=job.card)
                if time.monotonic() - saved >= SAVE_EVERY:
                    self._save(job.card)
                    saved = time.monotonic()
                yield job.step
            if len(job.card.rows) == job.card.total:
                state = "done"
        except Exception as error:
            state, reason = "failed", str(error) or type(error).__name__
            raise
        finally:  # also when interrupted, or when nobody reads on
            card = replace(job.card, state=state, error=reason, seconds=time.monotonic() - began)
            try:
                self._save(card)
            finally:
                job.card = card
        yield replace(job.step, stage=state, result=card)

    # What there is ----------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All scorecards, newest first; a file that is none is left out."""
        running, found = self.running, []
        for id in self._ids():
            if running is not None and running.card.id == id:
                found.append(_entry(running.card))
                continue
            try:
                changed = self._file(id).stat().st_mtime_ns
                if self._known.get(id, (0,))[0] != changed:
                    self._known[id] = (changed, _entry(self.load(id)))
            except (PlaygroundError, OSError) as error:
                log.warning("scorecard left out: %s", error)
                continue
            found.append(self._known[id][1])
        return sorted(found, key=lambda entry: entry.created, reverse=True)

    def load(self, id: str) -> Card:
        """The scorecard as it is stored, or as it stands while it runs. Raises PlaygroundError where there is none."""
        job = self._job
        if job is not None and job.card.id == id and self._file(id).exists():
            return job.card
        try:
            text = self._file(id).read_text(encoding="utf-8")
        except OSError:
            raise PlaygroundError(f"there is no scorecard {id!r}; it may have been deleted") from None
        value = load_json(text, f"the scorecard {id}")
        card = scorecard.from_json(value if isinstance(value, dict) else {})
        # nobody in this process runs it: its own was ended, or another process is at it
        return replace(card, state="unfinished") if card.state == "running" else card

    def of_adapter(self, name: str) -> list[Entry]:
        """The scorecards that a fine-tune takes part in."""
        return [entry for entry in self.entries() if any(column.adapter == name for column in entry.columns)]

    def delete(self, id: str) -> None:
        running = self.running
        if running is not None and running.card.id == id:
            raise PlaygroundError("this scorecard is running; cancel it first")
        self._file(id).unlink(missing_ok=True)
        self._known.pop(id, None)

    def _ids(self) -> list[str]:
        try:
            names = [Path(name).stem for name in os.listdir(self._folder) if name.endswith(".json")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return list(filter(ID.fullmatch, names))

    def _file(self, id: str) -> Path:
        if not ID.fullmatch(id or ""):
            raise PlaygroundError(f"there is no scorecard {id!r}")
        return self._folder / f"{id}.json"

    def _save(self, card: Card) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._file(card.id), scorecard.to_json(card))
        except OSError as error:
            raise PlaygroundError(
                f"the scorecard cannot be kept in {self._folder}: {error.strerror or error}"
            ) from None


def _entry(card: Card) -> Entry:
    return Entry(card.id, card.name, card.created, card.state, len(card.rows), card.total, card.columns)
