"""The running models: one decoding thread per base model, shared by every lane and visitor.

A lane is a model, an adapter (or none), a template and sampling settings. Lanes that share a base share one copy
of its weights and are decoded in one batch, which requests join and leave at any step; other bases run beside it.

    engine = Engine(sources, paths)
    lanes = [Lane("smollm2-135m-instruct"), Lane("smollm2-135m-instruct", adapter="tool-calling")]
    replies = engine.replies([(lane, conversation) for lane in lanes])
    while not all(reply.done for reply in replies): …   # reply.text grows by itself; nobody has to read it

torch is imported by the decoding threads, not by this module: a page can be up before the model is.
"""

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from playground.config import Paths, check
from playground.core.constrained import Guide, Vocabulary
from playground.core.cores import Cores
from playground.core.messages import Conversation, check_messages
from playground.core.models import AdapterInfo, check_adapter, read_adapter, weights_size
from playground.core.templates import Rendered, Template, render, stop_strings
from playground.core.tokenizer import Tokenizer
from playground.core.tool_formats import for_template
from playground.errors import PlaygroundError
from playground.services.fair import FairQueue
from playground.services.remote import FORMAT, RemoteReply, Remotes
from playground.services.replies import WORDS_FOR_REASON, Chunk, Lane, Reply
from playground.services.runs import adapters as adapter_folders
from playground.services.sources import Sources
from playground.services.templates import Templates

__all__ = ["WORDS_FOR_REASON", "Chunk", "Engine", "Lane", "Reply", "context_length", "with_seed"]
log = logging.getLogger(__name__)

MAX_ROWS = 16  # rows decoded together; more wait
MAX_WAITING = 64  # requests that may wait for a place on one model
MAX_WAITING_EACH = 16  # of one visitor
STEP_COST = 8  # a step takes as long as so many rows, whatever their number: the weights are read once
BUDGET_SHARE = 0.6  # of the memory, for weights
MAX_PROMPT_CHARACTERS = 50_000


