"""What in a tool's result imitates the marks of a chat template: a sign that somebody wrote it for the model.

Results are kept as text, and `unmarked` spells them so that neither a tokenizer nor a model reads a mark. The marks are
found for the reader, so that the page can point at the attempt.
"""

import html
import re
import unicodedata
from collections.abc import Iterable

# What opens or closes turns, results and calls in the templates and formats of this app.
TURN_MARKERS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "<|end|>", "<|start|>", "<|message|>"),
    *("<|channel|>", "<|call|>", "<|return|>", "<|endofprompt|>", "<|start_of_role|>", "<|end_of_role|>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "</s>"),
    *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[THINK]", "[/THINK]"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁outputs▁begin｜>"),
    *("<｜DSML｜function_calls>", "<seed:tool_call>", "<minimax:tool_call>", "<|tools_prefix|>"),
    *("<|turn>", "<turn|>", "<|tool_call>", "<|tool_response>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    *("<|role_sep|>", "<|message_sep|>"),
)
# Marks in brackets, which a list never looks like: in some templates they are letters and no token of their own, so
# that nothing but another spelling tells one in a result from a true one.
_BRACKETED = re.compile(
    r"\[(?=/?(?:(?i:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)"
    r"|TOOL_CONTENT|CALL_ID|ARGS|THINK|PREFIX|MIDDLE|SUFFIX|gMASK|UNUSED_TOKEN_\d+)\])"
)
LONGEST = 200_000  # characters that are looked through
_TURN = re.compile(r"^\s*(?:###\s*)?(system|user|human|assistant|observation|instruction)s?\s*:", re.I | re.M)


def markers_in(text: str, tokens: Iterable[str] = TURN_MARKERS) -> list[str]:
    """The tokens that stand in `text`, in order, each once; also in other case, as HTML entities, with full-width
    letters or with spaces put in. A line that begins like a turn ("System:") counts as that word."""
    plain = _plain(text[:LONGEST])
    packed = _packed(plain)
    found = []
    for token in dict.fromkeys(tokens):
        form = _packed(_plain(token))
        at = packed.find(form) if form else -1
        if at >= 0:
            found.append((at, token))
    turns = [(len(_packed(plain[: turn.start()])), turn[0].strip()) for turn in _TURN.finditer(plain)]
    return list(dict.fromkeys(token for _, token in sorted([*found, *turns])))


def unmarked(text: str) -> str:
    """JSON in which every mark is spelled with JSON's own escapes: it says the same, and imitates nothing."""
    return _BRACKETED.sub(r"\\u005b", text.replace("<", r"\u003c"))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", html.unescape(text)).replace("\u200b", "")


def _packed(text: str) -> str:
    return re.sub(r"\s+", "", text.casefold())
