"""A tool: what the model is told about it, and the function that runs."""

from collections.abc import Callable
from dataclasses import dataclass, field

# A key of a result under which a tool may put a picture for the reader: {"svg": text, "alt": text}. The model, which
# reads words, is not given it (see `result_text`).
PICTURE = "_picture"


class ToolError(Exception):
    """A sentence for the model (and the reader): why the tool has no answer."""


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    parameters: dict = field(hash=False)  # JSON schema of the arguments
    run: Callable[..., dict]  # raises ToolError; returns what json.dumps takes
    source: str = ""  # where it comes from, in words; "" for this app's and a visitor's own

    @property
    def schema(self) -> dict:
        """The OpenAI "function" shape that chat templates take."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }
