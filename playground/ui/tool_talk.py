"""A visitor's talk with models that call tools: the lanes, and one question on its way through each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

from playground.config import SamplingConfig
from playground.core import constrained, templates, tool_formats, toolloop
from playground.core.constrained import Constraint
from playground.core.messages import Conversation
from playground.core.tools import Tool
from playground.errors import PlaygroundError
from playground.services.engine import Lane
from playground.services.remote import FORMAT
from playground.services.turns import EngineTurn
from playground.ui.common import Services
from playground.ui.lanes import check_here
from playground.ui.tool_steps import Steps, bubble

# A call is copied word by word: the likeliest token each time, and no penalty on what was said before.
SAMPLING = SamplingConfig(temperature=0.0, repetition_penalty=1.0, max_new_tokens=200)
FALLBACK_TEMPLATE = "chatml-tools"  # for a model whose own template cannot speak of tools
AUTOMATIC = ""
FREE = ""
MODES = {FREE: "off", "valid": "valid calls", "must": "must call"}
LANES = 2


@dataclass
class Running:
    """One lane's way through a question."""

    lane: Lane
    format: ModuleType
    note: str
    conversation: Conversation  # up to the question
    tools: list[Tool]
    starts: tuple[int, ...] = (0,)  # where in the conversation each question stands
    shown: Steps = field(default_factory=lambda: Steps(SAMPLING.max_new_tokens))
    steps: list[toolloop.Event] = field(default_factory=list)
    events: object = None
    reply: object = None
    waiting: toolloop.Event | None = None  # for the visitor's yes or no
    answer: bool | None = None
    done: bool = False

    @property
    def prompts(self) -> list[toolloop.Event]:
        return [step for step in self.steps if step.kind == "prompt"]

    def advance(self) -> toolloop.Event | None:
        """The next event, or None at the end; a waiting call is answered with `answer`."""
        answer, self.answer, self.waiting = self.answer, None, None
        try:
            event = self.events.send(answer)
        except StopIteration:
            self.done = True
            return None
        if event.kind != "raw":
            self.steps.append(event)
        if event.kind == "ask":
            self.waiting = event
        self.shown.take(event)
        return event

    def close(self) -> None:
        """End it where it is; what is there stays."""
        self.done = True
        self.shown.finished()
        self.events.close()
        if self.reply is not None and self.reply.finish_reason is None:
            self.reply.cancel()


@dataclass
class LaneTalk:
    """One lane's conversation with a visitor."""

    messages: list[dict] = field(default_factory=list)  # what the model is sent next time, as far as it fits
    starts: tuple[int, ...] = ()  # where in them each question stands; a result may come as a user's message, too
    bubbles: list[dict] = field(default_factory=list)  # of the page, up to the last question
    running: Running | None = None  # the last question, also when it is done
    speeds: dict[str, tuple[float, float]] = field(default_factory=dict)  # mode → tokens/s, seconds per mask
    measured: tuple[str, str | None] = ("", None)  # the model and the adapter that have these speeds

    @property
    def busy(self) -> bool:
        return self.running is not None and not self.running.done

    @property
    def chat(self) -> list[dict]:
        """All bubbles, those of the last question too."""
        return [*self.bubbles, *(self.running.shown.bubbles if self.running else ())]

    def start(self, running: Running, said: str) -> None:
        self.bubbles = [*self.chat, bubble("user", said)]
        self.running = running

    def measure(self) -> None:
        """Keep how fast the reply that has just ended was."""
        reply = self.running.reply
        if not reply.tokens_per_second:
            return
        if self.measured != (reply.lane.model, reply.lane.adapter):
            self.measured, self.speeds = (reply.lane.model, reply.lane.adapter), {}
        mode = reply.lane.constraint.mode if reply.lane.constraint else FREE
        self.speeds[mode] = (reply.tokens_per_second, reply.mask_seconds_per_token)


@dataclass
class Talk:
    """What belongs to one visitor. Handlers change it in place, so that Stop reaches the reply being written."""

    visitor: str = field(default="", compare=False)  # tells visitors apart, and nothing else; from the first question
    lanes: list[LaneTalk] = field(default_factory=lambda: [LaneTalk() for _ in range(LANES)])
    driven: bool = False  # a handler is showing the lanes' steps
    cancelled: bool = False
    asked: int = 0  # how many questions; a cleared talk has another number, so an old loop sees that it is old

    @property
    def busy(self) -> bool:
        return any(lane.busy for lane in self.lanes)


def begin(
    services: Services,
    talk: Talk,
    running: Running,
    ask_first: Collection[str],
    steps: Sequence[toolloop.Event] = (),
) -> Running:
    """Start the loop and take its first event, the prompt; PlaygroundError where none can be made."""
    number, start = talk.asked, len(running.conversation.messages)

    def stopped() -> bool:
        return talk.cancelled or talk.asked != number

    def generate(conversation: Conversation) -> EngineTurn:
        lane = running.lane
        if lane.constraint and len(conversation.messages) > start:
            # Who had to call may answer once there is a result.
            lane = replace(lane, constraint=replace(lane.constraint, mode="valid"))
        short, left_out = services.engine.fitted(lane, conversation, running.starts)
        turn = EngineTurn(services.engine.reply(lane, short, running.format.STOPS, talk.visitor), str(left_out or ""))
        running.reply = turn.reply
        return turn

    running.events = toolloop.run(
        generate,
        running.conversation,
        running.tools,
        running.format,
        cancel=stopped,
        ask_first=ask_first,
        steps=steps,
    )
    running.steps = list(steps)
    running.advance()
    return running


def tool_lane(services: Services, model: str, adapter: str, template: str, mode: str = FREE):
    """The lane, the format in which it writes calls, and a note about the template where one is due.

    Automatic is the adapter's or the model's own template; one that cannot speak of tools gives way to chatml-tools.
    """
    engine = services.engine
    if engine.remotes.find(model) is not None:
        return Lane(model, sampling=SAMPLING), FORMAT, "a lane elsewhere; its calls are read as its server tells them"
    check_here(services, model)
    lane = Lane(model, adapter or None, template, SAMPLING)
    tokenizer = engine.tokenizer(model, lane.adapter)
    own = engine.template(lane)
    format = tool_formats.for_template(own, tokenizer)
    if format is not None:
        note = f"template {own.name}, calls in the {format.NAME} format"
    elif template != AUTOMATIC:
        fitting = [value for _, value in template_choices() if value not in (AUTOMATIC, "model")]
        raise PlaygroundError(
            f"no call format is known for the template {own.name}; choose {', '.join(fitting)}, or automatic"
        )
    else:
        lane = replace(lane, template=FALLBACK_TEMPLATE)
        format = tool_formats.for_template(engine.template(lane), tokenizer)
        own_words = f"the model's own template leaves tools out, so {FALLBACK_TEMPLATE} is used"
        note = f"{own_words}; calls in the {format.NAME} format"
    if mode == FREE:
        return lane, format, note
    reason = constrained.why_not(format)
    if reason:
        return lane, format, f"{note}. {reason} Calls are not held to the schemas"
    return replace(lane, constraint=Constraint(mode, format.NAME)), format, f"{note}, {MODES[mode]}"


def template_choices() -> list[tuple[str, str]]:
    """Templates that write calls in a format that can be read."""
    readable = [name for name in templates.names() if tool_formats.for_template(templates.load(name))]
    return [("Automatic", AUTOMATIC), *((name, name) for name in readable), ("The model's own", "model")]
