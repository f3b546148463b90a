"""Watch it learn: what the model in training answered to the probe prompts, evaluation by evaluation."""

import html

import gradio as gr

from playground.core.differences import differences

CSS = """
.answers :is(table, thead, tbody, tr) { border: 0 !important; }
.answers table { border-collapse: collapse; width: 100%; font-size: var(--text-sm); }
.answers td { padding: 4px 8px; border: 0 !important;
  border-top: 1px solid var(--border-color-primary) !important; vertical-align: top; }
.answers td:first-child { white-space: nowrap; color: var(--body-text-color-subdued); }
.answers td.prompt { white-space: normal; overflow-wrap: anywhere; width: min(14em, 38%); }
.answers pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono); }
.answers ins { text-decoration: none; background: #c9f0da; color: #0b3d24; border-radius: 2px; }
.answers del { background: #fbdcd9; color: #7c1d17; border-radius: 2px; }
.dark .answers ins { background: #0f4d31; color: #d3f7e3; }
.dark .answers del { background: #5b1b17; color: #ffd9d5; }
.answers { max-height: 26em; overflow-y: auto; }
.answers p { margin: 2px 0; font-size: var(--text-sm); overflow-wrap: anywhere; }
"""
NOTHING = "(nothing)"


def evaluations(events: list[dict]) -> list[tuple[int, dict[str, str]]]:
    """(step, answer by prompt) in order; after a resume the later answer counts.

    A "sample" holds one prompt and its text; an evaluation that asks several prompts writes one for each.
    """
    found: dict[int, dict[str, str]] = {}
    for event in events:
        if event["kind"] == "sample" and "step" in event:
            found.setdefault(event["step"], {})[str(event.get("prompt", ""))] = str(event.get("text", ""))
    return sorted(found.items())


def position(found: list, at: float | None, before: int) -> int:
    """The evaluation that is shown: the newest one, unless the slider was put back.

    `at` is where the slider stands, `before` how many evaluations there were when it was last set.
    """
    follows = at is None or before < 2 or at >= before - 1
    return len(found) - 1 if follows else min(int(at), len(found) - 1)


def slider(found: list, at: int) -> dict:
    """Update of the slider over the evaluations; there is nothing to choose from before the second."""
    return gr.update(maximum=max(1, len(found) - 1), value=max(0, at), visible=len(found) > 1)


def one_html(found: list[tuple[int, dict[str, str]]], at: int) -> str:
    """The answers at one evaluation, with what changed since the one before."""
    if not found:
        return ""
    at = min(max(0, int(at)), len(found) - 1)
    step, answers = found[at]
    earlier = found[at - 1][1] if at else {}
    rows = "".join(_row(step, prompt, text, earlier.get(prompt)) for prompt, text in answers.items())
    since = f"Changed since step {found[at - 1][0]:,}: added words are marked, lost words struck out." if at else (
        "Before it learned anything." if step == 0 else "Its first answer."
    )  # fmt: skip
    return f'<div class="answers"><p>Asked as it learns. {since}</p><table>{rows}</table></div>'


def _row(step: int, prompt: str, text: str, earlier: str | None) -> str:
    unchanged = earlier is not None and earlier.strip() == text.strip()
    body = html.escape(text.strip()) if earlier is None or unchanged else changes(earlier.strip(), text.strip())
    note = "<p>The same as before.</p>" if unchanged else ""
    return (
        f'<tr><td class="prompt">step {step:,}<br><b>{html.escape(prompt)}</b></td>'
        f"<td><pre>{body or NOTHING}</pre>{note}</td></tr>"
    )


def changes(before: str, after: str) -> str:
    """`after` as HTML, with what `before` had in its place."""
    out = ""
    for part in differences(before, after):
        if part.same:
            out += html.escape(part.right)
            continue
        out += f"<del>{html.escape(part.left)}</del>" if part.left else ""
        out += f"<ins>{html.escape(part.right)}</ins>" if part.right else ""
    return out


def list_html(found: list[tuple[int, dict[str, str]]]) -> str:
    """All answers, newest first."""
    if not found:
        return ""
    rows = ""
    for step, answers in reversed(found):
        for prompt, text in answers.items():
            asked = f"<br>{html.escape(prompt)}" if len(answers) > 1 else ""
            rows += f'<tr><td class="prompt">step {step:,}{asked}</td>'
            rows += f"<td><pre>{html.escape(text.strip()) or NOTHING}</pre></td></tr>"
    return f'<div class="answers"><table>{rows}</table></div>'
