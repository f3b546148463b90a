"""Blind battle: two hidden lanes answer the same question, and further ones; then a vote, then their names."""

import html
import math
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

import gradio as gr

from playground.config import SamplingConfig
from playground.core import battles
from playground.core.jsonl import printable
from playground.core.messages import Conversation
from playground.errors import Busy, PlaygroundError
from playground.services.votes import Battle, Refused, Side, Ticket
from playground.ui.arena import session
from playground.ui.arena.chat import MAX_CHARACTERS, TICK, answered, bubbles
from playground.ui.common import QUEUED, QUIET, Services, shown
from playground.ui.lanes import read_lane

OWN, BUILT_IN, SHARED = "My own question", "A built-in question", "The class's list"
ANY = "any"
CHOICES = {
    "left": "Left is better",
    "right": "Right is better",
    "tie": "Tie",
    "both bad": "Both bad",
}
FOLLOW_UP = "Vote below, or ask both a follow-up"
REASONS = {"stop": "finished", "length": "cut at the longest reply", "cancelled": "stopped"}

CSS = """
.battle-side { min-width: min(300px, 100%) !important; }
.battle-side .message { font-size: var(--text-md); overflow-wrap: anywhere; }
.battle-side .message .md { white-space: pre-wrap; }
/* gradio's bin, which would empty one side of a battle that waits for its vote */
.battle-side .icon-button-wrapper { display: none; }
.battle-line { font-size: var(--text-sm); color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.battle-reveal p { margin: 0 0 4px; overflow-wrap: anywhere; }
.battle-reveal .leak { color: #8a5300; }
.dark .battle-reveal .leak { color: #ffca7a; }
"""
# Keys 1 to 4, where nobody is writing; once per page, and only while the button can be pressed.
KEYS = """
if (!window.battleKeys) {
  window.battleKeys = true;
  const ids = {1: "battle-left", 2: "battle-right", 3: "battle-tie", 4: "battle-both"};
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const writing = "input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable=true]";
    if (event.target.closest?.(writing)) return;
    const button = ids[event.key] && document.getElementById(ids[event.key]);
    if (!button || button.disabled || button.offsetParent === null) return;
    event.preventDefault();
    button.click();
  });
}
"""
HELP = (
    '<div class="battle-line">Ask something: two lanes of the pool answer, and you do not see which. Say which is '
    "better (keys 1 left, 2 right, 3 tie, 4 both bad), or go on with them first; after the vote the names are shown."
    "</div>"
)


@dataclass
class Duel:
    """One visitor's battle. `tickets` holds the right to go on with it or to vote: whoever takes it out may use it."""

    visitor: str = field(default="", compare=False)  # tells visitors apart, and nothing else
    sides: tuple = ()  # the lanes, left and right
    sent: tuple[list[dict], list[dict]] = ([], [])  # the conversation of each, up to the newest question
    replies: tuple = ()  # to that question
    left_out: tuple = (None, None)  # of the conversations, where they did not fit: an exchanges.LeftOut
    leaks: tuple = ((), ())
    tickets: list[Ticket] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # prompts this visitor had before
    votes: int = 0

    @property
    def busy(self) -> bool:
        return any(not reply.done for reply in self.replies)

    @property
    def said(self) -> tuple[list[dict], list[dict]]:
        """The conversation of each with its newest reply, where it wrote one."""
        pairs = zip(self.sent, self.replies, strict=True)
        return tuple(
            [*sent, {"role": "assistant", "content": reply.text}] if reply.text else list(sent) for sent, reply in pairs
        )


@dataclass(frozen=True)
class View:
    """The components that handlers write to."""

    prompt: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    chats: tuple[gr.Chatbot, gr.Chatbot]
    lines: tuple[gr.HTML, gr.HTML]
    buttons: tuple[gr.Button, ...]
    skip: gr.Button
    reveal: gr.HTML
    line: gr.HTML

    @property
    def all(self) -> list:
        return [
            *(self.prompt, self.ask, self.stop, *self.chats, *self.lines),
            *(*self.buttons, self.skip, self.reveal, self.line),
        ]