class Engine:
    """The models in memory and the replies being written on them."""

    def __init__(
        self,
        sources: Sources,
        paths: Paths,
        load_in_4bit: bool = False,
        dtype: str = "auto",
        remotes: Remotes | None = None,
        budget: int = 0,
        fast_cpu: bool = False,
    ):
        """`budget` is how many bytes of weights may be loaded at once; 0: most of the machine's memory.

        `fast_cpu` decodes with 8-bit weights on a CPU (see `core.int8`); it says nothing on other devices.
        `load_in_4bit` holds the weights in NF4, which `fast_cpu` then leaves alone but for the output head.
        """
        self.sources = sources
        self.paths = paths
        self.templates = Templates(paths)
        self.load_in_4bit = load_in_4bit
        self.dtype = dtype
        self.fast_cpu = fast_cpu
        self.remotes = remotes or Remotes()
        self.budget = budget or int(BUDGET_SHARE * psutil.virtual_memory().total)
        self._decoders: dict[str, Decoder] = {}
        self._tokenizers: dict[Path, Tokenizer] = {}
        self._vocabularies: dict[Path, Vocabulary] = {}
        self._stops: dict[tuple[str, str], list[str]] = {}
        self._lock = threading.Lock()

    def warm(self, model: str) -> None:
        """Start loading `model` in the background. Raises PlaygroundError when it is not on this machine."""
        self._decoder(self.sources.entry(model).name)

    def state(self, model: str) -> str:
        """ "cold", "loading", "ready" or "failed: …"."""
        if self.remotes.find(model) is not None:
            return "ready"
        decoder = self._decoders.get(self.sources.entry(model).name)
        return decoder.state if decoder else "cold"

    def models(self) -> list[str]:
        """The models that are loaded or loading."""
        return list(self._decoders)

    def adapters(self) -> list[AdapterInfo]:
        """Every adapter on this machine, shipped ones first."""
        found = []
        for folder in adapter_folders(self.paths):
            try:
                found.append(read_adapter(folder))
            except PlaygroundError as error:
                log.warning("adapter left out: %s", error)
        return found

    def adapter(self, name: str) -> AdapterInfo:
        """The adapter called `name`, or PlaygroundError with the names there are."""
        known = self.adapters()
        for info in known:
            if info.name == name:
                return info
        there = ", ".join(info.name for info in known) or "none yet; finish a fine-tune to make one"
        raise PlaygroundError(f"there is no adapter called {name!r}; the adapters are: {there}")

    def folder(self, model: str) -> Path:
        """The model's folder on this machine; PlaygroundError says how to get it where it is not here."""
        folder = self.sources.find(model)
        if folder is None:
            raise PlaygroundError(
                f"{model} is not on this machine yet; fetch it in the app or with: playground models get {model}"
            )
        return folder

    def tokenizer(self, model: str) -> Tokenizer:
        """The model's tokenizer; needs its files, not its weights in memory."""
        folder = self.folder(model)
        if folder not in self._tokenizers:
            self._tokenizers[folder] = Tokenizer.load(folder)
        return self._tokenizers[folder]

    def template(self, lane: Lane) -> Template:
        """The template that `lane` renders with."""
        if not lane.template and lane.adapter:
            trained_with = self.adapter(lane.adapter).template
            if trained_with is not None:
                return trained_with
        tokenizer = self.tokenizer(lane.model)
        if not lane.template:
            return self.templates.load("model" if tokenizer.chat_template else "plain", tokenizer)
        return self.templates.load(lane.template, tokenizer)

    def prompt(self, lane: Lane, conversation: Conversation) -> Rendered:
        """The exact prompt that `lane` sends for `conversation`; of a lane elsewhere, the request it sends."""
        check(lane.sampling)
        check_messages(conversation.messages)
        if (endpoint := self.remotes.find(lane.model)) is not None:
            return RemoteReply(lane, endpoint, conversation).prompt
        length = sum(len(str(message.get("content") or "")) for message in conversation.messages)
        if length > MAX_PROMPT_CHARACTERS:
            raise PlaygroundError(
                f"the conversation has {length:,} characters; at most {MAX_PROMPT_CHARACTERS:,} can be sent"
            )
        folder = self.folder(lane.model)
        if lane.adapter:
            check_adapter(self.adapter(lane.adapter), lane.model, folder)
        tokenizer = self.tokenizer(lane.model)
        rendered = render(
            self.template(lane), conversation, tokenizer, add_generation_prompt=True, sanitize=lane.sanitize
        )
        context = context_length(folder)
        if not rendered.ids:
            raise PlaygroundError(f"the prompt of {lane.name} is empty; write something first")
        if len(rendered.ids) + lane.sampling.max_new_tokens > context:
            raise PlaygroundError(
                f"the prompt has {len(rendered.ids):,} tokens and the reply may take {lane.sampling.max_new_tokens:,}; "
                f"{lane.name} reads {context:,} at most: shorten the conversation, clear it, or ask for a shorter reply"
            )
        return rendered

    def tool_format(self, lane: Lane):
        """How `lane` writes tool calls (a module of `core.tool_formats`), or None where its template has none."""
        if self.remotes.find(lane.model) is not None:
            return FORMAT
        return for_template(self.template(lane), self.tokenizer(lane.model))

    def reply(self, lane: Lane, conversation: Conversation, stop: Sequence[str] = (), visitor: str = "") -> Reply:
        """Start one reply; see `replies`."""
        return self.replies([(lane, conversation)], stop, visitor)[0]

    def replies(
        self, asked: list[tuple[Lane, Conversation]], stop: Sequence[str] = (), visitor: str = ""
    ) -> list[Reply]:
        """Start one reply for each (lane, conversation); lanes on the same base are decoded in one batch.

        Where more wait than fit, `visitor`s (any text that tells them apart) take turns.

        Raises PlaygroundError, before anything runs, for a lane that cannot work: unknown model or adapter, a
        template that fails, a prompt past the context, a constraint without a grammar, or too many requests waiting.
        """
        by_model: dict[str, list[Reply]] = {}
        elsewhere, replies = [], []
        for lane, conversation in asked:
            if (endpoint := self.remotes.find(lane.model)) is not None:
                check(lane.sampling)
                check_messages(conversation.messages)
                elsewhere.append(RemoteReply(lane, endpoint, conversation, stop))
                replies.append(elsewhere[-1])
                continue
            prompt, stops = self.prompt(lane, conversation), [*stop, *self._stop_strings(lane)]
            reply = Reply(lane, prompt, stops, self._guide(lane, conversation, stops))
            by_model.setdefault(self.sources.entry(lane.model).name, []).append(reply)
            replies.append(reply)
        for model, together in by_model.items():
            self._decoder(model).submit(together, visitor)
        for reply in elsewhere:
            reply.start()
        return replies

    def ahead(self, reply: Reply) -> int:
        """How many requests are served before `reply` gets a place; 0 once it has one."""
        decoder = self._decoders.get(self.sources.entry(reply.lane.model).name) if reply.prompt.ids else None
        return decoder.ahead(reply) if decoder else 0

    def _guide(self, lane: Lane, conversation: Conversation, stops: Sequence[str]) -> Guide | None:
        """What holds the reply to the lane's constraint; None without one."""
        if lane.constraint is None:
            return None
        folder, tokenizer = self.folder(lane.model), self.tokenizer(lane.model)
        if folder not in self._vocabularies:
            self._vocabularies[folder] = Vocabulary(tokenizer)
        ends = {tokenizer.backend.token_to_id(stop) for stop in stops} - {None}
        return self._vocabularies[folder].guide(lane.constraint, conversation.tools, ends)

    def _stop_strings(self, lane: Lane) -> list[str]:
        """Where the lane's template ends a turn; found by rendering, so looked up once per template and model."""
        template = self.template(lane)
        key = (template.hash, lane.model)
        if key not in self._stops:
            self._stops[key] = stop_strings(template, self.tokenizer(lane.model))
        return self._stops[key]

    def unload(self, model: str) -> None:
        """End the model's replies and give its memory back."""
        with self._lock:
            decoder = self._decoders.pop(self.sources.entry(model).name, None)
        if decoder:
            decoder.close()

    def close(self) -> None:
        """End every reply and every decoding thread."""
        for model in self.models():
            self.unload(model)

    def _decoder(self, model: str) -> "Decoder":
        folder = self.folder(model)
        with self._lock:
            decoder = self._decoders.get(model)
            if decoder is None or decoder.failure:
                self._make_room(model, folder)
                decoder = self._decoders[model] = Decoder(self, model, folder)
                decoder.start()
            return decoder

    def _make_room(self, model: str, folder: Path) -> None:
        """Let go of models that nobody uses, the longest unused first, until this one fits the budget."""
        needed = weights_size(folder, self.load_in_4bit)
        loaded = {name: decoder for name, decoder in self._decoders.items() if not decoder.failure}
        held = sum(decoder.size for decoder in loaded.values())
        if needed > self.budget:
            raise PlaygroundError(
                f"{model} needs {needed / 2**30:.1f} GiB for its weights, more than the {self.budget / 2**30:.1f} GiB "
                "that models may take here; choose a smaller one"
            )
        for name, decoder in sorted(loaded.items(), key=lambda one: one[1].used):
            if held + needed <= self.budget:
                return
            if decoder.retire():
                held -= decoder.size
                del self._decoders[name]
        if held + needed > self.budget:
            raise PlaygroundError(
                f"{model} does not fit beside the models that are answering now ({held / 2**30:.1f} of "
                f"{self.budget / 2**30:.1f} GiB); try again when they are done"
            )


