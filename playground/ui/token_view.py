"""A reply token by token: how likely the model held each one, and what else it might have said."""

import html
import math

import gradio as gr

from playground.errors import PlaygroundError
from playground.ui.common import QUIET, Services, whenever

CSS = """
.token-view {
  --doubtful: #d97706; position: relative;
  line-height: 2; overflow-wrap: anywhere; font-family: var(--font-mono); font-size: var(--text-sm);
}
.token-view b {
  font-weight: 400; padding: 1px 2px; margin: 0 1px; border-radius: 3px; white-space: pre-wrap; cursor: help;
  background: color-mix(in srgb, var(--doubtful) var(--doubt), transparent);
}
.token-view b:is(:hover, :focus) { outline: 2px solid var(--color-accent); }
/* what else it might have said: under the pointer, under a finger and for the keyboard; never wider than the view */
.token-view b:is(:hover, :focus)::after {
  content: attr(data-likely); position: absolute; left: 0; z-index: 20; margin-top: 1.9em; padding: 6px 10px;
  width: max-content; max-width: 100%; white-space: pre-wrap; line-height: 1.45; pointer-events: none;
  color: var(--body-text-color); background: var(--block-background-fill);
  border: 1px solid var(--color-accent); border-radius: var(--radius-md);
}
.token-view b:focus::after { z-index: 21; }
/* under the last line it stands out of the panel, which cuts nothing off */
#token-view, #token-view :has(.token-view) { overflow: visible !important; }
.token-view p { font-family: var(--font); color: var(--body-text-color-subdued); margin: 0 0 4px; }
"""
EMPTY = '<div class="token-view"><p>Ask something first: then each token of the reply stands here.</p></div>'
ABOUT = (
    "Each token of the reply; the darker, the less likely the model held it (before temperature and sampling)."
    " Point at one, or tap it, to see what else it might have said."
)


ELSEWHERE = '<div class="token-view"><p>A lane elsewhere does not say how likely its tokens were.</p></div>'


def build(services: Services, chat: gr.State, count: gr.Radio) -> None:
    """The view of one lane's last reply; `chat.replies` are those of the lanes, of which the page shows `count`."""
    with gr.Accordion("Token by token: how sure was the model?", open=False, elem_id="token-view") as panel:
        with gr.Row():
            lane = gr.Radio(_lanes(count.value), value=0, label="Lane", min_width=200)
            button = gr.Button("Show the last reply", size="sm", min_width=140)
        view = gr.HTML(EMPTY)

    def show(chat, index: int) -> str:
        return reply_html(services.engine, chat.replies[index])

    gr.on([panel.expand, button.click, lane.input], show, [chat, lane], view, **QUIET)
    whenever(shown_lanes, [count, lane], lane, [count.change])


def reply_html(engine, reply) -> str:
    """The view of a reply; a sentence where there is none, where its lane is elsewhere, or its adapter is gone."""
    if reply is None or not reply.text:
        return EMPTY
    if not reply.choices:
        return ELSEWHERE
    try:
        tokenizer = engine.tokenizer(reply.lane.model, reply.lane.adapter)
    except PlaygroundError as error:
        return f'<div class="token-view"><p>{html.escape(str(error))}</p></div>'
    return tokens_html(tokenizer, list(reply.choices))


def _lanes(count: int) -> list[tuple[str, int]]:
    return [(f"lane {index + 1}", index) for index in range(count)]


def shown_lanes(count: int, chosen: int | None):
    """The lanes to choose from; one that is no longer shown gives way to the first."""
    return gr.update(choices=_lanes(count), value=chosen if chosen is not None and chosen < count else 0)


def tokens_html(tokenizer, choices: list) -> str:
    """`choices`: `core.generation.Choice`s of a reply. Everything a model wrote is escaped."""
    if not choices:
        return EMPTY
    pieces = tokenizer.pieces([choice.token for choice in choices])
    chips = "".join(_chip(tokenizer, piece, choice) for piece, choice in zip(pieces, choices, strict=True))
    return f'<div class="token-view"><p>{ABOUT}</p>{_summary(choices)}{chips}</div>'


def _chip(tokenizer, piece: str, choice) -> str:
    names = tokenizer.pieces([token for token, _ in choice.likeliest])
    lines = [f"{percent(choice.probability)} {_visible(piece)}"]
    lines += [
        f"{'→' if token == choice.token else '  '} {percent(probability)} {_visible(name)}"
        for name, (token, probability) in zip(names, choice.likeliest, strict=True)
    ]
    lines.append(f"id {choice.token}")
    likely = html.escape("\n".join(lines)).replace("\n", "&#10;")
    doubt = round(100 * (1 - choice.probability) * 0.6)
    shown = html.escape(_visible(piece, in_text=True))
    return f'<b tabindex="0" data-likely="{likely}" style="--doubt:{doubt}%">{shown}</b>'


def _summary(choices: list) -> str:
    surprise = sum(-math.log(max(choice.probability, 1e-12)) for choice in choices) / len(choices)
    first = sum(choice.likeliest[0][0] == choice.token for choice in choices) / len(choices)
    return (
        f"<p>{len(choices)} tokens; {first:.0%} of them were the likeliest; perplexity of the reply "
        f"{math.exp(surprise):.2f}.</p>"
    )


def _visible(piece: str, in_text: bool = False) -> str:
    return piece.replace("\n", "↵\n" if in_text else "↵") if piece else "(nothing)"


def percent(probability: float) -> str:
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else "< 0.1 %"
