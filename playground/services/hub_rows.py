"""The first rows of a data set on the Hugging Face Hub, streamed by a process of its own.

The `datasets` library takes seconds to import and retries a silent server for minutes; a child can be ended at any
moment, and the app stays small. The child asks the Hub one quick question first, so that a machine without a network
gets its sentence at once.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from playground.config import PACKAGE
from playground.core.datasets.parquet import plain
from playground.errors import PlaygroundError
from playground.services.downloads import lines_of

HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
ANSWER_WITHIN = 5.0  # seconds for the Hub's first answer
SILENCE = 60.0  # seconds without a row before the stream counts as stalled


def stream(repo: str, config: str = "", split: str = "", count: int = 1000, cancel=None) -> Iterator[dict | None]:
    """The first `count` rows, and None at least every quarter second while there is nothing to give.

    Raises PlaygroundError with the reason where there is no such data set, configuration, split or network.
    """
    if not HUB_ID.fullmatch(repo):
        raise PlaygroundError(f"{repo!r} is no Hub data set; write owner/name, as in openai/gsm8k")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise PlaygroundError(f"the data set {repo} cannot be had: HF_HUB_OFFLINE is set")
    heard, wait = time.monotonic(), SILENCE
    command = [sys.executable, "-m", "playground.services.hub_rows", json.dumps([repo, config, split, count])]
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    try:
        for line in lines_of(command, cancel, {"PYTHONPATH": path, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}):
            message = _message(line)
            if "error" in message:
                raise PlaygroundError(message["error"])
            if message:
                heard = time.monotonic()
            elif time.monotonic() - heard > wait:
                raise PlaygroundError(f"the Hub sent no row of {repo} for {wait:.0f} s; try again, or upload a file")
            yield message.get("row")
    except subprocess.CalledProcessError as error:
        last = (error.output.strip().splitlines() or ["no message"])[-1]
        raise PlaygroundError(f"reading {repo} from the Hub ended with: {last[:300]}") from None


def _message(line: str | None) -> dict:
    """The child's JSON, or {} for what a library printed."""
    try:
        value = json.loads(line) if line and line.startswith("{") else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# In the child ---------------------------------------------------------------------------------------------------------


def ask(repo: str) -> None:
    """One quick question to the Hub. Raises PlaygroundError where it has no such data set or cannot be reached."""
    from huggingface_hub import HfApi, constants, errors

    page = f"{constants.ENDPOINT}/datasets/{repo}"
    try:
        HfApi().dataset_info(repo, timeout=ANSWER_WITHIN)
    except errors.GatedRepoError:
        raise PlaygroundError(f"{page} is gated: accept its terms there and run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise PlaygroundError(f"there is no data set {page}, or it is private") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise PlaygroundError(f"{page} answered with {status}") from None
    except Exception as error:  # noqa: BLE001 - each version of the client has its own exceptions
        reason = re.sub(r"\[Errno -?\d+\] ", "", str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise PlaygroundError(f"cannot reach {constants.ENDPOINT}: {reason[:200]}; upload a file instead") from None


def rows(repo: str, config: str, split: str, count: int, load=None, splits=None) -> Iterator[dict]:
    """The first rows as JSON values; without a split, of "train" or the first one there is."""
    if load is None:
        from datasets import get_dataset_split_names as splits
        from datasets import load_dataset as load
    try:
        if not split:
            found = splits(repo, config or None)
            split = "train" if "train" in found else found[0]
        table = load(repo, config or None, split=split, streaming=True)
        if hasattr(table, "decode"):
            table = table.decode(False)  # images and sounds stay bytes
        for _, row in zip(range(count), table, strict=False):
            values = {str(key): plain(value, top=True) for key, value in row.items()}
            yield {key: None if isinstance(value, bytes) else value for key, value in values.items()}
    except PlaygroundError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the library says becomes one sentence
        raise PlaygroundError(reason(repo, config, split, str(error) or type(error).__name__)) from None


def reason(repo: str, config: str, split: str, said: str) -> str:
    """What the library said, in one sentence with the choices that there are."""
    listed = re.search(r"\[[^\]]*\]", said)
    choices = ", ".join(re.findall(r"'([^']*)'", listed[0])) if listed else ""
    if "config" in said.lower() and choices:
        given = f"has no configuration {config!r}" if config else "needs a configuration"
        return f"{repo} {given}; choose {choices}"
    if "split" in said.lower() and choices:
        return f"{repo} has no split {split!r}; choose {choices}"
    if "script" in said.lower():
        return f"{repo} needs a loading script, which is code from the Hub and is not run; upload a file instead"
    return f"{repo} cannot be read: {said.strip().splitlines()[0][:200]}"


def _end_with_parent() -> None:
    while os.read(0, 4096):  # nothing is ever sent: this returns when the parent's end of the pipe closes
        pass
    os._exit(1)


def main(argv: list[str]) -> None:
    """Prints `{"row": …}` per row, or `{"error": …}`. Ends when its parent does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    repo, config, split, count = json.loads(argv[0])
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)  # the library takes a folder of the data set's name for the data set
        try:
            ask(repo)
            print(json.dumps({"stage": "asked"}), flush=True)
            for row in rows(repo, config, split, count):
                print(json.dumps({"row": row}), flush=True)
        except PlaygroundError as error:
            print(json.dumps({"error": str(error)}), flush=True)
        os.chdir("/")
    sys.stdout.flush()
    os._exit(0)  # the library's threads may wait for the network


if __name__ == "__main__":
    main(sys.argv[1:])
