"""A decoding thread: one base model, its adapters, and the batch that is running on it.

Requests wait in a queue that is fair between visitors, join the batch where a row is free, and leave it when their
reply has ended, is stopped, or fails. The thread alone touches the model; others only submit, ask, and close.
torch is imported by the thread, not by this module: a page can be up before the model is.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from playground.core.cores import TOKEN_COST, Cores
from playground.core.models import weights_size
from playground.core.tokenizer import Tokenizer
from playground.errors import Busy, PlaygroundError
from playground.services import loading
from playground.services.fair import FairQueue
from playground.services.replies import Reply

log = logging.getLogger(__name__)

MAX_ROWS = 16  # rows decoded together; more wait
MAX_WAITING = 64  # requests that may wait for a place on one model
MAX_WAITING_EACH = 16  # of one visitor


class Decoder(threading.Thread):
    """The thread that owns one base model, its adapters and its running batch."""

    def __init__(self, engine, name: str, folder: Path):
        """`engine` (a services.engine.Engine) has the tokenizers, the adapters and how weights are loaded."""
        super().__init__(name=f"decoder {name}", daemon=True)
        self.engine = engine
        self.model_name = name
        self.folder = folder
        self.state = "loading"
        self.failure: str | None = None
        self.waiting = FairQueue()
        self.losses: deque[tuple[Future, str | None, Sequence[int], Sequence[int]]] = deque()
        self.closing = False
        self.last_words: str | None = None  # to those who are cut off
        self.wake = threading.Condition()
        self.size = weights_size(folder, engine.load_in_4bit)  # bytes
        self.written = weights_time(folder)
        self.used = time.monotonic()
        self.batch = None

    def submit(self, replies: list[Reply], visitor: str = "") -> None:
        with self.wake:
            self.used = time.monotonic()
            if self.failure:
                for reply in replies:
                    reply.finish("error", self.failure)
                return
            if self.closing:
                raise Busy(f"{self.model_name} is being unloaded; ask again in a moment")
            if len(self.waiting) + len(replies) > MAX_WAITING:
                raise Busy(f"{len(self.waiting)} requests are waiting for {self.model_name}; try again in a moment")
            if visitor and self.waiting.of(visitor) + len(replies) > MAX_WAITING_EACH:
                raise Busy(
                    f"{self.waiting.of(visitor)} of your requests are waiting for {self.model_name} already; "
                    "stop some of them, or ask again when they are answered"
                )
            for reply in replies:
                self.waiting.push(visitor, reply)
            self.wake.notify()

    def ask(self, adapter: str | None, ids: Sequence[int], labels: Sequence[int]) -> Future:
        """The mean loss of a row, once it has been its turn."""
        answer: Future = Future()
        with self.wake:
            self.used = time.monotonic()
            if self.failure or self.closing:
                raise PlaygroundError(self.failure or f"{self.model_name} is being unloaded; ask again in a moment")
            self.losses.append((answer, adapter, ids, labels))
            self.wake.notify()
        return answer

    def ahead(self, reply: Reply) -> int:
        with self.wake:
            return next((place for place, other in enumerate(self.waiting) if other is reply), 0)

    def close(self, sentence: str | None = None) -> None:
        with self.wake:
            self.closing, self.last_words = True, sentence
            self.wake.notify()
        if self.is_alive():
            self.join()

    def retire(self) -> bool:
        """Close if nobody is being answered; says whether."""
        with self.wake:
            # a row stays in the batch for a moment after its reply is done
            rows = [] if self.batch is None else self.batch.rows
            if (
                self.state == "loading"
                or len(self.waiting)
                or self.losses
                or not all(row.tag.reply.done for row in rows)
            ):
                return False
            self.closing = True
        self.close()
        return True

    def run(self) -> None:
        try:
            self._load()
        except PlaygroundError as error:
            self._fail(str(error))
            return
        except Exception as error:
            log.exception("loading %s failed", self.model_name)
            self._fail(f"{self.model_name} could not be loaded: {error}")
            return
        self.state = "ready"
        unit = self._cores().unit
        while True:
            with self.wake:
                self.wake.wait_for(lambda: self.closing or len(self.waiting) or self.losses or self.batch.rows)
                if self.closing:
                    break
                self.used = time.monotonic()
                self._drop_cancelled()
                joining = [self.waiting.pop() for _ in range(min(len(self.waiting), MAX_ROWS - len(self.batch.rows)))]
            self._work_out_a_loss()
            try:
                if joining:
                    self._admit(joining)
                elif self.batch.rows:
                    with unit(TOKEN_COST + len(self.batch.rows)):
                        tokens = self.batch.step()
                    self._deliver(tokens)
            except Exception as error:
                # one fault (out of memory, a device error) must not end the thread, nor leave anyone waiting
                log.exception("decoding on %s failed", self.model_name)
                for stream in [row.tag for row in self.batch.rows]:
                    stream.reply.finish("error", f"decoding failed: {error}")
                for reply in joining:
                    if not reply.done:
                        reply.finish("error", f"decoding failed: {error}")
                self.batch = self._new_batch()
        for reply in [*(row.tag.reply for row in self.batch.rows), *self.waiting]:
            if not reply.done:
                reply.finish("error" if self.last_words else "cancelled", self.last_words)
        self._refuse_losses(f"{self.model_name} was unloaded")
        self.batch = self.bank = self.loaded = self.prefixes = None

    def _work_out_a_loss(self) -> None:
        from playground.core.generation import row_loss

        if not self.losses:
            return
        answer, adapter, ids, labels = self.losses.popleft()
        try:
            answer.set_result(row_loss(self.bank, self._adapter(adapter), ids, labels))
        except Exception as error:
            # it is for whoever asked; the others go on
            log.exception("a row's loss on %s failed", self.model_name)
            answer.set_exception(error)

    def _refuse_losses(self, sentence: str) -> None:
        while self.losses:
            self.losses.popleft()[0].set_exception(PlaygroundError(sentence))

    @staticmethod
    def _cores() -> Cores:
        import torch

        return Cores(torch.set_num_threads)

    def _load(self) -> None:
        from playground.core import models
        from playground.core.adapters import AdapterBank
        from playground.core.generation import check_decodable
        from playground.core.prefixes import Prefixes

        with loading.TURN:
            self.loaded = models.load(self.folder, self.engine.dtype, "auto", self.engine.load_in_4bit)
        check_decodable(self.loaded.model)
        self.bank = AdapterBank(self.loaded.model, self.engine.fast_cpu and self.loaded.device.type == "cpu")
        self.size += self.bank.added
        self.prefixes = Prefixes()
        self.end_ids = _end_ids(self.loaded)
        self.batch = self._new_batch()

    def _drop_cancelled(self) -> None:
        for reply in [reply for reply in self.waiting if reply.cancelled]:
            self.waiting.remove(reply)
            reply.finish("cancelled")

    def _new_batch(self):
        from playground.core.generation import Batch

        return Batch(self.loaded.model, self.bank, self.prefixes)

    def _fail(self, sentence: str) -> None:
        with self.wake:
            self.state, self.failure = f"failed: {sentence}", sentence
            for reply in self.waiting:
                reply.finish("error", sentence)
            self.waiting.clear()
            self._refuse_losses(sentence)

    def _admit(self, replies: list[Reply]) -> None:
        from playground.core.generation import Row, Sampler

        rows = []
        for reply in replies:
            try:
                adapter = self._adapter(reply.lane.adapter)
                tokenizer = self.engine.tokenizer(reply.lane.model, reply.lane.adapter)
            except PlaygroundError as error:
                reply.finish("error", str(error))
                continue
            except Exception as error:  # such as a folder that goes while it is read: the others' rows go on
                log.exception("%s cannot be started", reply.lane.name)
                reply.finish("error", f"{reply.lane.name} could not be started: {error}")
                continue
            stream = Stream(reply, tokenizer, self.end_ids)
            sampler = Sampler(reply.lane.sampling, reply.prompt.ids)
            if reply.guide is not None:
                reply.guide.ends.update(self.end_ids)
            noted = {"alternatives": reply.lane.alternatives, "choices": reply.choices}
            rows.append(Row(reply.prompt.ids, adapter, sampler, stream, reply.guide, **noted))
        if rows:
            tokens = self.batch.add(rows)
            self._deliver([None] * (len(self.batch.rows) - len(rows)) + tokens)

    def _adapter(self, name: str | None) -> str | None:
        """The adapter's key in the bank, loaded if need be; a folder written again is loaded again."""
        if name is None or self.model_name == whole_name(name):
            return None
        info = self.engine.adapter(name)
        key = f"{name}@{(info.folder / 'adapter_model.safetensors').stat().st_mtime_ns}"
        if key not in self.bank.adapters:
            self.bank.load(key, info.folder)
            used = {row.adapter for row in self.batch.rows}
            for old in [old for old in self.bank.adapters if old.rpartition("@")[0] == name]:
                if old != key and old not in used:
                    self.bank.drop(old)
        return key

    def _deliver(self, tokens: list[int | None]) -> None:
        """Write down the token of each row (None: it was not stepped), and keep the rows that go on."""
        self.batch.keep(
            [i for i, (row, token) in enumerate(zip(self.batch.rows, tokens, strict=True)) if _goes_on(row, token)]
        )


