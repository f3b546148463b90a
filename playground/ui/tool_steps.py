"""The steps of a tool loop as a page shows them: bubbles of a chat, and texts to copy."""

import base64
import html
import json
from collections.abc import Sequence

import gradio as gr

from playground.core import toolloop
from playground.core import tools as toolbox
from playground.core.tool_formats import Call, Fault
from playground.core.toolloop import Event
from playground.core.tools.markers import unmarked

LONGEST = 20_000  # characters of a step that the page is sent


def bubble(role: str, text: str, title: str = "", **metadata) -> dict:
    """A message for gr.Chatbot, which would obey HTML even with render_markdown off."""
    message = {"role": role, "content": _escaped(text)}
    if title:
        message["metadata"] = {"title": html.escape(title, quote=False), **metadata}
    return message


class Steps:
    """The bubbles of one question, the last of which may still grow."""

    def __init__(self, longest_reply: int):
        self.longest_reply = longest_reply  # tokens
        self.bubbles: list[dict] = []
        self.faults: list[str] = []
        self.outcome = ""

    def add(self, title: str, text: str, kind: str, duration: float | None = None) -> None:
        open_end = {"status": "pending"} if kind == "raw" else {"status": "done"}
        if kind in ("fault", "error"):
            open_end = {}  # stays unfolded
        timed = {} if duration is None else {"duration": duration}
        self.bubbles.append(bubble("assistant", text, title, **open_end, **timed))

    def take(self, event: Event) -> None:
        turn = f" (turn {event.turn})" if event.turn > 1 else ""
        match event.kind:
            case "prompt":
                self.add(f"The model writes{turn}", "…", "raw")
            case "raw":
                self.bubbles[-1]["content"] = _escaped(event.text)
            case "parsed":
                self._close_raw(event)
            case "call":
                self._call(event.call)
            case "verdict":
                self._verdict(event)
            case "result":
                self._result(event)
            case "returned":
                self._returned(event)
            case "answer":
                self.bubbles.append(bubble("assistant", event.text or "(the model wrote nothing)"))
                self.outcome = "answered"
            case "error":
                self.add("The reply failed", event.text, "error")
            case "stopped":
                self._stopped(event)

    def finished(self) -> list[dict]:
        """The bubbles, none of them still turning: a visitor may have left in the middle."""
        for message in self.bubbles:
            if message.get("metadata", {}).get("status") == "pending":
                message["metadata"]["status"] = "done"
        return self.bubbles

    def _close_raw(self, event: Event) -> None:
        message = self.bubbles[-1]
        message["content"] = _escaped(event.text or "(nothing)")
        message["metadata"]["status"] = "done"
        if event.parsed.reasoning:
            self.add("Reasoning", event.parsed.reasoning, "step")
        if event.parsed.calls and event.parsed.content:
            self.add("Said beside the call", event.parsed.content, "step")

    def _call(self, call: Call | Fault) -> None:
        if isinstance(call, Call):
            self.add(_short(f"Call: {written(call)}"), json.dumps(call.arguments, ensure_ascii=False, indent=2), "step")
        else:
            self.add("Call: could not be read", call.raw, "step")

    def _verdict(self, event: Event) -> None:
        if event.fault is None:
            self.add("Check: fits the tool's schema", "name, arguments and their types", "step")
        else:
            self._fault("Check", event.fault)

    def _result(self, event: Event) -> None:
        if event.fault is None:
            value = toolbox.without_picture(event.value)
            title = _short(f"Result: {json.dumps(value, ensure_ascii=False, default=str)}")
            self.add(title, step_text(event), "step", duration=round(event.seconds, 3))
            self._picture(event.value)
        elif event.fault.kind in ("tool_error", "declined", "cancelled"):
            self._fault("Result", event.fault)
        else:
            self.add("Not run: the fault goes back to the model", event.text, "step")
        if event.imitates:
            self.add("This result imitates a turn marker or a page", imitation_note(event.imitates), "fault")

    def _picture(self, value) -> None:
        picture = toolbox.picture(value)
        if picture is None:
            return
        # In an <img> an SVG is only a picture: no script in it runs and nothing in it is fetched.
        data = base64.b64encode(picture["svg"].encode()).decode()
        alt = html.escape(str(picture.get("alt") or "a picture"))
        image = gr.HTML(f'<img class="tools-picture" alt="{alt}" src="data:image/svg+xml;base64,{data}">', render=False)
        self.bubbles.append({"role": "assistant", "content": image})

    def _returned(self, event: Event) -> None:
        count = len(event.messages) - 1
        self.add(f"Back to the model: {count} result{'s' if count != 1 else ''}", step_text(event), "step")

    def _fault(self, where: str, fault: Fault) -> None:
        self.faults.append(fault.title)
        self.add(f"{where}: {fault.title}", f"{fault.meaning}\n{fault.reason}", "fault")

    def _stopped(self, event: Event) -> None:
        self.outcome = event.text
        hints = {
            "turns": f"A question gets at most {toolloop.MAX_TURNS} turns.",
            "loop": "The model has this result already. A model that was not trained on results often asks again.",
            "length": f"A reply gets at most {self.longest_reply} tokens.",
            "cancelled": "What was written until then is kept.",
        }
        if event.reason in hints:
            self.add(f"Ended: {event.text}", hints[event.reason], "error")


