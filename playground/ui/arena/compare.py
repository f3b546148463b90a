"""What differs between the last replies of two lanes, word by word."""

import html

import gradio as gr

from playground.core.differences import differences, shared_share
from playground.ui.arena.chat import Chat
from playground.ui.common import QUIET

MOST = 20_000  # characters of each reply that are compared

CSS = """
.reply-difference { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6; }
.reply-difference del { background: color-mix(in srgb, #d1453b 25%, transparent); text-decoration: line-through; }
.reply-difference ins { background: color-mix(in srgb, #0f9d6b 25%, transparent); text-decoration: underline; }
.reply-difference p { color: var(--body-text-color-subdued); font-size: var(--text-sm); margin: 0 0 6px; }
"""
EMPTY = '<div class="reply-difference"><p>{}</p></div>'


def build(chat: gr.State, left: gr.Dropdown, right: gr.Dropdown) -> None:
    """`left` and `right` are the lanes that the vote compares, too."""
    with gr.Accordion("What differs between the two replies", open=False) as panel:
        gr.HTML("<div>Compares the last replies of the lanes chosen as Left and Right above.</div>")
        button = gr.Button("Compare", size="sm", elem_id="arena-compare")
        view = gr.HTML(elem_id="arena-difference")
    gr.on([panel.expand, button.click, left.input, right.input], compare, [chat, left, right], view, **QUIET)


def compare(chat: Chat, left: int, right: int) -> str:
    """The difference as HTML, or a sentence that says why there is none yet."""
    replies = [chat.replies[index] for index in (left, right)]
    if left == right:
        return EMPTY.format("Choose two different lanes as Left and Right.")
    if None in replies or not all(reply.text for reply in replies):
        return EMPTY.format("Ask the lanes something first; when both have answered, their replies are compared here.")
    found = differences(*(reply.text[:MOST] for reply in replies))
    body = "".join(_part(*stretch) for stretch in found)
    words = (
        f"Struck out: only lane {left + 1}. Underlined: only lane {right + 1}. "
        f"{shared_share(found):.0%} of the longer reply is the same."
    )
    return f'<div class="reply-difference"><p>{words}</p>{body}</div>'


def _part(left: str, right: str) -> str:
    if left == right:
        return html.escape(left)
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for tag, text in (("del", left), ("ins", right)) if text)
