"""Where a template is wrong, as HTML: line, column, message, and the line between its neighbours."""

import dataclasses
import html
import re

from playground.core.template_faults import Fault, fault_at
from playground.ui.lab.shared import first_upper

LONGEST = 120  # characters of a line that is shown around a fault

CSS = """
.own-fault {
  border: 1px solid var(--warn); border-radius: var(--radius-lg); padding: 10px 14px; margin: 0 0 10px;
  background: var(--block-background-fill); font-size: var(--text-md);
}
.own-fault p { margin: 0; color: var(--warn); overflow-wrap: anywhere; }
.own-fault p + p { color: var(--body-text-color-subdued); margin-top: 6px; font-size: var(--text-sm); }
.own-fault pre {
  margin: 8px 0 0; overflow-x: auto; font-family: var(--font-mono); font-size: var(--text-sm); line-height: 1.6;
  background: none; color: var(--body-text-color); padding: 0;
}
.own-fault .no { color: var(--body-text-color-subdued); user-select: none; }
.own-fault .here { border-left: 3px solid var(--warn); padding-left: 5px; font-weight: 600; }
.own-fault .other { padding-left: 8px; color: var(--body-text-color-subdued); }
.own-fault mark { background: var(--warn); color: var(--block-background-fill); border-radius: 2px; padding: 0 1px; }
"""


def failure(text: str, sentence: str) -> str:
    """An error of the rendering, with the line it names."""
    line = re.search(r"\bline (\d+)", sentence)
    if line is None:
        return f'<div class="own-fault" role="alert"><p>{html.escape(first_upper(sentence))}</p></div>'
    found = fault_at(text, int(line[1]), sentence)
    message = sentence.partition(f"line {line[1]}")[2].lstrip(", ").removeprefix("fails: ")
    return place(dataclasses.replace(found, message=message), text)


def place(found: Fault, text: str, note: str = "") -> str:
    """Line, column and message, and the line between its neighbours with the place marked."""
    lines = re.split(r"\r\n|\r|\n", text)
    width = len(str(found.line + 1))
    rows = []
    for number in range(max(1, found.line - 1), min(len(lines), found.line + 1) + 1):
        here = number == found.line
        body = marked(lines[number - 1], found.column) if here else html.escape(lines[number - 1][:LONGEST])
        kind = "here" if here else "other"
        rows.append(f'<span class="{kind}"><span class="no">{number:>{width}} </span>{body}</span>')
    said = f"<b>Line {found.line}, column {found.column}:</b> {html.escape(found.message)}"
    more = f"<p>{html.escape(note)}</p>" if note else ""
    source = "\n".join(rows)
    return f'<div class="own-fault" role="alert"><p>{said}</p><pre>{source}</pre>{more}</div>'


def marked(line: str, column: int) -> str:
    """The line with the word at `column` (from 1) marked; of a long line, what stands around it."""
    at = min(max(column - 1, 0), len(line))
    word = re.match(r"\w+|.", line[at:])
    end = at + (word.end() if word else 0)
    first, last = max(0, at - LONGEST // 2), min(len(line), end + LONGEST // 2)
    before = ("…" if first else "") + line[first:at]
    after = line[end:last] + ("…" if last < len(line) else "")
    return f"{html.escape(before)}<mark>{html.escape(line[at:end]) or '&nbsp;'}</mark>{html.escape(after)}"
