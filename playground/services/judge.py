"""A lane that votes on stored battles, in the background; its votes are kept apart from those of people.

    judging = Judging(engine, votes)
    judging.start(lane, session="Monday", limit=50)
    judging.now                          # how far it is, and what it could not judge
    judging.cancel()                     # what was judged stays
    report(votes.rows())                 # {judge: (votes, position bias, agreement with people)}

One judge works at a time: it shares its model's decoding batch with everyone's chats, and leaves them places.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from playground.config import SamplingConfig
from playground.core import judge
from playground.core.judge import Agreement, Bias
from playground.core.messages import Conversation
from playground.core.progress import Clock, Progress
from playground.errors import Busy, PlaygroundError
from playground.services.engine import Lane

log = logging.getLogger(__name__)

# Greedy, as in MT-Bench; an explanation and the verdict need a few hundred tokens.
SAMPLING = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=400)
TOGETHER = 4  # battles judged at the same time, two replies each
MAX_BATTLES = 2000
TICK = 0.1  # seconds between two looks at the replies
BUSY_FOR = 30.0  # seconds in which a battle is asked again when the engine has no place for it
KEPT = 2000  # characters of an explanation


@dataclass(frozen=True)
class State:
    """The work of one judge. `state`: running, done, cancelled or failed; `failures`: reason → battles."""

    judge: str
    progress: Progress
    state: str = "running"
    voted: int = 0
    failures: Mapping[str, int] | None = None
    error: str = ""


class Judging:
    """Starts and watches the judge of this process."""

    def __init__(self, engine, votes, pause: Callable[[float], None] = time.sleep):
        self._engine, self._votes, self._pause = engine, votes, pause
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.now: State | None = None

    @property
    def running(self) -> bool:
        return self.now is not None and self.now.state == "running"

    def start(self, lane: Lane, session: str | None = None, limit: int = 100) -> int:
        """Begin judging battles that this lane has not judged, those people voted on first; how many there are."""
        if not 1 <= limit <= MAX_BATTLES:
            raise PlaygroundError(f"a judge takes 1 to {MAX_BATTLES:,} battles at a time, got {limit:,}")
        lane = replace(lane, sampling=SAMPLING)
        with self._lock:
            if self.running:
                raise PlaygroundError(f"{self.now.judge} is judging; wait until it is finished, or cancel it")
            battles = self._votes.battles(session, lane.name)[:limit]
            if not battles:
                raise PlaygroundError(
                    f"there is no battle here that {lane.name} has not judged; vote on some battles first"
                )
            # a lane that cannot be asked at all is refused now, not in the background
            self._engine.prompt(lane, Conversation(judge.messages("question", "one", "two"), []))
            self._stop = threading.Event()
            clock = Clock(len(battles))
            self.now = State(lane.name, clock.progress("judging", 0), failures={})
            self._thread = threading.Thread(
                target=self._work, args=(lane, battles, clock, self._stop), name="judge", daemon=True
            )
            self._thread.start()
        return len(battles)

    def cancel(self) -> None:
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        if self._thread:
            self._thread.join(seconds)

    def _work(self, lane: Lane, battles: list[dict], clock: Clock, stop: threading.Event) -> None:
        try:
            for done, (voted, failures) in enumerate(self._judge(lane, battles, stop), 1):
                self.now = replace(
                    self.now, progress=clock.progress("judging", done), voted=voted, failures=dict(failures)
                )
            finished = self.now.progress.done == len(battles)
            self.now = replace(self.now, state="done" if finished else "cancelled")
        except PlaygroundError as error:
            self.now = replace(self.now, state="failed", error=str(error))
        except Exception as error:
            log.exception("judging failed")
            self.now = replace(self.now, state="failed", error=f"{type(error).__name__}: {error}")

    def _judge(self, lane: Lane, battles: list[dict], stop: threading.Event):
        """(votes so far, failures so far) after each battle."""
        waiting, running, voted, failures = list(reversed(battles)), [], 0, {}
        try:
            while (waiting or running) and not stop.is_set():
                while waiting and len(running) < TOGETHER:
                    started, why = self._ask(lane, waiting[-1], bool(running))
                    if started is None and not why:
                        break
                    battle = waiting.pop()
                    if why:
                        failures[why] = failures.get(why, 0) + 1
                        yield voted, failures
                    else:
                        running.append((battle, started))
                finished = [one for one in running if all(reply.done for reply in one[1])]
                for one in finished:
                    running.remove(one)
                    why = self._keep(lane, *one)
                    voted += not why
                    if why:
                        failures[why] = failures.get(why, 0) + 1
                    yield voted, failures
                if not finished:
                    self._pause(TICK)
        finally:
            for _, replies in running:
                for reply in replies:
                    reply.cancel()

    def _ask(self, lane: Lane, battle: dict, others: bool):
        """(both replies, ""), (None, why it cannot be judged), or (None, "") where there is no place just now."""
        question, left, right = judge.parts(battle)
        orders = [Conversation(judge.messages(question, *both), []) for both in ((left, right), (right, left))]
        since = time.monotonic()
        while True:
            try:
                return self._engine.replies([(lane, order) for order in orders], visitor="judge"), ""
            except Busy as error:
                if others:
                    return None, ""
                if self._stop.is_set() or time.monotonic() - since >= BUSY_FOR:
                    return None, str(error)
                self._pause(TICK)
            except PlaygroundError as error:
                return None, str(error)

    def _keep(self, lane: Lane, battle: dict, replies: list) -> str:
        """Store the vote of both orders; why there is none otherwise."""
        failed = next((reply for reply in replies if reply.finish_reason in ("error", "cancelled")), None)
        if failed is not None:
            return failed.error or "the judge was stopped"
        first, second = (judge.verdict(reply.text) for reply in replies)
        if first is None or second is None:
            return "it gave no clear verdict ([[A]], [[B]] or [[C]]) in one of the two orders"
        texts = [reply.text[-KEPT:] for reply in replies]
        details = {"first": first, "second": second, "texts": texts}
        stored = self._votes.add_judgement(battle, lane.name, judge.combined(first, second), details)
        return "" if stored else "it went on for another turn, or was deleted, while it was judged"


@dataclass(frozen=True)
class Report:
    """What the stored votes of one judge say: how many, its bias for a place, its agreement with people."""

    judge: str
    votes: int
    bias: Bias
    agreement: Agreement


def report(rows: Iterable[Mapping]) -> list[Report]:
    """One report per judge in `rows`, which are those of `Votes.rows`."""
    people, judges = {}, {}
    for row in rows:
        if row["judge"] is None:
            people[row["battle_id"]] = row["winner"]
        else:
            judges.setdefault(row["judge"], []).append(row)
    found = []
    for name, votes in sorted(judges.items()):
        verdicts = [(row["details"].get("first"), row["details"].get("second")) for row in votes]
        bias = judge.position_bias([both for both in verdicts if None not in both])
        both = [(people[row["battle_id"]], row["winner"]) for row in votes if row["battle_id"] in people]
        found.append(Report(name, len(votes), bias, judge.agreement(both)))
    return found
