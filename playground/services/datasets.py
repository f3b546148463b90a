"""The data sets that every tab offers: the built-in ones, and files that were uploaded, pasted or taken from the Hub.

A stored data set is a file in the data folder and its name is the file's name, so that the trainer, the command line
and another copy of the app find it too. Files appear whole or not at all. What columns mean is remembered by content.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from playground.config import Paths
from playground.core import datasets
from playground.core.datasets import Dataset, Mapping, Preview, Problem, mapping
from playground.core.datasets.reading import MAX_BYTES, MB, kind_of
from playground.errors import PlaygroundError
from playground.services import hub_rows

FACTS = ".facts"
LOOKED_AT = 100  # rows that are read before a file is kept
MAX_HUB_ROWS = 100_000
CACHED = 2  # data sets kept in memory


@dataclass(frozen=True)
class Entry:
    """A data set by name. `problem` says why none of its rows can be used as they are: a mapping is needed."""

    name: str
    format: str
    rows: int
    bad: int
    bytes: int
    built_in: bool
    problem: str = ""


class Datasets:
    """`stream(repo, config, split, count, cancel)` gives the rows of a Hub data set, and None while it waits."""

    def __init__(self, paths: Paths, stream: Callable = hub_rows.stream):
        self._paths, self._folder, self._stream = paths, paths.data, stream
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple, Dataset] = OrderedDict()
        self._entries: dict[tuple, Entry] = {}
        with contextlib.suppress(OSError):
            for part in self._folder.glob(".*.part"):  # of a copy that was killed
                if time.time() - part.stat().st_mtime > 86_400:
                    shutil.rmtree(part)

    # What there is ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Built-in data sets, then stored ones by name."""
        return [*datasets.names(), *self._stored()]

    def entries(self) -> list[Entry]:
        return [self.entry(name) for name in self.names()]

    def entry(self, name: str) -> Entry:
        key = self._key(name)
        with self._lock:
            found = self._entries.get(key) or self._known(name, key)
        if found is None:
            found = self._look(name)
            self._keep(found, key)
        with self._lock:
            self._entries[key] = found
        return found

    def load(self, name: str) -> Dataset:
        """The conversations of a data set, which callers share and must not change. Raises PlaygroundError."""
        key = self._key(name)
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
        data = datasets.load(name if name in datasets.names() else self.file(name), self._paths)
        with self._lock:
            self._loaded[key] = data
            while len(self._loaded) > CACHED:
                self._loaded.popitem(last=False)
        return data

    def file(self, name: str) -> Path:
        """The file of a stored data set."""
        if name not in self._stored():
            raise PlaygroundError(f"there is no data set {name!r}; choose {', '.join(self.names())}")
        return self._folder / name

    # What columns mean ------------------------------------------------------------------------------------------------

    def mapping(self, name: str) -> Mapping | None:
        """The mapping that is remembered for the data set's content."""
        return None if name in datasets.names() else mapping.remembered(self._folder, self.file(name))

    def preview(self, name: str, by: Mapping | None = None, count: int = 5) -> Preview:
        """The first rows under a mapping: the given one, else the remembered one, else a guess where one is needed."""
        if name == datasets.TOOL_CALLS:
            raise PlaygroundError("tool-calls is generated; its rows are messages and need no mapping")
        file = datasets.find(name) if name in datasets.names() else self.file(name)
        return datasets.preview(file, by if by is not None else self.mapping(name), count)

    def remember(self, name: str, by: Mapping | None) -> Entry:
        """Use this mapping for the data set from now on (None: recognise it again)."""
        file = self.file(name)
        if by is not None:
            shown = datasets.preview(file, by, 20)
            if not any(conversation for _, _, conversation, _ in shown.rows):
                first = next((reason for *_, reason in shown.rows if reason), "no row can be read")
                raise PlaygroundError(f"no row of {name} can be read this way: {first}")
        mapping.remember(self._folder, file, by)
        return self.entry(name)

    # Bringing data in -------------------------------------------------------------------------------------------------

    def add(self, file: Path, name: str = "") -> Entry:
        """Keep a copy of a file that can be read; a file of the same content that is here already is taken instead."""
        file = Path(file)
        name = safe_name(name or file.name)
        try:
            size = file.stat().st_size
            if size > MAX_BYTES:
                raise PlaygroundError(f"{name} is larger than {MAX_BYTES // MB} MB")
            with open(file, "rb") as source:
                return self._keep_file(name, iter(lambda: source.read(MB), b""))
        except OSError as error:
            raise PlaygroundError(f"{file.name} cannot be copied: {error.strerror or error}") from None

    def add_text(self, text: str, name: str = "pasted") -> Entry:
        """Keep pasted JSON, JSON lines or CSV."""
        if not text.strip():
            raise PlaygroundError("there is no text to keep; paste JSON, JSON lines or CSV")
        suffix = ".json" if text.lstrip("\ufeff \r\n\t")[:1] in ("[", "{") else ".csv"
        if suffix == ".csv" and len(text.strip().splitlines()) < 2:
            raise PlaygroundError("the text is no JSON, and no CSV with a line of column names above its rows")
        return self._keep_file(safe_name(f"{name}{suffix}"), [text.encode("utf-8", "replace")])

    def add_rows(self, rows: Iterable[dict], name: str) -> Entry:
        """Keep rows as JSON lines."""
        return self._keep_file(safe_name(name), (line(row) for row in rows))

    def add_hub(
        self,
        repo: str,
        config: str = "",
        split: str = "",
        count: int = 1000,
        progress: Callable | None = None,
        cancel=None,
    ) -> Entry:
        """Keep the first `count` rows of a data set on the Hub; `progress(rows so far)` is called as they come."""
        repo, config, split = repo.strip(), config.strip(), split.strip()
        if not 1 <= count <= MAX_HUB_ROWS:
            raise PlaygroundError(f"rows must be between 1 and {MAX_HUB_ROWS:,}, got {count:,}")

        def lines():
            done = 0
            for row in self._stream(repo, config, split, count, cancel):
                if row is not None:
                    done += 1
                    yield line(row)
                if progress:
                    progress(done)
            if not done:
                raise PlaygroundError(f"{repo} has no rows")

        words = [repo.replace("/", "-"), *filter(None, (config, split)), f"first-{count}"]
        return self._keep_file(safe_name("-".join(words) + ".jsonl"), lines())

    def rename(self, name: str, new: str) -> Entry:
        """The ending stays: it says how the file is read."""
        file = self.file(name)
        ending = file.name[len(stem(file.name)) :]
        new = safe_name(new if new.lower().endswith(ending.lower()) else new + ending)
        if new != name:
            self._place(file, [new])
        return self.entry(new)

    def remove(self, name: str) -> None:
        """Delete the copy; what its columns mean stays remembered for when it comes back."""
        if name in datasets.names():
            raise PlaygroundError(f"{name} is built in and cannot be removed")
        self.file(name).unlink(missing_ok=True)
        (self._folder / FACTS / f"{name}.json").unlink(missing_ok=True)

    # Underneath -------------------------------------------------------------------------------------------------------

    def _stored(self) -> list[str]:
        try:
            found = [entry.name for entry in os.scandir(self._folder) if entry.is_file() and entry.name[0] != "."]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if _ends_well(name))

    def _key(self, name: str) -> tuple:
        """What an entry depends on: the file as it is now, and the mapping that is remembered for it."""
        if name in datasets.names():
            return (name,)
        state = self.file(name).stat()
        return name, state.st_size, state.st_mtime_ns, self._mappings_changed()

    def _mappings_changed(self) -> int:
        try:
            return (self._folder / mapping.FOLDER).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _look(self, name: str) -> Entry:
        size = 0 if name in datasets.names() else self.file(name).stat().st_size
        try:
            data = self.load(name)
        except PlaygroundError as error:
            bad = getattr(error, "bad", 0)
            return Entry(name, "", 0, bad, size, False, str(error))
        return Entry(name, data.format, data.rows, data.bad, size, name in datasets.names())

    def _known(self, name: str, key: tuple) -> Entry | None:
        """The entry as it was found when the file was last looked at; a large file takes seconds to read."""
        try:
            kept = json.loads((self._folder / FACTS / f"{name}.json").read_text(encoding="utf-8"))
            return Entry(**kept["entry"]) if kept["key"] == list(key) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, entry: Entry, key: tuple) -> None:
        if entry.built_in:
            return
        with contextlib.suppress(OSError):  # it is only a note, made again when it is missing
            kept = self._folder / FACTS / f"{entry.name}.json"
            kept.parent.mkdir(exist_ok=True)
            part = kept.with_name(f".{uuid.uuid4().hex}.part")
            part.write_text(json.dumps({"key": key, "entry": dataclasses.asdict(entry)}), encoding="utf-8")
            part.replace(kept)

    def _keep_file(self, name: str, pieces: Iterable[bytes]) -> Entry:
        """Write the pieces, see that they can be read, and only then give the file its name."""
        kind_of(Path(name))
        # the name's ending is kept: it says how the file is read
        part = self._folder / f".{uuid.uuid4().hex}.part" / name
        try:
            part.parent.mkdir(parents=True)
            size = 0
            with open(part, "wb") as out:
                for piece in pieces:
                    size += len(piece)
                    if size > MAX_BYTES:
                        raise PlaygroundError(f"{name} is larger than {MAX_BYTES // MB} MB")
                    out.write(piece)
            if twin := self._twin(part, size):
                return self.entry(twin)
            _check_readable(part, mapping.remembered(self._folder, part))
            return self.entry(self._place(part, _numbered(name)))
        except OSError as error:
            raise PlaygroundError(f"{name} cannot be kept in {self._folder}: {error.strerror or error}") from None
        finally:
            part.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                part.parent.rmdir()

    def _twin(self, file: Path, size: int) -> str | None:
        same = [name for name in self._stored() if (self._folder / name).stat().st_size == size]
        if not same:
            return None
        digest = mapping.digest(file)
        return next((name for name in same if mapping.digest(self._folder / name) == digest), None)

    def _place(self, file: Path, names: Iterable[str]) -> str:
        """Move a file to the first of the names that is free, never over another file, whoever else is at it."""
        for name in names:
            try:
                os.link(file, self._folder / name)
            except FileExistsError:
                continue
            except OSError:  # a file system without links
                with self._lock:
                    if (self._folder / name).exists():
                        continue
                    os.replace(file, self._folder / name)
                    return name
            file.unlink()
            return name
        raise PlaygroundError(f"there is a data set {name!r} already; choose another name")


