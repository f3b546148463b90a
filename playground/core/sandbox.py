"""Jinja as chat templates know it, and a process of its own for templates that come from strangers.

`run` renders in this process: for the templates we wrote. `run_bounded` renders in a worker process (POSIX) with a
deadline, a bound on the output and a bound on memory: for everybody else's. Both give the same text.

The environment mirrors transformers' `utils/chat_template_utils.py` (5.23), which cannot be imported here because it
brings torch. One thing differs: the `{% generation %}` tracker lives in the render's context, not in the environment,
so that one compiled template serves several threads.

The workers are the only state of this module: at most `WORKERS` processes, started when first needed, replaced when
one is cut off, gone when this process is (they end when their pipe closes). Nothing else about them outlives a call.
"""

import json
import os
import queue
import re
import select
import struct
import subprocess
import sys
import time
import types
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.runtime
from jinja2.sandbox import ImmutableSandboxedEnvironment

from playground.core import shapes

DEADLINE = 2.0  # seconds, for all renders of one request
MAX_OUTPUT = 2_000_000  # characters of one rendering
MAX_MEMORY = 512 * 2**20  # bytes of address space of a worker
WORKERS = 4
START_LIMIT = 30.0  # seconds a worker may take to start on a busy machine

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TRACKER = "generation tracker"  # not an identifier: a template cannot name it


class _Tracker:
    def __init__(self):
        self.length = 0
        self.ranges: list[list[int]] = []


class AssistantTracker(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: notes where in the output the block's text stands."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_track", [jinja2.nodes.ContextReference()])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _track(self, context, caller):
        text = caller()
        tracker = context.parent.get(_TRACKER)
        if tracker is not None:
            tracker.ranges.append([tracker.length, tracker.length + len(text)])
        return text


class TemplateDict:
    """`dict` for templates: a call and `fromkeys`, no attribute walks."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class TemplateNamespace(jinja2.utils.Namespace):
    """`namespace` for templates: refuses underscore names."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            TemplateNamespace._check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        TemplateNamespace._check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check_name(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"underscore-prefixed attribute {name!r} on a namespace")


def _raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def _tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format):
    return datetime.now().strftime(format)


_DICT_NAMES = frozenset(dir(dict))


class _Environment(ImmutableSandboxedEnvironment):
    """The same answers; `message.role` on a plain dict goes straight to the key (a third of a rendering's time)."""

    def getattr(self, obj, attribute):
        if type(obj) is dict and attribute not in _DICT_NAMES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def call(self, context, function, /, *args, **kwargs):
        if getattr(function, "__func__", None) is AssistantTracker._track:
            return function(context, kwargs["caller"])
        return super().call(context, function, *args, **kwargs)


class _Lenient(_Environment):
    """For templates written for other engines: a list that the template made itself may change."""

    def is_safe_attribute(self, obj, attr, value):
        return (type(obj) is list and attr in ("append", "extend", "insert", "pop")) or super().is_safe_attribute(
            obj, attr, value
        )


class _Given(list):
    """A list handed to a template: never changed, in a lenient environment neither."""


def _given(value):
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items()}
    return _Given(map(_given, value)) if isinstance(value, list) else value


def _tojson_of_any(x, **options):
    """tojson that also takes what `map` and `select` give."""
    return _tojson(list(x) if isinstance(x, types.GeneratorType) else x, **options)


@lru_cache(maxsize=2)
def environment(lenient: bool = False) -> ImmutableSandboxedEnvironment:
    """The environment that `apply_chat_template` compiles chat templates in."""
    kind = _Lenient if lenient else _Environment
    env = kind(trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, jinja2.ext.loopcontrols])
    env.filters["tojson"] = _tojson_of_any if lenient else _tojson
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = _strftime_now
    env.globals["dict"] = TemplateDict()
    env.globals["namespace"] = TemplateNamespace
    return env


@lru_cache(maxsize=64)
def _compiled(text: str, lenient: bool = False) -> jinja2.Template:
    return environment(lenient).from_string(text)


def run(text: str, calls: list[dict], max_output: int | None = None) -> list[dict]:
    """Render the template `text` once per call; a call is the template's variables.

    Each result is `{"text", "ranges"}` (ranges: [start, end) characters of the generation blocks), or
    `{"error", "line", "kind"}` with kind "raised" (the template's own raise_exception), "syntax", "output",
    "memory" or "failed"; line is None where it is not known.
    """
    try:
        template = _compiled(text)
    except Exception as error:  # noqa: BLE001 (whatever a template raises is the template's fault)
        return [_failure(error) for _ in calls]
    names = dict(template.globals)
    return [_render(template, {**names, **variables}, max_output) for variables in calls]


def _run_in_some_shape(text: str, variables: dict) -> dict:
    """`run` of one call that, where the template fails, tries the call in other shapes and then a lenient environment.

    A result that was had so says in "shape" what was changed.
    """
    result = run(text, [variables], MAX_OUTPUT)[0]
    if result.get("kind") != "failed":
        return result
    for lenient in (False, True):
        template = _compiled(text, lenient)
        for shape, changed in [*([("", variables)] if lenient else []), *shapes.others(variables)]:
            changed = _given(changed) if lenient else changed
            again = _render(template, {**template.globals, **changed}, MAX_OUTPUT)
            if again.get("kind") in (None, "raised"):
                return {**again, "shape": shape or "lists that may change"}
    return result