class Decoder(threading.Thread):
    """The thread that owns one base model, its adapters and its running batch."""

    def __init__(self, engine: Engine, name: str, folder: Path):
        super().__init__(name=f"decoder {name}", daemon=True)
        self.engine = engine
        self.model_name = name
        self.folder = folder
        self.state = "loading"
        self.failure: str | None = None
        self.waiting = FairQueue()
        self.closing = False
        self.wake = threading.Condition()
        self.size = weights_size(folder, engine.load_in_4bit)  # bytes
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
                raise PlaygroundError(f"{self.model_name} is being unloaded; ask again in a moment")
            if len(self.waiting) + len(replies) > MAX_WAITING:
                raise PlaygroundError(
                    f"{len(self.waiting)} requests are waiting for {self.model_name}; try again in a moment"
                )
            if visitor and self.waiting.of(visitor) + len(replies) > MAX_WAITING_EACH:
                raise PlaygroundError(
                    f"{self.waiting.of(visitor)} of your requests are waiting for {self.model_name} already; "
                    "stop some of them, or ask again when they are answered"
                )
            for reply in replies:
                self.waiting.push(visitor, reply)
            self.wake.notify()

    def ahead(self, reply: Reply) -> int:
        with self.wake:
            return next((place for place, other in enumerate(self.waiting) if other is reply), 0)

    def close(self) -> None:
        with self.wake:
            self.closing = True
            self.wake.notify()
        if self.is_alive():
            self.join()

    def retire(self) -> bool:
        """Close if nobody is being answered; says whether."""
        with self.wake:
            # a row stays in the batch for a moment after its reply is done
            rows = [] if self.batch is None else self.batch.rows
            if self.state == "loading" or len(self.waiting) or not all(row.tag.reply.done for row in rows):
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
                self.wake.wait_for(lambda: self.closing or len(self.waiting) or self.batch.rows)
                if self.closing:
                    break
                self.used = time.monotonic()
                self._drop_cancelled()
                joining = [self.waiting.pop() for _ in range(min(len(self.waiting), MAX_ROWS - len(self.batch.rows)))]
            try:
                if joining:
                    self._admit(joining)
                elif self.batch.rows:
                    streams = [row.tag for row in self.batch.rows]
                    with unit(STEP_COST + len(streams)):
                        tokens = self.batch.step()
                    self._deliver(streams, tokens)
            except Exception as error:
                # one fault (out of memory, a device error) must not end the thread, nor leave anyone waiting
                log.exception("decoding on %s failed", self.model_name)
                for stream in [row.tag for row in self.batch.rows]:
                    stream.reply.finish("error", f"decoding failed: {error}")
                for reply in joining:
                    if not reply.done:
                        reply.finish("error", f"decoding failed: {error}")
                self.batch = self._new_batch()
        for row in self.batch.rows:
            row.tag.reply.finish("cancelled")
        for reply in self.waiting:
            reply.finish("cancelled")
        self.batch = self.bank = self.loaded = self.prefixes = None

    @staticmethod
    def _cores() -> Cores:
        import torch

        return Cores(torch.set_num_threads)

    def _load(self) -> None:
        from playground.core import models
        from playground.core.adapters import AdapterBank
        from playground.core.generation import check_decodable
        from playground.core.prefixes import Prefixes

        self.loaded = models.load(self.folder, self.engine.dtype, "auto", self.engine.load_in_4bit)
        check_decodable(self.loaded.model)
        self.bank = AdapterBank(self.loaded.model, self.engine.fast_cpu and self.loaded.device.type == "cpu")
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

    def _admit(self, replies: list[Reply]) -> None:
        from playground.core.generation import Row, Sampler

        rows = []
        for reply in replies:
            try:
                adapter = self._adapter(reply.lane.adapter)
            except PlaygroundError as error:
                reply.finish("error", str(error))
                continue
            stream = Stream(reply, self.loaded.tokenizer, self.end_ids)
            sampler = Sampler(reply.lane.sampling, reply.prompt.ids)
            if reply.guide is not None:
                reply.guide.ends.update(self.end_ids)
            noted = {"alternatives": reply.lane.alternatives, "choices": reply.choices}
            rows.append(Row(reply.prompt.ids, adapter, sampler, stream, reply.guide, **noted))
        if rows:
            tokens = self.batch.add(rows)
            others = [row.tag for row in self.batch.rows[: -len(rows)]]
            self._deliver(others + [row.tag for row in rows], [None] * len(others) + tokens)

    def _adapter(self, name: str | None) -> str | None:
        """The adapter's key in the bank, loaded if need be; a folder written again is loaded again."""
        if name is None:
            return None
        info = self.engine.adapter(name)
        key = f"{name}@{(info.folder / 'adapter_model.safetensors').stat().st_mtime_ns}"
        if key not in self.bank.adapters:
            self.bank.load(key, info.folder)
        return key

    def _deliver(self, streams: list["Stream"], tokens: list[int | None]) -> None:
        self.batch.keep(
            [i for i, (stream, token) in enumerate(zip(streams, tokens, strict=True)) if stream.take(token)]
        )