def build(services: Services) -> View:
    duel = gr.State(Duel(), delete_callback=stop)
    gr.HTML(HELP, js_on_load=KEYS)
    line = gr.HTML(elem_id="battle-session")
    with gr.Row():
        source = gr.Radio([OWN, BUILT_IN, SHARED], value=OWN, label="Question", min_width=260, elem_id="battle-source")
        category = gr.Dropdown(
            [("any", ANY), *((name, name) for name in battles.prompt_sets())],
            value=ANY,
            label="Category",
            info="the leaderboard can show one category",
            min_width=160,
        )
    with gr.Row(elem_classes="ask"):
        prompt = gr.Textbox(
            label="Question for both",
            lines=1,  # of a field with more, gradio's Enter begins a line and does not send
            max_lines=8,
            placeholder=_placeholder(OWN),
            elem_id="battle-prompt",
            scale=6,
            min_width=280,
        )
        with gr.Column(scale=1, min_width=120):
            ask_button = gr.Button("Start battle", variant="primary", elem_id="battle-ask")
            stop_button = gr.Button("Stop", variant="stop", visible=False, elem_id="battle-stop")
    with gr.Row():
        chats, lines = zip(*(_side(title) for title in ("Left", "Right")), strict=True)
    with gr.Row():
        buttons = tuple(
            gr.Button(title, interactive=False, min_width=110, size="md", elem_id=f"battle-{choice.split()[0]}")
            for choice, title in CHOICES.items()
        )
        skip_button = gr.Button(
            "Skip, show the names", interactive=False, min_width=200, size="md", elem_id="battle-skip"
        )
    reveal = gr.HTML(elem_id="battle-reveal")
    session.build(services, line)
    view = View(prompt, ask_button, stop_button, chats, lines, buttons, skip_button, reveal, line)

    source.change(set_source, [duel, source], prompt, **QUIET)
    gr.on(
        [ask_button.click, prompt.submit],
        partial(shown(ask), services, view),
        [duel, source, category, prompt],
        view.all,
        **QUEUED,
    )
    stop_button.click(stop, duel, None, **QUIET)
    for button, choice in zip(buttons, CHOICES, strict=True):
        button.click(partial(shown(vote), services, view, choice), [duel, source], view.all, **QUEUED)
    skip_button.click(partial(shown(skip), services, view), [duel, source], view.all, **QUEUED)
    return view


def _side(title: str):
    with gr.Column(elem_classes="battle-side"):
        chat = gr.Chatbot(
            label=title,
            height=300,
            render_markdown=False,
            placeholder="The hidden lane answers here.",
            feedback_options=None,
            buttons=[],
        )
        return chat, gr.HTML()


def set_source(duel: Duel, source: str):
    """What the field for the question says; that of a follow-up stays as it is."""
    if duel.tickets or duel.busy:
        return gr.skip()
    return gr.update(interactive=source == OWN, value="", placeholder=_placeholder(source))


def _placeholder(source: str) -> str:
    if source == OWN:
        return "Ask two hidden lanes the same thing (Enter sends, Shift + Enter begins a line)"
    return "Drawn when the battle starts" + (" from the list the teacher has shared" if source == SHARED else "")


# --- handlers ---


def ask(services: Services, view: View, duel: Duel, source: str, category: str, prompt: str) -> Iterator[dict]:
    """Draw two lanes, ask both at once, store what they say; then the vote is open. Before it: ask both a follow-up."""
    if duel.busy:
        raise PlaygroundError("both lanes are still answering; wait, or press Stop")
    prompt = printable(prompt)
    if duel.tickets:
        yield from _go_on(services, view, duel, source, prompt)
        return
    seed = secrets.randbelow(2**31)
    category, prompt = _question(services, duel, source, category, prompt, seed)
    asked = [{"role": "user", "content": prompt}]
    duel.visitor = duel.visitor or uuid.uuid4().hex
    name = services.votes.session().name
    lanes, replies, left_out = _begun(services, duel, name, asked, seed)
    try:
        sides = [Side(lane.label, _settings(lane), asked) for lane in lanes]
        ticket = services.votes.start(Battle("blind", *sides, name, category))
    except BaseException:
        _cancel(replies)
        raise
    duel.sides, duel.sent, duel.replies, duel.leaks = lanes, (asked, asked), replies, ((), ())
    duel.left_out = left_out
    duel.asked.append(prompt)
    try:
        yield from _stream(services, view, duel)
    finally:
        _cancel(replies)  # also when the browser has gone
    yield _over(services, view, duel, ticket, source)