def _render(template, variables: dict, max_output: int | None) -> dict:
    """One rendering: what `template.generate` does, on a context that is made once instead of copied name by name."""
    tracker, blocks = _Tracker(), []
    try:
        context = template.new_context({**variables, _TRACKER: tracker}, shared=True)
        try:
            for block in template.root_render_func(context):
                tracker.length += len(block)
                if max_output and tracker.length > max_output:
                    return {"error": f"it writes more than {max_output:,} characters", "line": None, "kind": "output"}
                blocks.append(block)
        except Exception:  # noqa: BLE001
            template.environment.handle_exception()  # raises it again, with the template's own lines
        return {"text": "".join(blocks), "ranges": tracker.ranges}
    except Exception as error:  # noqa: BLE001
        return _failure(error)


def _failure(error: Exception) -> dict:
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:  # Jinja rewrites the frames of a template to its own lines
        if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, jinja2.exceptions.TemplateSyntaxError):
        return {"error": error.message or "syntax error", "line": error.lineno, "kind": "syntax"}
    if type(error) is jinja2.exceptions.TemplateError:
        return {"error": str(error.message), "line": line, "kind": "raised"}
    if isinstance(error, MemoryError):
        return {"error": f"it needs more than {MAX_MEMORY // 2**20} MB of memory", "line": line, "kind": "memory"}
    if isinstance(error, RecursionError):
        return {"error": "it calls itself without end", "line": line, "kind": "failed"}
    return {"error": str(error) or type(error).__name__, "line": line, "kind": "failed"}


# The worker's end -----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests from stdin on stdout until stdin closes: a 4-byte length, then JSON, both ways."""
    source, sink = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    _bound_worker()
    environment()
    _write(sink.fileno(), b"ready")
    while header := source.read(4):
        body = source.read(struct.unpack(">I", header)[0])
        _bound_time()
        try:
            request = json.loads(body)
            results = [_run_in_some_shape(request["text"], call) for call in request["calls"]]
            answer = json.dumps(results).encode()
        except (MemoryError, RecursionError) as error:
            results = [_failure(error)]
            answer = json.dumps(results).encode()
        _write(sink.fileno(), answer)
        if any(result.get("kind") == "memory" for result in results):
            return  # a fresh worker is surer than a heap in pieces


def _bound_worker() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bound_time() -> None:
    """The parent kills a late worker; should the parent be gone, the kernel does."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + DEADLINE) + 3, hard))


def _write(descriptor: int, body: bytes) -> None:
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        data = data[os.write(descriptor, data) :]


# The parent's end -----------------------------------------------------------------------------------------------------


class _Late(Exception):
    pass


class _Worker:
    def __init__(self):
        self.owner = os.getpid()  # after a fork the pipes belong to the parent
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from playground.core.sandbox import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=Path(__file__).parents[2],
        )
        self._read(time.monotonic() + START_LIMIT)

    def ask(self, request: bytes) -> bytes:
        _write(self.process.stdin.fileno(), request)
        return self._read(time.monotonic() + DEADLINE)

    def usable(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def stop(self) -> None:
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _read(self, deadline: float) -> bytes:
        size = struct.unpack(">I", self._read_exactly(4, deadline))[0]
        return self._read_exactly(size, deadline)

    def _read_exactly(self, size: int, deadline: float) -> bytes:
        out, chunks = self.process.stdout.fileno(), []
        while size:
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise _Late
            chunk = os.read(out, min(size, 1 << 20))
            if not chunk:
                raise EOFError("the template worker ended")
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)


_slots: queue.LifoQueue = queue.LifoQueue()  # of workers, or None for one not started yet
for _ in range(WORKERS):
    _slots.put(None)


def run_bounded(text: str, calls: list[dict]) -> list[dict]:
    """`run` in a worker process, cut off after `DEADLINE` seconds (kind "time") or above the other bounds."""
    request = json.dumps({"text": text, "calls": calls}).encode()
    worker = _slots.get()
    try:
        for attempt in (1, 2):
            if worker is not None and not worker.usable():
                worker.stop()
                worker = None
            try:
                worker = worker or _Worker()
                results = json.loads(worker.ask(request))
                return results if len(results) == len(calls) else [results[0] for _ in calls]
            except (EOFError, OSError):  # it died: of this request, or before it
                if worker is not None:
                    worker.stop()
                worker = None
                if attempt == 2:
                    return _all_failed(calls, "memory", f"it needs more than {MAX_MEMORY // 2**20} MB of memory")
        raise AssertionError("unreachable")
    except _Late:
        worker.stop()
        worker = None
        return _all_failed(calls, "time", f"it runs longer than {DEADLINE:g} seconds")
    finally:
        _slots.put(worker)


def _all_failed(calls: list, kind: str, sentence: str) -> list[dict]:
    return [{"error": sentence, "line": None, "kind": kind} for _ in calls]
