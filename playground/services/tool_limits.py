"""Bounds around any tool: a wall clock and a size, for tools that hang or answer with megabytes.

A thread cannot be ended from outside: a tool that hangs is left behind and answers nobody. Where too many hang, the
next call is refused at once.
"""

import json
import threading
from dataclasses import replace

from playground.core.tools import Tool, ToolError, picture, without_picture
from playground.core.tools.tool import PICTURE

SECONDS = 15.0
LONGEST = 64 * 2**10  # characters of a result as JSON
LONGEST_PICTURE = 2**20
HANGING = 16  # threads left behind before calls are refused


class ToolLimits:
    """Counts what hangs, for all tools of this process."""

    def __init__(self, seconds: float = SECONDS, longest: int = LONGEST, hanging: int = HANGING):
        self.seconds, self.longest = seconds, longest
        self._slots = threading.BoundedSemaphore(hanging)

    def bounded(self, tool: Tool, seconds: float | None = None) -> Tool:
        """The same tool, which answers within `seconds` and with at most `longest` characters."""
        deadline = self.seconds if seconds is None else seconds
        return replace(tool, run=lambda **arguments: self._run(tool, arguments, deadline))

    def _run(self, tool: Tool, arguments: dict, seconds: float) -> dict:
        if not self._slots.acquire(blocking=False):
            raise ToolError(f"{tool.name} was not run: too many calls are still waiting for an answer.")
        answer: list = []

        def work() -> None:
            try:
                answer.append((tool.run(**arguments), None))
            except BaseException as error:  # noqa: BLE001 - raised again where the tool was called
                answer.append((None, error))
            finally:
                self._slots.release()

        thread = threading.Thread(target=work, name=f"tool {tool.name}", daemon=True)
        thread.start()
        thread.join(seconds)
        if not answer:
            raise ToolError(f"{tool.name} gave no answer within {seconds:g} seconds.")
        value, error = answer[0]
        if error is not None:
            raise error
        return self._fitted(value if isinstance(value, dict) else {"result": value})

    def _fitted(self, value: dict) -> dict:
        shown, drawn = without_picture(value), picture(value)
        text = json.dumps(shown, ensure_ascii=False, default=str)
        if len(text) > self.longest:
            shown = {
                "cut": f"{len(text):,} characters, the first {self.longest:,} are here",
                "text": text[: self.longest],
            }
        if drawn is not None and len(drawn["svg"]) <= LONGEST_PICTURE:
            return {**shown, PICTURE: drawn}
        return shown
