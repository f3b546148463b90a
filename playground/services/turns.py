"""What the engine writes, in the form that the tool loop takes."""

from collections.abc import Iterator


class EngineTurn:
    """A reply of the engine as the tool loop takes it."""

    def __init__(self, reply, left_out: str = ""):
        self.reply, self.left_out = reply, left_out
        self.prompt = reply.prompt.text

    @property
    def ids(self) -> list[int]:
        return self.reply.ids

    @property
    def finish_reason(self) -> str | None:
        return self.reply.finish_reason

    @property
    def error(self) -> str | None:
        return self.reply.error

    def __iter__(self) -> Iterator[str]:
        try:
            for chunk in self.reply:
                yield chunk.text
        finally:
            if self.reply.finish_reason is None:
                self.reply.cancel()
