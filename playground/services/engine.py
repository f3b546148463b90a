"""The running models: one decoding thread per base model, shared by every lane and visitor.

A lane is a model, an adapter (or none), a template and sampling settings. Lanes that share a base share one copy
of its weights and are decoded in one batch, which requests join and leave at any step; other bases run beside it, and
so does what a full fine-tune has made, which is named like an adapter and has weights of its own.

    engine = Engine(sources, paths)
    lanes = [Lane("smollm2-135m-instruct"), Lane("smollm2-135m-instruct", adapter="tool-calling")]
    replies = engine.replies([(lane, conversation) for lane in lanes])
    while not all(reply.done for reply in replies): …   # reply.text grows by itself; nobody has to read it

torch is imported by the decoding threads (services.decoder), not by this module: a page can be up before the model is.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import psutil

from playground.config import Paths, check
from playground.core import exchanges
from playground.core.constrained import Guide, Vocabulary
from playground.core.exchanges import LeftOut
from playground.core.messages import Conversation, check_messages
from playground.core.models import AdapterInfo, check_adapter, read_adapter, read_whole, weights_size
from playground.core.templates import Rendered, Template, render, stop_strings
from playground.core.tokenizer import Tokenizer
from playground.core.tool_formats import for_template
from playground.core.training.layers import context_length
from playground.errors import Busy, PlaygroundError, TooLong
from playground.services.decoder import Decoder, weights_time, whole_name
from playground.services.remote import FORMAT, RemoteReply, Remotes
from playground.services.replies import WORDS_FOR_REASON, Chunk, Lane, Reply
from playground.services.runs import adapters as adapter_folders
from playground.services.runs import alone, whole_models
from playground.services.sources import Sources
from playground.services.templates import Templates

__all__ = ["WORDS_FOR_REASON", "Chunk", "Engine", "Lane", "Reply", "with_seed"]
log = logging.getLogger(__name__)

CONTEXT = 2048  # tokens, of a model whose config.json does not say it
BUDGET_SHARE = 0.6  # of the memory, for weights
GRACE = 30.0  # seconds that replies get to end when their model makes way for a run
MAX_PROMPT_CHARACTERS = 50_000
STRIDE = 0.25  # of the room for a chat: so much is left out at once where it has outgrown it


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
        self._tokenizers: dict[tuple[Path, int], Tokenizer] = {}
        self._vocabularies: dict[Tokenizer, Vocabulary] = {}
        self._stops: dict[tuple[str, Tokenizer], list[str]] = {}
        self._lock = threading.Lock()

    def warm(self, model: str) -> None:
        """Start loading `model` in the background; while a run has the memory, the first question after it does that.

        Raises PlaygroundError when the model is not on this machine.
        """
        if not self.resting():
            self._decoder(self.sources.entry(model).name)

    def resting(self) -> str:
        """Why no model can be loaded now, in a sentence; "" where one can."""
        run = alone(self.paths)
        if run is None:
            return ""
        return (
            f"The chat's models have made way for the run {run.name}, which needs their memory; they load again at the "
            "first question after it has ended."
        )

    def make_way(self, run: str, grace: float = GRACE) -> threading.Thread:
        """Let go of every model, for a run of that name: of those that nobody uses at once, of the others when their
        replies are done, or after `grace` seconds. What is cut off then says so. Returns the thread that sees to it.
        """
        cut = f"stopped, because the model made way for the run {run}; ask again when the run has ended"
        with self._lock:
            asked = list(self._decoders.values())

        def see_to_it() -> None:
            deadline = time.monotonic() + grace
            while busy := [decoder for decoder in asked if decoder.is_alive() and not decoder.retire()]:
                if time.monotonic() >= deadline:
                    for decoder in busy:
                        decoder.close(cut)
                    break
                time.sleep(0.2)
            with self._lock:
                self._decoders = {name: one for name, one in self._decoders.items() if one not in asked}

        thread = threading.Thread(target=see_to_it, name=f"making way for {run}", daemon=True)
        thread.start()
        return thread

    def state(self, model: str, adapter: str | None = None) -> str:
        """ "cold", "loading", "ready" or "failed: …" of the weights that this model with this adapter needs.

        A name that is none is "cold": a lane elsewhere may be removed while it answers.
        """
        if self.remotes.find(model) is not None:
            return "ready"
        try:
            name = self.sources.entry(model).name
        except PlaygroundError:
            return "cold"
        decoder = self._decoders.get(whole_name(adapter)) or self._decoders.get(name)
        return decoder.state if decoder else "cold"

    def models(self) -> list[str]:
        """The models that are loaded or loading."""
        return list(self._decoders)

    def adapters(self) -> list[AdapterInfo]:
        """Every adapter on this machine, shipped ones first, then what full fine-tunes have made."""
        found = []
        for read, folders in ((read_adapter, adapter_folders), (read_whole, whole_models)):
            for folder in folders(self.paths):
                try:
                    found.append(read(folder))
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

    def tokenizer(self, model: str, adapter: str | None = None) -> Tokenizer:
        """The tokenizer of the model, or of an adapter that has its own; needs its files, not its weights in memory."""
        folder = (self.adapter(adapter).tokenizer if adapter else None) or self.folder(model)
        key = folder, (folder / "tokenizer.json").stat().st_mtime_ns  # a run that is resumed writes it again
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer.load(folder)
        return self._tokenizers[key]

    def template(self, lane: Lane) -> Template:
        """The template that `lane` renders with."""
        if not lane.template and lane.adapter:
            trained_with = self.adapter(lane.adapter).template
            if trained_with is not None:
                return trained_with
        tokenizer = self.tokenizer(lane.model, lane.adapter)
        if not lane.template:
            return self.templates.load("model" if tokenizer.chat_template else "plain", tokenizer)
        return self.templates.load(lane.template, tokenizer)

    def prompt(self, lane: Lane, conversation: Conversation) -> Rendered:
        """The exact prompt that `lane` sends for `conversation`; of a lane elsewhere, the request it sends."""
        check(lane.sampling)
        check_messages(conversation.messages)
        if (endpoint := self.remotes.find(lane.model)) is not None:
            return RemoteReply(lane, endpoint, conversation).prompt
        length = _characters(conversation)
        if length > MAX_PROMPT_CHARACTERS:
            raise TooLong(f"the conversation has {length:,} characters; at most {MAX_PROMPT_CHARACTERS:,} can be sent")
        context, before = self._context(lane)
        rendered = render(
            self.template(lane),
            conversation,
            self.tokenizer(lane.model, lane.adapter),
            add_generation_prompt=True,
            sanitize=lane.sanitize,
        )
        if not rendered.ids:
            raise PlaygroundError(f"the prompt of {lane.name} is empty; write something first")
        if before + len(rendered.ids) + lane.sampling.max_new_tokens > context:
            soft = f" after a soft prompt of {before:,}" if before else ""
            alone = len(exchanges.starts(conversation.messages)) == 1
            shorten = "the message" if alone else "the conversation, clear it"
            raise TooLong(
                f"the prompt has {len(rendered.ids):,} tokens{soft} and the reply may take "
                f"{lane.sampling.max_new_tokens:,}; {lane.name} reads {context:,} at most: shorten {shorten}, "
                "or ask for a shorter reply"
            )
        return rendered

    def _context(self, lane: Lane) -> tuple[int, int]:
        """How many tokens `lane` reads, and how many of them its soft prompt takes."""
        folder, before = self.folder(lane.model), 0
        if lane.adapter:
            check_adapter(info := self.adapter(lane.adapter), lane.model, folder)
            before = info.soft[0]
        return context_length(folder) or CONTEXT, before

    def fitted(
        self, lane: Lane, conversation: Conversation, starts: Sequence[int] | None = None
    ) -> tuple[Conversation, LeftOut | None]:
        """A chat as `lane` can be sent it: the whole, or without its oldest exchanges; and what is left out.

        That is a little more than has to be (see `core.exchanges`), so that the next turns' prompts begin alike.
        `starts`: where the exchanges begin, where not every user's message begins one. A newest exchange that does not
        fit alone is refused as soon as it is asked (see `prompt`), and a lane elsewhere is left to its server.
        """
        check(lane.sampling)
        check_messages(conversation.messages)
        if self.remotes.find(lane.model) is not None:
            return conversation, None
        places = exchanges.starts(conversation.messages) if starts is None else list(starts)
        (context, before), reply = self._context(lane), lane.sampling.max_new_tokens
        template, tokenizer = self.template(lane), self.tokenizer(lane.model, lane.adapter)
        short = partial(exchanges.without, conversation, places)

        @cache
        def tokens(count: int) -> int:
            options = {"add_generation_prompt": True, "sanitize": lane.sanitize, "spans": False, "masks": False}
            return len(render(template, short(count), tokenizer, **options).ids)

        def characters(count: int) -> int:
            return _characters(short(count))

        most, room = len(places) - 1, context - before - reply
        if most < 1:
            return conversation, None
        whole = characters(0)  # a prompt of any length is not made only to count its tokens
        far = whole - MAX_PROMPT_CHARACTERS
        sent = exchanges.strided(most, far, STRIDE * MAX_PROMPT_CHARACTERS, lambda n: whole - characters(n))
        over = tokens(sent) - room if characters(sent) <= MAX_PROMPT_CHARACTERS else 0
        count = exchanges.strided(most, over, max(1, STRIDE * room), lambda n: tokens(sent) - tokens(max(n, sent)))
        count = max(count, sent)
        if not count:
            return conversation, None
        if count == sent:
            return short(count), LeftOut(count, None, f"{MAX_PROMPT_CHARACTERS:,} characters")
        spared = None if sent else tokens(0) - tokens(count)
        return short(count), LeftOut(count, spared, f"{context:,} tokens", reply)

    def tool_format(self, lane: Lane):
        """How `lane` writes tool calls (a module of `core.tool_formats`), or None where its template has none."""
        if self.remotes.find(lane.model) is not None:
            return FORMAT
        return for_template(self.template(lane), self.tokenizer(lane.model, lane.adapter))

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
        by_weights: dict[tuple[str, Path], list[Reply]] = {}
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
            weights = self._weights(lane)
            reply.weights = weights[0]
            by_weights.setdefault(weights, []).append(reply)
            replies.append(reply)
        if by_weights and (sentence := self.resting()):
            raise Busy(sentence)
        try:
            for weights, together in by_weights.items():
                self._decoder(*weights).submit(together, visitor)
        except BaseException:
            for reply in replies:  # nobody will read those that another model has begun
                reply.cancel()
            raise
        for reply in elsewhere:
            reply.start()
        return replies

    def continued(self, lane: Lane, ids: list[int], stops: Sequence[str], visitor: str = "") -> Reply:
        """Start one reply to a prompt of token ids, such as a row's own; else as `replies`."""
        tokenizer = self.tokenizer(lane.model, lane.adapter)
        reply = Reply(lane, Rendered(tokenizer.decode(ids), [], "none", ids), stops)
        weights = self._weights(lane)
        reply.weights = weights[0]
        self._awake(weights).submit([reply], visitor)
        return reply

    def row_loss(self, lane: Lane, ids: Sequence[int], labels: Sequence[int]) -> float:
        """Mean loss of a row over its labels with the lane's weights; waits for its turn between others' tokens."""
        return self._awake(self._weights(lane)).ask(lane.adapter, ids, labels).result()

    def _awake(self, weights: tuple[str, Path]) -> Decoder:
        if sentence := self.resting():
            raise Busy(sentence)
        return self._decoder(*weights)

    def ahead(self, reply: Reply) -> int:
        """How many requests are served before `reply` gets a place; 0 once it has one."""
        decoder = self._decoders.get(reply.weights) if reply.prompt.ids else None
        return decoder.ahead(reply) if decoder else 0

    def _weights(self, lane: Lane) -> tuple[str, Path]:
        """Name and folder of the weights that `lane` is decoded with: its model's, or those of a full fine-tune."""
        if lane.adapter and (info := self.adapter(lane.adapter)).whole:
            return whole_name(lane.adapter), info.folder
        return self.sources.entry(lane.model).name, self.folder(lane.model)

    def _guide(self, lane: Lane, conversation: Conversation, stops: Sequence[str]) -> Guide | None:
        """What holds the reply to the lane's constraint; None without one."""
        if lane.constraint is None:
            return None
        tokenizer = self.tokenizer(lane.model, lane.adapter)
        if tokenizer not in self._vocabularies:
            self._vocabularies[tokenizer] = Vocabulary(tokenizer)
        ends = {tokenizer.backend.token_to_id(stop) for stop in stops} - {None}
        return self._vocabularies[tokenizer].guide(lane.constraint, conversation.tools, ends)

    def _stop_strings(self, lane: Lane) -> list[str]:
        """Where the lane's template ends a turn; found by rendering, so looked up once per template and model."""
        template, tokenizer = self.template(lane), self.tokenizer(lane.model, lane.adapter)
        key = (template.hash, tokenizer)
        if key not in self._stops:
            self._stops[key] = stop_strings(template, tokenizer)
        return self._stops[key]

    def unload(self, model: str) -> None:
        """End the replies of a model, by its name or as `models` lists it, and give its memory back."""
        with self._lock:
            name = model if model in self._decoders else self.sources.entry(model).name
            decoder = self._decoders.pop(name, None)
        if decoder:
            decoder.close()

    def close(self) -> None:
        """End every reply and every decoding thread."""
        for model in self.models():
            self.unload(model)

    def _decoder(self, name: str, folder: Path | None = None) -> Decoder:
        folder = folder or self.folder(name)
        with self._lock:
            decoder = self._decoders.get(name)
            if decoder and not decoder.failure and (decoder.folder, decoder.written) != (folder, weights_time(folder)):
                # a run that was resumed, or another one of that name
                if not decoder.retire():
                    raise Busy(f"{name} is answering with its older weights; ask again when it is done")
                del self._decoders[name]
                decoder = None
            if decoder is None or decoder.failure:
                self._make_room(name, folder)
                decoder = self._decoders[name] = Decoder(self, name, folder)
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
            raise Busy(
                f"{model} does not fit beside the models that are answering now ({held / 2**30:.1f} of "
                f"{self.budget / 2**30:.1f} GiB); try again when they are done"
            )


def _characters(conversation: Conversation) -> int:
    return sum(len(str(message.get("content") or "")) for message in conversation.messages)


def with_seed(lane: Lane, seed: int) -> Lane:
    """The same lane with another random stream, for "regenerate"."""
    return replace(lane, sampling=replace(lane.sampling, seed=seed % 2**31))