def _go_on(services: Services, view: View, duel: Duel, source: str, prompt: str) -> Iterator[dict]:
    """Ask both lanes a follow-up; where it fails, the vote is on what was there before."""
    if not (prompt or "").strip():
        raise PlaygroundError("this battle waits for your vote; vote, skip it, or write a follow-up for both lanes")
    _check_length(prompt)
    ticket = duel.tickets.pop()  # no vote while they answer
    before = duel.sent, duel.replies, duel.left_out
    went_on = False
    try:
        sent = tuple([*turns, {"role": "user", "content": prompt}] for turns in duel.said)
        replies, left_out = _replies(services, duel, duel.sides, sent)
        duel.sent, duel.replies, duel.left_out = sent, replies, left_out
        try:
            yield from _stream(services, view, duel)
        finally:
            _cancel(duel.replies)
        failed = next((str(reply.error) for reply in duel.replies if reply.error), None)
        if failed or all(not reply.text for reply in duel.replies):
            raise PlaygroundError(failed or "neither lane wrote anything")
        leaks = _leaks(services, duel)
        told = tuple(str(one or "") for one in duel.left_out)
        services.votes.go_on(ticket, sent, *(reply.text for reply in duel.replies), leaks, told)
        duel.leaks, went_on = leaks, True
    except PlaygroundError as error:
        why = _nameless(services, str(error), duel.sides)
        told = (
            f'<div class="notice failed"><p>The follow-up failed, the vote is without it: {html.escape(why)}</p></div>'
        )
    finally:
        if not went_on:
            duel.sent, duel.replies, duel.left_out = before
        duel.tickets.append(ticket)
    update = _votable(view) if went_on else {**_votable(view), view.prompt: gr.update(value=prompt, interactive=True)}
    if not went_on:
        chats = zip(view.chats, duel.sent, duel.replies, strict=True)
        update |= {view.reveal: told, **{chat: bubbles(turns, reply) for chat, turns, reply in chats}}
    yield update


def _replies(services: Services, duel: Duel, lanes: tuple, sent: tuple) -> tuple[tuple, tuple]:
    """The replies, and what is left out of each prompt."""
    engine = services.engine
    fitted = [engine.fitted(lane, Conversation(answered(turns), [])) for lane, turns in zip(lanes, sent, strict=True)]
    requests = [(lane, conversation) for lane, (conversation, _) in zip(lanes, fitted, strict=True)]
    return tuple(engine.replies(requests, visitor=duel.visitor)), tuple(left_out for _, left_out in fitted)


def _leaks(services: Services, duel: Duel) -> tuple:
    """What gives each side's name away, in any of its replies."""
    models = [name for lane in duel.sides for name in (lane.model, _model_there(services, lane))]
    words = battles.telltales(models, [lane.adapter or "" for lane in duel.sides])
    asked = _text(duel.sent[0], "user")
    return tuple(tuple(battles.leaks(_text(turns, "assistant"), words, asked)) for turns in duel.said)


def _text(turns: list[dict], role: str) -> str:
    return "\n".join(message["content"] for message in turns if message["role"] == role)


def _model_there(services: Services, lane) -> str:
    """What a lane elsewhere runs: its server's name on the page says nothing about that."""
    endpoint = services.engine.remotes.find(lane.model)
    return endpoint.model if endpoint else ""


def _nameless(services: Services, sentence: str, lanes: tuple) -> str:
    """A sentence of the engine without what names a lane: its battle still waits for a vote."""
    names = {lane.label for lane in lanes} | {lane.name for lane in lanes} | {lane.adapter or "" for lane in lanes}
    names |= {name for lane in lanes for name in (lane.model, _model_there(services, lane))}
    for name in sorted(filter(None, names), key=len, reverse=True):
        sentence = sentence.replace(name, "one of the lanes")
    return sentence


