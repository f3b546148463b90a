"""The chat templates that every tab offers: built-in, saved by visitors, the model's own, and a published library.

A key says which: a built-in name, "model", "mine:NAME" (a file of the templates folder), "library:FILE" (a file of the
library), or, on the command line, the path of a `.jinja` file. Files appear whole or not at all, and never over
another unless that is asked for.
"""

import os
import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from playground.config import PACKAGE, Paths
from playground.core import sandbox, templates
from playground.core.messages import load_json
from playground.core.templates import Template
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from playground.services.hub_rows import HUB_ID

MINE, LIBRARY = "mine:", "library:"
SUFFIXES = (".jinja", ".jinja2", ".j2")
MAX_BYTES = 200_000  # of one template
MAX_JSON_BYTES = 50_000_000  # of a tokenizer_config.json, which may hold thousands of added tokens
MAX_SAVED = 1_000
ANSWER_WITHIN = 10.0  # seconds for each file of the Hub
FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")  # the first that has one is taken


class Templates:
    """`library` is a folder of published templates; None: PLAYGROUND_TEMPLATES, else the shared folder if present."""

    def __init__(self, paths: Paths, library: Path | None = None):
        self._folder = paths.templates
        self._library = library if library is not None else default_library()
        self._lock = threading.Lock()

    # What there is ----------------------------------------------------------------------------------------------------

    def choices(self) -> list[tuple[str, str]]:
        """(label, key) of all templates but those named by path."""
        built_in = [(templates.load(name).title, name) for name in templates.names()]
        mine = [(f"mine: {name}", MINE + name) for name in self.mine()]
        library = [(f"published: {name.removesuffix('.jinja')}", LIBRARY + name) for name in self.library()]
        return [*built_in, *mine, ("The model's own", templates.MODEL), *library]

    def mine(self) -> list[str]:
        """Names of the saved templates."""
        try:
            found = [entry.name for entry in os.scandir(self._folder) if entry.is_file() and entry.name[0] != "."]
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(".jinja") for name in found if name.endswith(".jinja"))

    def library(self) -> list[str]:
        """The library's files, relative to its folder."""
        if self._library is None or not self._library.is_dir():
            return []
        return sorted(file.relative_to(self._library).as_posix() for file in self._library.rglob("*.jinja"))

    def load(self, key: str, tokenizer: Tokenizer | None = None) -> Template:
        """The template of a key. Raises PlaygroundError where there is none."""
        key = str(key)
        if key.startswith(MINE):
            name = key.removeprefix(MINE)
            return Template(name, read(self._file(name)), name, "Saved here.", source="mine")
        if key.startswith(LIBRARY):
            return self._published(key.removeprefix(LIBRARY))
        if Path(key).suffix in SUFFIXES:
            _refuse_paths_on_a_space()
        elif key != templates.MODEL and key not in templates.names():
            raise PlaygroundError(f"there is no template {key!r}; choose one of the list, or name a .jinja file")
        return templates.load(key, tokenizer)

    def _published(self, name: str) -> Template:
        if name not in self.library():
            raise PlaygroundError(f"the library of published templates has no {name!r}")
        stem = Path(name).stem
        return Template(stem, read(self._library / name), stem, f"Published: {name}", source=LIBRARY + name)

    def _file(self, name: str) -> Path:
        if name not in self.mine():
            raise PlaygroundError(f"there is no saved template {name!r}; it may have been deleted")
        return self._folder / f"{name}.jinja"

    # Keeping ----------------------------------------------------------------------------------------------------------

    def save(self, name: str, text: str, overwrite: bool = False) -> str:
        """Keep a template under a name and return its key. Raises PlaygroundError where it cannot be compiled."""
        name = safe_name(name)
        check(text)
        return MINE + self._write(name, text, overwrite)

    def remove(self, key: str) -> None:
        """Delete a saved template."""
        if not key.startswith(MINE):
            raise PlaygroundError(f"{key!r} is not a template that was saved here, so it cannot be deleted")
        self._file(key.removeprefix(MINE)).unlink(missing_ok=True)

    def add_file(self, path: Path, name: str = "") -> list[str]:
        """Keep the template or templates in a file and return their keys; what is saved already is not saved twice."""
        path = Path(path)
        found = templates_in(path)
        if not found:
            raise PlaygroundError(f"{path.name} holds no chat template")
        return self._add(name or path.stem, found)

    def add_folder(self, path: Path) -> list[str]:
        """Keep the template or templates of a model folder on this machine. Refused on a public Space."""
        _refuse_paths_on_a_space()
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise PlaygroundError(f"there is no folder {folder}; name the folder of a model, or its Hub id")
        for file in FILES:
            if (folder / file).is_file() and (found := templates_in(folder / file)):
                return self._add(folder.resolve().name, found)
        raise PlaygroundError(f"{folder} holds no chat template: none in {', '.join(FILES)}")

    def add_hub(self, repo: str, revision: str | None = None, cancel: threading.Event | None = None) -> list[str]:
        """Keep the template or templates of a model on the Hub, of which nothing else is fetched."""
        repo = repo.strip()
        if not HUB_ID.fullmatch(repo):
            raise PlaygroundError(f"{repo!r} is no model of the Hub; write owner/name, as in Qwen/Qwen3-0.6B")
        for file in hub_files(repo, revision or None):
            found = templates_in(file)
            if cancel is not None and cancel.is_set():
                return []
            if found:
                return self._add(repo.rpartition("/")[2], found)
        raise PlaygroundError(f"{repo} has no chat template: none in {', '.join(FILES)}")

    def _add(self, name: str, found: dict[str, str]) -> list[str]:
        """`found`: template texts by the name that tells them apart; "default" needs none."""
        for text in found.values():
            check(text)
        names = [safe_name(name if key == "default" else f"{name}-{key}") for key in found]
        return [MINE + self._write_numbered(*pair) for pair in zip(names, found.values(), strict=True)]

    def _write_numbered(self, base: str, text: str) -> str:
        for name in (base, *(f"{base}-{number}" for number in range(2, MAX_SAVED))):
            try:
                return self._write(name, text, overwrite=False)
            except TakenError:
                continue
        raise PlaygroundError(f"there are {MAX_SAVED:,} templates called {base}; delete some of them first")

    def _write(self, name: str, text: str, overwrite: bool) -> str:
        file, part = self._folder / f"{name}.jinja", self._folder / f".{uuid.uuid4().hex}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if len(self.mine()) >= MAX_SAVED and not file.exists():
                raise PlaygroundError(f"there are {MAX_SAVED:,} saved templates; delete some of them first")
            part.write_bytes(text.encode())
            if overwrite:
                os.replace(part, file)
            elif not self._place(part, file) and read(file) != text:
                raise TakenError(f"there is a saved template {name!r} already; choose another name, or overwrite it")
        except OSError as error:
            raise PlaygroundError(f"{name} cannot be kept in {self._folder}: {error.strerror or error}") from None
        finally:
            part.unlink(missing_ok=True)
        return name

    def _place(self, part: Path, file: Path) -> bool:
        """Give a file its name, never over another file, whoever else is at it; False where the name is taken."""
        try:
            os.link(part, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with self._lock:
                if file.exists():
                    return False
                os.replace(part, file)
        return True


class TakenError(PlaygroundError):
    """There is another template of this name."""


def default_library() -> Path | None:
    """PLAYGROUND_TEMPLATES, else the shared folder beside the project; None where there is neither."""
    if named := os.environ.get("PLAYGROUND_TEMPLATES"):
        return Path(named).expanduser()
    shared = PACKAGE.parent.parent / "shared" / "data" / "chat_templates"
    return shared if shared.is_dir() else None


def safe_name(name: str) -> str:
    """A name that is a file's name too: letters, digits, dots, dashes and underscores, no dot in front."""
    last = name.replace("\\", "/").rpartition("/")[2].strip()
    last = re.sub(r"\.(jinja2?|j2)$", "", last)
    short = re.sub(r"[^\w.-]+", "-", last).strip("-.").encode("utf-8", "ignore")[:80].decode(errors="ignore")
    if not short.strip("-._"):
        raise PlaygroundError(f"a template's name must hold letters or digits, got {name!r}")
    return short.rstrip("-.")


def check(text: str) -> None:
    """Raise PlaygroundError for a template that is empty, too long, or that Jinja cannot compile within its bounds."""
    if not text.strip():
        raise PlaygroundError("the template is empty: write or paste a Jinja chat template first")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise PlaygroundError("the template holds half of a surrogate pair, which no file can keep") from None
    if size > MAX_BYTES:
        raise PlaygroundError(f"a template may have {MAX_BYTES // 1000} KB, this one has {size // 1000:,} KB")
    # in the bounded process: to compile is to compute constants, and a stranger may have written them
    call = {"messages": [{"role": "user", "content": "Hello"}], "add_generation_prompt": True}
    result = sandbox.run_bounded(text, [call])[0]
    where = f" in line {result['line']}" if result.get("line") else ""
    if result.get("kind") == "syntax":
        raise PlaygroundError(f"the template has a mistake{where}: {result['error']}")
    if result.get("kind") in ("time", "memory", "output"):
        raise PlaygroundError(f"the template was stopped{where}: {result['error']}")


# Templates in files ---------------------------------------------------------------------------------------------------


def templates_in(file: Path) -> dict[str, str]:
    """The template texts in a file by name ("default" for one alone); {} where a JSON file has none."""
    if file.suffix.lower() == ".json":
        value = _json(file)
        return _named(value.get("chat_template") if isinstance(value, dict) else value, file.name)
    if file.suffix.lower() in (*SUFFIXES, ".txt"):
        return {"default": read(file)}
    raise PlaygroundError(f"{file.name} is no template: a .jinja, .j2 or .txt file, or a tokenizer_config.json, is one")


def _named(value, name: str) -> dict[str, str]:
    """`chat_template` as it is written: one text, a list of {"name", "template"}, or texts by name."""
    if isinstance(value, list):
        if not all(isinstance(item, dict) and {"name", "template"} <= item.keys() for item in value):
            raise PlaygroundError(f'the chat templates in {name} must be a list of {{"name": …, "template": …}}')
        value = {item["name"]: item["template"] for item in value}
    found = value if isinstance(value, dict) else {} if value is None else {"default": value}
    for key, text in found.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise PlaygroundError(f"the chat template {key!r} in {name} is no text")
    return found


def _json(file: Path):
    try:
        return load_json(read(file, MAX_JSON_BYTES), file.name)
    except ValueError as error:  # a number of thousands of digits
        raise PlaygroundError(f"{file.name} cannot be read: {error}") from None


def read(file: Path, most: int = MAX_BYTES) -> str:
    """A file's text, its line ends as they are."""
    try:
        with open(file, "rb") as source:
            data = source.read(most + 1)
        if len(data) > most:
            raise PlaygroundError(f"{file.name} is larger than {most // 1000:,} KB")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlaygroundError(f"{file.name} is not UTF-8 text: byte {error.start + 1:,} is not") from None
    except OSError as error:
        raise PlaygroundError(f"{file.name} cannot be read: {error.strerror or error}") from None


def _refuse_paths_on_a_space() -> None:
    if os.environ.get("SPACE_ID"):
        raise PlaygroundError("folders and files of this machine cannot be named on a public Space; upload the file")


# The Hub --------------------------------------------------------------------------------------------------------------


def hub_files(repo: str, revision: str | None) -> Iterator[Path]:
    """Those of FILES that the model has. Raises PlaygroundError with the reason where none can be had."""
    from huggingface_hub import constants, errors, hf_hub_download

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    page = f"{constants.ENDPOINT}/{repo}"
    given = {"revision": revision, "etag_timeout": ANSWER_WITHIN, "local_files_only": offline}
    if os.environ.get("SPACE_ID"):
        given["token"] = False  # the Space's own token is not its visitors'
    there = False
    for file in FILES:
        try:
            path = Path(within(ANSWER_WITHIN, lambda file=file: hf_hub_download(repo, file, **given)))
        except TimeoutError:
            raise PlaygroundError(
                f"{constants.ENDPOINT} did not answer within {ANSWER_WITHIN:.0f} s; try again, or upload a file"
            ) from None
        except errors.GatedRepoError:
            raise PlaygroundError(f"{page} is gated: accept its terms there and run `hf auth login`") from None
        except errors.RevisionNotFoundError:
            raise PlaygroundError(f"{page} has no revision {revision!r}") from None
        except errors.RepositoryNotFoundError:
            raise PlaygroundError(f"there is no model {page}, or it is private") from None
        except errors.LocalEntryNotFoundError as error:
            if not offline:
                raise PlaygroundError(_unreachable(constants.ENDPOINT, error.__cause__ or error)) from None
            continue
        except errors.EntryNotFoundError:
            there = True
            continue
        except errors.HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            raise PlaygroundError(f"{page} answered with {status}") from None
        except Exception as error:  # noqa: BLE001 - each version of the client has its own exceptions
            raise PlaygroundError(_unreachable(constants.ENDPOINT, error)) from None
        there = True
        yield path
    if offline and not there:
        raise PlaygroundError(
            f"the template of {repo} cannot be had: HF_HUB_OFFLINE is set and no file of it was fetched before"
        )


def _unreachable(endpoint: str, error: BaseException) -> str:
    reason = re.sub(r"\[Errno -?\d+\] ", "", str(error).splitlines()[0] if str(error) else type(error).__name__)
    return f"cannot reach {endpoint}: {reason[:200]}; upload a file instead"


def within(seconds: float, work: Callable):
    """What `work()` gives, or TimeoutError: the client tries again for minutes when nobody answers."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def run():
        try:
            answers.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value