class Stream:
    """Turns one row's tokens into text on its reply, and decides when the row is finished."""

    def __init__(self, reply: Reply, tokenizer: Tokenizer, end_ids: frozenset[int]):
        from tokenizers.decoders import DecodeStream

        from playground.core.generation import StopWatcher

        self.reply = reply
        self.backend = tokenizer.backend
        self.end_ids = end_ids
        # special tokens stay visible: a lane shows exactly what its model wrote
        self.decode = DecodeStream(skip_special_tokens=False)
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
        reply.add(token, self.watcher.feed(self.decode.step(self.backend, token) or ""))
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


def _end_ids(loaded) -> frozenset[int]:
    """End-of-text ids from the generation config, the model's config and the tokenizer."""
    ends = [loaded.tokenizer.eos_id]
    for config in (loaded.model.generation_config, loaded.model.config):
        given = getattr(config, "eos_token_id", None)
        ends += given if isinstance(given, list) else [given]
    return frozenset(end for end in ends if end is not None)


def context_length(folder: Path) -> int:
    """How many tokens the model reads at most, from its `config.json`."""
    config = json.loads((folder / "config.json").read_text())
    return config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings") or 2048


def with_seed(lane: Lane, seed: int) -> Lane:
    """The same lane with another random stream, for "regenerate"."""
    return replace(lane, sampling=replace(lane.sampling, seed=seed % 2**31))