def _question(services: Services, duel: Duel, source: str, category: str, prompt: str, seed: int) -> tuple[str, str]:
    """(category, prompt) of the battle."""
    category = "" if category in (ANY, None) else category
    if source == SHARED:
        shared = services.votes.session().prompts
        if not shared:
            raise PlaygroundError("the class has no shared list yet; the teacher adds one below, or ask your own")
        return category, battles.draw(shared, duel.asked, seed)
    if source == BUILT_IN:
        sets = battles.prompt_sets()
        chosen = {text: name for name, texts in sets.items() if category in ("", name) for text in texts}
        drawn = battles.draw(list(chosen), duel.asked, seed)
        return chosen[drawn], drawn
    if not (prompt or "").strip():
        raise PlaygroundError("write a question first, or take a built-in one")
    _check_length(prompt)
    return category, prompt


def _check_length(prompt: str) -> None:
    if len(prompt) > MAX_CHARACTERS:
        raise PlaygroundError(
            f"a question may have at most {MAX_CHARACTERS:,} characters, this one has {len(prompt):,}; shorten it"
        )


def _pool(services: Services, seed: int) -> dict:
    """The lanes that may meet, by their labels."""
    lanes = [read_lane(services, key, SamplingConfig(seed=seed)) for key in session.pool_keys(services)]
    named = {lane.label: lane for lane in lanes}
    if len(named) < 2:
        raise PlaygroundError(
            f"a battle needs two lanes or more in the pool, there {'is' if len(named) == 1 else 'are'} {len(named)}; "
            "choose them under “For the teacher”, or get another model"
        )
    return named


def _begun(services: Services, duel: Duel, name: str, asked: list[dict], seed: int) -> tuple:
    """The two lanes drawn in the session `name`, left and right, their replies, and what is left out of each prompt.

    A pair that cannot start gives way to the next one: it has never met, and would be drawn for every battle.
    """
    lanes, met, refusal = _pool(services, seed), services.votes.met(name), None
    for _ in range(math.comb(len(lanes), 2)):
        labels = battles.pair(list(lanes), met, seed)
        pair = tuple(lanes[label] for label in labels)
        try:
            return pair, *_replies(services, duel, pair, (asked, asked))
        except Busy:
            raise
        except PlaygroundError as error:
            refusal, met[tuple(sorted(labels))] = refusal or error, math.inf
    raise refusal


def _settings(lane) -> dict:
    return {"model": lane.model, "adapter": lane.adapter, "template": lane.template, **asdict(lane.sampling)}


def _stream(services: Services, view: View, duel: Duel) -> Iterator[dict]:
    update = {
        view.prompt: gr.update(value=duel.sent[0][-1]["content"], interactive=False),
        view.ask: gr.update(visible=False),
        view.stop: gr.update(visible=True),
        view.reveal: "",
    }
    update |= {button: gr.update(interactive=False) for button in (*view.buttons, view.skip)}
    while True:
        done = not duel.busy  # read before the texts, so that the last text is never missed
        loading = any(services.engine.state(lane.model, lane.adapter).startswith("loading") for lane in duel.sides)
        for chat, line, turns, reply, left_out in zip(
            view.chats, view.lines, duel.sent, duel.replies, duel.left_out, strict=True
        ):
            update |= {chat: bubbles(turns, reply), line: _line(reply, loading, left_out)}
        yield update
        if done:
            return
        update = {}
        time.sleep(TICK)


def _line(reply, loading: bool = False, left_out=None) -> str:
    """How far a reply is, and that its lane was not sent all; no figures, which would tell the lanes apart."""
    if not reply.done:
        said = "writing …" if reply.text else "a model is being loaded …" if loading else "waiting …"
    else:
        said = "failed" if reply.error else REASONS.get(reply.finish_reason, str(reply.finish_reason))
        said += " · it wrote nothing" if not reply.text else ""
    note = f'<div class="battle-line left-out">{html.escape(left_out.briefly)}</div>' if left_out else ""
    return f'<div class="battle-line">{html.escape(said)}</div>{note}'


