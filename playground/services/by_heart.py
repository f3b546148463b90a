"""Asks rows that a run trained on and rows that it held out, with and without what was trained; kept in its folder.

by-heart.json in the run's folder is written after each row, so that a page, or a restarted app, shows what there is.
"""

import json
import logging
import threading
from pathlib import Path

from playground.config import Paths, SamplingConfig, TrainConfig
from playground.core import datasets
from playground.core.by_heart import HELD_OUT, TRAINED, Row, chosen, last_answer, sentence
from playground.core.templates import Template, stop_strings
from playground.core.training import collate
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.engine import Engine, Lane
from playground.services.runs import Run

log = logging.getLogger(__name__)
FILE = "by-heart.json"
MOST = 20  # rows of each kind
LONGEST = 160  # tokens of an answer


def read(run: Run) -> dict:
    """What there is: state ("running", "done", "cancelled", "failed"), rows, total, sentence; {} before the first."""
    try:
        found = json.loads((run.folder / FILE).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def rows_of(found: dict) -> list[Row]:
    return [Row(**row) for row in found.get("rows", [])]


class ByHeart:
    """The askings of this process, one thread for each run that is being asked."""

    def __init__(self, engine: Engine, paths: Paths):
        self.engine, self.paths = engine, paths
        self._asking: dict[Path, threading.Event] = {}
        self._lock = threading.Lock()

    def asking(self, run: Run) -> bool:
        return run.folder in self._asking

    def start(self, run: Run, count: int) -> threading.Thread:
        """Ask `count` rows of each kind in the background. PlaygroundError where it cannot be done."""
        if not 1 <= count <= MOST:
            raise PlaygroundError(f"1 to {MOST} rows of each kind can be asked, got {count}")
        if run.status.live:
            raise PlaygroundError(f"{run.name} is {run.state}; its rows can be asked when it has ended")
        self.engine.adapter(run.name)  # or a sentence with those there are
        with self._lock:
            if self.asking(run):
                raise PlaygroundError(f"the rows of {run.name} are being asked already")
            cancel = self._asking[run.folder] = threading.Event()
        _write(run, "running", [], 0)
        thread = threading.Thread(target=self._ask, args=(run, count, cancel), name=f"rows of {run.name}", daemon=True)
        thread.start()
        return thread

    def cancel(self, run: Run) -> None:
        """Stop after the row that is being asked; the rows before it stay."""
        if (event := self._asking.get(run.folder)) is not None:
            event.set()

    def _ask(self, run: Run, count: int, cancel: threading.Event) -> None:
        rows, total = [], 0
        try:
            asked = self._asked(run, count)
            total = len(asked)
            for kind, tuned, base in asked:
                _write(run, "running", rows, total)
                if cancel.is_set():
                    break
                rows.append(self._row(run, kind, tuned, base))
            _write(run, "cancelled" if cancel.is_set() else "done", rows, total, sentence(rows))
        except PlaygroundError as error:
            _write(run, "failed", rows, total, str(error))
        except Exception as error:
            log.exception("asking the rows of %s failed", run.name)
            _write(run, "failed", rows, total, f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._asking.pop(run.folder, None)

    def _asked(self, run: Run, count: int) -> list[tuple[str, collate.Example, collate.Example]]:
        """(kind, the row for the tuned model, the same row for the base) of the rows that are asked."""
        config = run.config
        tuned = self._examples(run, config, run.name)
        own = self.engine.adapter(run.name).tokenizer  # new tokens are other ids, or several, for the base
        base = self._examples(run, config, None) if own else tuned
        kinds = ((TRAINED, tuned.train, base.train), (HELD_OUT, tuned.held_out, base.held_out))
        if any(len(ours) != len(theirs) for _, ours, theirs in kinds):
            raise PlaygroundError("the base reads other rows as too long, so the two cannot be compared row by row")
        return [(kind, ours[i], theirs[i]) for kind, ours, theirs in kinds for i in chosen(ours, count)]

    def _examples(self, run: Run, config: TrainConfig, adapter: str | None) -> collate.Examples:
        data = datasets.load(config.data, self.paths)
        before = run.about.get("data_hash")
        if before and before != collate.data_hash(data.conversations):
            raise PlaygroundError(f"the data {config.data} has changed since {run.name}, so its rows are not known")
        return collate.prepare(config, data.conversations, self._template(run), self._tokenizer(run, adapter))

    def _template(self, run: Run) -> Template:
        template = self.engine.adapter(run.name).template
        if template is None:
            raise PlaygroundError(f"{run.name} does not say which template it was trained with")
        return template

    def _tokenizer(self, run: Run, adapter: str | None):
        return self.engine.tokenizer(run.config.model, adapter)

    def _row(self, run: Run, kind: str, tuned: collate.Example, base: collate.Example) -> Row:
        replies, losses, texts = [], [], []
        for row, adapter in ((base, None), (tuned, run.name)):
            prompt, answer = last_answer(row)
            tokenizer = self._tokenizer(run, adapter)
            stops = stop_strings(self._template(run), tokenizer)
            length = min(LONGEST, len(answer) + 8)
            sampling = SamplingConfig(temperature=0, repetition_penalty=1.0, max_new_tokens=length)
            lane = Lane(run.config.model, adapter, sampling=sampling)
            replies.append(self.engine.continued(lane, prompt, stops, f"rows of {run.name}"))
            losses.append(self.engine.row_loss(lane, row.ids, row.labels))
            texts.append((tokenizer.decode(prompt), _before(tokenizer.decode(answer), stops)))
        for reply in replies:
            reply.wait()
            if reply.error:
                raise PlaygroundError(reply.error)
        return Row(kind, *texts[1], replies[0].text, replies[1].text, *losses)


def _before(text: str, stops: list[str]) -> str:
    """The text up to the first stop, which is what a reply shows."""
    return text[: min([at for stop in stops if stop and (at := text.find(stop)) >= 0], default=len(text))]


def _write(run: Run, state: str, rows: list[Row], total: int, words: str = "") -> None:
    runs.write_json(
        run.folder / FILE,
        {"state": state, "total": total, "sentence": words, "rows": [row.as_dict() for row in rows]},
    )
