"""A round as one HTML file to share: what each lane is, what it was sent, what it answered. Read-only, no scripts."""

import html
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import gradio as gr

from playground.core import exchanges
from playground.errors import PlaygroundError
from playground.ui.arena.chat import Chat
from playground.ui.common import QUEUED, shown

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; }}
main {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20em, 100%), 1fr)); gap: 1em; }}
section {{ border: 1px solid #8888; border-radius: 8px; padding: 0 1em 1em; min-width: 0; }}
h2 {{ font-size: 1em; overflow-wrap: anywhere; }} small {{ opacity: 0.75; overflow-wrap: anywhere; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 0.3em 0 1em; }}
pre.user {{ border-left: 4px solid #0f766e; padding-left: 0.6em; }}
.left-out {{ border-bottom: 2px dashed #b8860b; margin-bottom: 1em; }} .left-out > :not(p) {{ opacity: 0.7; }}
</style></head><body><h1>{title}</h1><p>Made on {when}. Replies of language models may be wrong.</p>
<main>{lanes}</main></body></html>
"""


def build(chat: gr.State) -> None:
    with gr.Row():
        make = gr.Button("Make a snapshot of this round", size="sm", elem_id="arena-snapshot", min_width=200)
        download = gr.DownloadButton("Download the snapshot (HTML)", visible=False, size="sm", min_width=200)
    make.click(shown(snapshot), chat, download, **QUEUED)


def snapshot(chat: Chat) -> Iterator[dict]:
    text = page(chat)
    with tempfile.TemporaryDirectory(prefix="snapshot-") as folder:  # gradio takes a copy of its own
        file = Path(folder) / f"lanes-{time.strftime('%Y%m%d-%H%M%S')}.html"
        file.write_text(text, encoding="utf-8")
        yield gr.update(value=str(file), visible=True)


def page(chat: Chat) -> str:
    """The round as an HTML document in which everything that was written is text. Raises PlaygroundError."""
    if chat.busy:
        raise PlaygroundError("the lanes are still answering; wait until they are finished, or stop them")
    lanes = [index for index, reply in enumerate(chat.replies) if reply is not None]
    if not lanes:
        raise PlaygroundError("there is nothing to keep yet: ask the lanes something first")
    when = time.strftime("%Y-%m-%d %H:%M")
    return PAGE.format(title="Lanes side by side", when=when, lanes="".join(_lane(chat, index) for index in lanes))


def _lane(chat: Chat, index: int) -> str:
    lane, reply = chat.lanes[index], chat.replies[index]
    settings = {"model": lane.model, "adapter": lane.adapter or "none", "template": lane.template or "automatic"}
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (settings | asdict(lane.sampling)).items())
    answer = [{"role": "assistant", "content": reply.text}] if reply.text else []
    if reply.error:
        answer.append({"role": "error", "content": str(reply.error)})
    asked, left_out = chat.asked[index], chat.left_out[index]
    sent = exchanges.starts(asked)[left_out.turns] if left_out else 0
    earlier = [turn for turn in asked[:sent] if turn["role"] != "system"]
    turns = _turns([turn for turn in asked[:sent] if turn["role"] == "system"])
    if left_out:
        turns += f'<div class="left-out">{_turns(earlier)}<p>{html.escape(str(left_out))}</p></div>'
    turns += _turns([*asked[sent:], *answer])
    speed = f"{reply.count} tokens, {reply.tokens_per_second:.1f} tokens/s"
    return (
        f"<section><h2>{html.escape(lane.label)}</h2>{turns}<small>{html.escape(speed)}<br>"
        f"{html.escape(told)}</small></section>"
    )


def _turns(messages: list[dict]) -> str:
    return "".join(
        f'<small>{html.escape(turn["role"])}</small><pre class="{"user" if turn["role"] == "user" else "other"}">'
        f"{html.escape(turn['content'])}</pre>"
        for turn in messages
    )