def stem(name: str) -> str:
    """A file's name without the endings that say how it is read."""
    for suffix in (".gz", *datasets.SUFFIXES):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name


def safe_name(name: str) -> str:
    """A file name that stays in its folder: letters, digits, dots, dashes and underscores, no dot in front."""
    name = Path(name.replace("\\", "/")).name
    base, ending = stem(name), name[len(stem(name)) :]
    short = re.sub(r"[^\w.-]+", "-", base).strip("-.").encode()[:120].decode(errors="ignore").rstrip("-.")
    if not short:
        raise PlaygroundError(f"a data set's name must hold letters or digits, got {name!r}")
    kind_of(Path(short + ending))
    return short + ending


def line(row: dict) -> bytes:
    return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


def _numbered(name: str) -> list[str]:
    base, ending = stem(name), name[len(stem(name)) :]
    return [name, *(f"{base}-{number}{ending}" for number in range(2, 1000))]


def _ends_well(name: str) -> bool:
    with contextlib.suppress(PlaygroundError):
        return bool(kind_of(Path(name)))
    return False


def _check_readable(file: Path, by: Mapping | None) -> None:
    """Raise for a file of which no row can be read; rows that are no conversations may still be mapped."""
    head = list(islice(datasets.rows(file, by.encoding if by else ""), LOOKED_AT))
    if all(isinstance(row, Problem) for row in head):
        raise PlaygroundError(head[0])