class Stream:
    """Turns one row's tokens into text on its reply, and decides when the row is finished."""

    def __init__(self, reply: Reply, tokenizer: Tokenizer, end_ids: frozenset[int]):
        from playground.core.generation import StopWatcher

        self.reply = reply
        self.backend = tokenizer.backend
        self.end_ids = end_ids
        self.decode = _decode_stream()
        self.undecoded: list[int] = []  # tokens since the last text
        self.watcher = StopWatcher(reply.stops)

    def take(self, token: int | None) -> bool:
        """Add `token` (None: this row was not stepped); False when the row is finished."""
        reply = self.reply
        if reply.cancelled:
            reply.add(None, self.watcher.flush())
            reply.finish("cancelled")
            return False
        if token is None:
            return True
        if token in self.end_ids:
            reply.add(token, self.watcher.flush())
            reply.finish("stop")
            return False
        reply.add(token, self.watcher.feed(self._text(token)))
        if self.watcher.stopped:
            reply.finish("stop")
            return False
        if reply.guide is not None and (reply.guide.done or reply.guide.error):
            reply.add(None, self.watcher.flush())
            reply.finish("error" if reply.guide.error else "stop", reply.guide.error or None)
            return False
        if len(reply.ids) >= reply.lane.sampling.max_new_tokens:
            reply.add(None, self.watcher.flush())
            reply.finish("length")
            return False
        return True

    def _text(self, token: int) -> str:
        """The text that `token` completes, often none yet."""
        self.undecoded.append(token)
        try:
            text = self.decode.step(self.backend, token)
        except Exception as error:
            # Bytes that make no character turn what stood before them into "�" too, also what was given out; tokenizers
            # (0.23) then refuses to go on, with no other type than this: github.com/vllm-project/vllm/pull/19449
            if "Invalid prefix" not in str(error):
                raise
            self.decode = _decode_stream()
            text = "".join(self.decode.step(self.backend, one) or "" for one in self.undecoded)
        if text:
            self.undecoded.clear()
        return text or ""