def imitation_note(imitates: str) -> str:
    """Why a marker in a result does no harm, as far as that is true."""
    spelled = unmarked(imitates)
    if spelled != imitates:
        sign, escape = ("<", "\\u003c") if "<" in imitates else ("[", "\\u005b")
        return (
            f"It holds {imitates!r}. It is shown as text, and each {sign} of it goes to the model as {escape}, "
            "so no turn can begin or end in it."
        )
    return (
        f"It holds {imitates!r}, which some templates use as a marker. To the model it is part of the result; "
        "a small model may believe it all the same."
    )


def written(call: Call) -> str:
    arguments = ", ".join(f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in call.arguments.items())
    return f"{call.name}({arguments})"


LABELS = {
    "prompt": "prompt",
    "parsed": "what the model wrote",
    "call": "call",
    "verdict": "check",
    "result": "result",
    "returned": "back to the model",
    "answer": "answer",
    "error": "why it failed",
}
IDS = " ids"


def choices(events: Sequence[Event]) -> list[tuple[str, str]]:
    """The steps that can be looked at: what they are called, and where in `events` they are (see `chosen`)."""
    found = []
    for position, event in enumerate(events):
        if event.kind not in LABELS:
            continue
        of = f" of {event.call.name or 'an unreadable call'}" if event.call is not None else ""
        found.append((f"turn {event.turn}: {LABELS[event.kind]}{of}", str(position)))
        if event.kind == "parsed" and event.ids:
            found.append((f"turn {event.turn}: the ids of its {len(event.ids)} tokens", f"{position}{IDS}"))
    return found


def chosen(events: Sequence[Event], choice: str | None) -> tuple[int | None, str]:
    """The position and the text of one of `choices`; None and nothing where the steps are other ones by now."""
    position = (choice or "").removesuffix(IDS)
    if not position.isdecimal() or int(position) >= len(events):
        return None, ""
    event = events[int(position)]
    return int(position), " ".join(map(str, event.ids)) if choice.endswith(IDS) else step_text(event)


def step_text(event: Event) -> str:
    """What a step holds, as it would be copied."""
    match event.kind:
        case "call":
            call = event.call
            if isinstance(call, Fault):
                return call.raw
            return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False, indent=2)
        case "verdict":
            return "fits the tool's schema" if event.fault is None else f"{event.fault.title}: {event.fault.reason}"
        case "result" if event.fault is None:
            value = toolbox.without_picture(event.value)
            return _cut(json.dumps(value, ensure_ascii=False, indent=2, default=str))
        case "returned":
            return "\n".join(message["content"] for message in event.messages[1:])
    return event.text


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n… {len(text) - LONGEST:,} more characters"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _short(text: str, longest: int = 90) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
