"""The exchanges of a chat, and a chat without its oldest ones: what a model is sent when the whole is too long for it.

An exchange is a user's message and all that answers it: replies, calls and their results. Whole exchanges are left
out, never a part of one; system messages stay, and so does the newest exchange.

What is left out grows in strides: cut to the last token, a chat would lose its first exchange anew at every turn, its
prompt would begin otherwise each time, and nothing of what was read before could be used again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from playground.core.messages import Conversation


@dataclass(frozen=True)
class LeftOut:
    """So many of the first exchanges are not in a prompt.

    `tokens`: by how much the prompt is shorter for it; None where the whole was too long to be made into one.
    `limit`: what it did not fit into; `reply`: how many of that limit's tokens are kept for the reply.
    """

    turns: int
    tokens: int | None
    limit: str
    reply: int = 0

    @property
    def briefly(self) -> str:
        """Without figures, which would tell one model from another."""
        return f"The conversation did not fit: its first {self._turns()} left out."

    def __str__(self) -> str:
        size = "" if self.tokens is None else f" ({self.tokens:,} token{'' if self.tokens == 1 else 's'})"
        kept = f", of which the reply may take {self.reply:,}" if self.reply else ""
        return f"The conversation did not fit into {self.limit}{kept}: its first {self._turns(size)} left out."

    def _turns(self, size: str = "") -> str:
        return f"turn{size} was" if self.turns == 1 else f"{self.turns:,} turns{size} were"


def starts(messages: Sequence[dict]) -> list[int]:
    """Where the exchanges begin: at each user's message, and at what else comes first after the system's."""
    spoken = [place for place, message in enumerate(messages) if message["role"] != "system"]
    return [place for place in spoken if messages[place]["role"] == "user" or place == spoken[0]]


def without(conversation: Conversation, places: Sequence[int], count: int) -> Conversation:
    """The conversation without the first `count` of the exchanges that begin at `places`."""
    if not count:
        return conversation
    messages, end = conversation.messages, places[count]
    system = [message for message in messages[:end] if message["role"] == "system"]
    return replace(conversation, messages=[*system, *messages[end:]])


def fewest(most: int, fits: Callable[[int], bool]) -> int:
    """The fewest exchanges to leave out so that the rest `fits`; `most` where it never does."""
    if most < 1 or fits(0):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def strided(most: int, over: float, stride: float, spared: Callable[[int], float]) -> int:
    """How many exchanges to leave out, at most `most`, of what is `over` its limit: so many that the size they take
    (`spared`, of the first ones) makes up whole strides. The number stays the same until the rest has grown by one.

    Where all that may go is less than that, as few as have to.
    """
    if over <= 0:
        return 0
    needed = math.ceil(over / stride) * stride
    needed = needed if spared(most) >= needed else over
    return fewest(most, lambda count: spared(count) >= needed)