def _decode_stream():
    from tokenizers.decoders import DecodeStream

    # special tokens stay visible: a lane shows exactly what its model wrote
    return DecodeStream(skip_special_tokens=False)


def _goes_on(row, token: int | None) -> bool:
    """Whether the row goes on after `token`; a fault in what is made of it ends this row alone."""
    reply = row.tag.reply
    if not row.finite:
        reply.finish("error", f"{reply.lane.name} no longer computes numbers (NaN, or infinite ones)")
        return False
    try:
        return row.tag.take(token)
    except Exception as error:
        log.exception("a reply of %s failed", reply.lane.name)
        reply.finish("error", f"decoding failed: {error}")
        return False


def whole_name(adapter: str | None) -> str:
    """The name of a full fine-tune's weights in the engine; no model and no adapter has a name like it."""
    return f"{adapter} (all weights)"


def weights_time(folder: Path) -> int:
    """When a model folder's weights were written."""
    return max((file.stat().st_mtime_ns for file in folder.glob("*.safetensors")), default=0)


def _end_ids(loaded) -> frozenset[int]:
    """End-of-text ids from the generation config, the model's config and the tokenizer."""
    ends = [loaded.tokenizer.eos_id]
    for config in (loaded.model.generation_config, loaded.model.config):
        given = getattr(config, "eos_token_id", None)
        ends += given if isinstance(given, list) else [given]
    return frozenset(end for end in ends if end is not None)