def _over(services: Services, view: View, duel: Duel, ticket: Ticket, source: str) -> dict:
    """The replies are there: store them and open the vote; without two of them there is none."""
    failed = [str(reply.error) for reply in duel.replies if reply.error]
    if failed or all(not reply.text for reply in duel.replies):
        return {**_ready(view, source), view.reveal: _failed(failed[0] if failed else "neither lane wrote anything")}
    duel.leaks = _leaks(services, duel)
    try:
        services.votes.finish(ticket, *(reply.text for reply in duel.replies), duel.leaks)
    except PlaygroundError as error:
        return {**_ready(view, source), view.reveal: _failed(str(error))}
    duel.tickets.append(ticket)
    return _votable(view)


def _votable(view: View) -> dict:
    """The vote is open, and so is the field for a follow-up."""
    return {
        view.prompt: gr.update(interactive=True, value="", placeholder=FOLLOW_UP),
        view.ask: gr.update(visible=True, value="Ask both"),
        view.stop: gr.update(visible=False),
        **{button: gr.update(interactive=True) for button in (*view.buttons, view.skip)},
    }


def _failed(why: str) -> str:
    return f'<div class="notice failed"><p>There is no vote on this battle: {html.escape(why)}</p></div>'


def _ready(view: View, source: str = OWN) -> dict:
    """A new battle can begin."""
    return {
        view.prompt: gr.update(interactive=source == OWN, value="", placeholder=_placeholder(source)),
        view.ask: gr.update(visible=True, value="Next battle"),
        view.stop: gr.update(visible=False),
        **{button: gr.update(interactive=False) for button in (*view.buttons, view.skip)},
    }


def vote(services: Services, view: View, choice: str, duel: Duel, source: str = OWN) -> dict:
    """Store the vote, then show the names. The second click of a double click finds no ticket and does nothing."""
    return _close(services, view, duel, source, choice)


def skip(services: Services, view: View, duel: Duel, source: str = OWN) -> dict:
    """Show the names without a vote; there is none afterwards."""
    return _close(services, view, duel, source, None)


def _close(services: Services, view: View, duel: Duel, source: str, choice: str | None) -> dict:
    try:
        ticket = duel.tickets.pop()
    except IndexError:
        if not duel.replies:
            raise PlaygroundError("there is nothing to vote on yet: start a battle first") from None
        return {view.reveal: gr.skip()}
    try:
        if choice is None:
            services.votes.reveal(ticket)
        else:
            services.votes.vote(ticket, choice)
    except Refused as error:
        return {**_ready(view, source), view.reveal: _failed(str(error))}
    except PlaygroundError:  # a locked database, say: the vote can be given again
        duel.tickets.append(ticket)
        raise
    duel.votes += choice is not None
    return {**_ready(view, source), view.reveal: revealed(duel, choice), view.line: session.where(services)}


def revealed(duel: Duel, choice: str | None) -> str:
    """Both names, the vote, and what gave a name away, as HTML."""
    rows = []
    for side, lane, leaks, left_out in zip(("Left", "Right"), duel.sides, duel.leaks, duel.left_out, strict=True):
        flag = f' <span class="leak">(it gave away: {html.escape(", ".join(leaks))})</span>' if leaks else ""
        note = f' <span class="left-out">{html.escape(str(left_out))}</span>' if left_out else ""
        rows.append(f"<p>{side} was <b>{html.escape(lane.label)}</b>{flag}{note}</p>")
    turns = _turns(duel.sent[0])
    on = f" It is on all {turns} turns." if turns > 1 else ""
    said = f"Your vote: {CHOICES[choice].lower()}.{on}" if choice else "You skipped this one; it has no vote."
    rows.append(f'<p class="battle-line">{said} Votes you gave: {duel.votes}</p>')
    return f'<div class="battle-reveal">{"".join(rows)}</div>'


def _turns(sent: list[dict]) -> int:
    return sum(message["role"] == "user" for message in sent)


def stop(duel: Duel) -> None:
    """End both replies; what they have written stays and can be voted on."""
    _cancel(duel.replies)


def _cancel(replies) -> None:
    for reply in replies:
        if not reply.done:
            reply.cancel()
