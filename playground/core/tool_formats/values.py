"""What a tool format finds in a reply: calls, faults, and the text around them.

The names of the faults follow the Berkeley Function Calling Leaderboard's error types, so that a class can
look them up: https://gorilla.cs.berkeley.edu/leaderboard.html
"""

from dataclasses import dataclass, field

# kind → the name shown, and what it means to a reader.
FAULTS = {
    "malformed": ("malformed call", "The call could not be read."),
    "truncated": ("truncated call", "The reply ended in the middle of a call."),
    "wrong_function": ("wrong function", "The model asked for a tool that it was not given."),
    "missing_required": ("missing required argument", "An argument that the tool's schema requires is missing."),
    "unexpected_parameter": ("unexpected argument", "The tool's schema has no argument of this name."),
    "type_error": ("wrong type", "An argument has another type than the tool's schema asks for."),
    "value_error": ("wrong value", "An argument has a value that the tool's schema does not allow."),
    "tool_error": ("tool error", "The call was valid, and the tool could not answer it."),
}


@dataclass(frozen=True)
class Call:
    """A call as the model wrote it: read, not yet checked against a schema."""

    name: str
    arguments: dict
    raw: str = field(default="", compare=False)

    @property
    def message(self) -> dict:
        """The entry of a message's `tool_calls`."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class Fault:
    """What is wrong with a call. `reason` is one sentence that a reader and a model can both use."""

    kind: str
    reason: str
    raw: str = field(default="", compare=False)
    name: str = field(default="", compare=False)

    @property
    def title(self) -> str:
        return FAULTS[self.kind][0]

    @property
    def meaning(self) -> str:
        return FAULTS[self.kind][1]


@dataclass(frozen=True)
class Parsed:
    content: str
    reasoning: str = ""
    calls: tuple[Call | Fault, ...] = ()

    @property
    def valid(self) -> list[Call]:
        return [call for call in self.calls if isinstance(call, Call)]

    @property
    def faults(self) -> list[Fault]:
        return [call for call in self.calls if isinstance(call, Fault)]
