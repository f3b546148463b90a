"""Each attempt is refused by a wall, an audit event or a limit; the limits here are two seconds or less."""

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from playground.core.tools import ToolError
from playground.services import python_tool
from playground.services.python_tool import Limits, Python, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the Python tool needs Linux or macOS")
LIMITS = Limits(seconds=2.0, memory_bytes=192 * 2**20, folder_bytes=2**20, folder_files=50, file_bytes=2**19)
QUICK = Limits(seconds=0.7, memory_bytes=192 * 2**20)


def scratch_folders():
    return set(Path(tempfile.gettempdir()).glob("playground-python-*"))


@pytest.mark.parametrize(
    "code, output, value",
    [
        ("print('hello')", "hello\n", None),
        ("1 + 1", "", "2"),
        ("x = 20\nprint(x)\nx * 2 + 2", "20\n", "42"),
        ("", "", None),
        ("print('é', '日本')", "é 日本\n", None),
        ("import math, statistics, json, re, datetime, random, decimal, fractions\nmath.factorial(20)", "",
         "2432902008176640000"),
        ("import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 1\nA()", "", "A(x=1)"),
        ("from pathlib import Path\nPath('a').mkdir()\nPath('a/b').write_text('hi')\nopen('a/b').read()", "", "'hi'"),
        ("import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n    open(f'{d}/f', 'w').close()\nos.listdir()",
         "", "[]"),
        ("import sys\nsys.stderr.write('warned')\nNone", "warned", None),
        ("import sys\nsys.exit()", "", None),
        ("try:\n    open('/etc/passwd')\nexcept PermissionError:\n    print('refused')", "refused\n", None),
    ],
)  # fmt: skip
def test_code_runs(code, output, value):
    outcome = run(code, LIMITS)
    assert (outcome.error, outcome.output, outcome.value) == (None, output, value)


@pytest.mark.parametrize(
    "code, error, line",
    [
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero", 2),
        ("def f():\n    return y\nf()", "NameError: name 'y' is not defined", 2),
        ("print(1\n", "SyntaxError", 1),
        ("raise ValueError('a' * 10**6)", "ValueError: aaaa", 1),
        ("class E(Exception):\n    def __str__(self): raise KeyError\nraise E", "E: <exception str() failed>", 3),
        ("import sys\nsys.exit(3)", "exit code 3", None),
        ("import os\nos._exit(5)", "exit code 5", None),
        ("\ud800", "UnicodeEncodeError", None),
        ("\0", "null bytes", None),
    ],
)
def test_what_fails_is_said(code, error, line):
    outcome = run(code, LIMITS)
    assert error in outcome.error
    assert outcome.line == line
    assert len(outcome.error) < 70_000


@pytest.mark.parametrize(
    "code, error",
    [
        # processes and threads
        ("import os\nwhile True: os.fork()", "os.fork is not allowed"),
        ("import subprocess\nsubprocess.run(['id'])", "subprocess is not available"),
        ("import os\nos.system('id')", "os.system is not allowed"),
        ("import os\nos.execv('/bin/sh', ['sh'])", "os.exec is not allowed"),
        ("import os\nos.posix_spawn('/bin/sh', ['sh'], {})", "os.posix_spawn is not allowed"),
        ("import _posixsubprocess", "not available"),
        ("import multiprocessing", "not available"),
        ("import os\nos.kill(os.getppid(), 9)", "os.kill is not allowed"),
        ("import os\nos.killpg(0, 9)", "os.killpg is not allowed"),
        ("import os\nos.setsid()", "no attribute 'setsid'"),
        # the network
        ("import socket", "socket is not available"),
        ("import _socket", "not available"),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1')", "not available"),
        # files
        ("open('/etc/passwd').read()", "'/etc/passwd' is outside of the scratch folder"),
        ("open('../../etc/passwd').read()", "outside of the scratch folder"),
        ("open(b'/etc/passwd')", "outside of the scratch folder"),
        ("open('/proc/self/environ').read()", "outside of the scratch folder"),
        ("open('/tmp/playground-was-here', 'w')", "may not change it"),
        ("import os\nos.open('/etc/passwd', os.O_RDONLY)", "outside of the scratch folder"),
        ("import os\nos.makedirs('a/b')\nf = os.open('.', os.O_RDONLY)\nos.chdir('a/b')\n"
         "os.open('../../etc/passwd', os.O_RDONLY, dir_fd=f)", "'..' is not allowed"),
        ("import os\nos.listdir('/')", "outside of the scratch folder"),
        ("import os\nos.chdir('/')", "outside of the scratch folder"),
        ("import os\nos.remove('/etc/hostname')", "may not change it"),
        ("import os\nos.rename('/etc/hostname', 'mine')", "may not change it"),
        ("import os\nopen('f', 'w').close()\nos.rename('f', '/tmp/f')", "may not change it"),
        ("import os\nopen(os.path.join(os.path.dirname(os.__file__), 'evil.py'), 'w')", "may not change it"),
        ("import os\nopen(os.path.join(os.path.dirname(os.__file__), 'site-packages', 'x.py'))", "may not read it"),
        ("import os\nos.symlink('/etc/passwd', 'link')\nopen('link').read()", "os.symlink is not allowed"),
        ("import os\nos.link('/etc/passwd', 'link')", "os.link is not allowed"),
        ("import os\nos.chmod('/etc', 0o777)", "os.chmod is not allowed"),
        ("import os\nos.mkfifo('/tmp/fifo')", "no attribute 'mkfifo'"),
        ("class P(str): pass\nopen(P('/etc/passwd'))", "by their name only"),
        ("import pwd", "not available"),
        ("import sqlite3", "not available"),
        # around the hook
        ("import ctypes", "ctypes is not available"),
        ("import _ctypes", "not available"),
        ("import gc\ngc.get_objects()", "gc.get_objects is not allowed"),
        ("(lambda: 0).__code__.replace(co_code=b'')", "code.__new__ is not allowed"),
        ("import _xxsubinterpreters", "not available"),
        ("import _imp, importlib.machinery as m\n_imp.create_dynamic(m.ModuleSpec('_ctypes', None, origin='x'))", ""),
    ],
)  # fmt: skip
def test_what_the_code_has_no_business_with_is_refused(code, error):
    outcome = run(code, LIMITS)
    assert outcome.error is not None
    assert error in outcome.error
    assert outcome.value is None
    assert "root:" not in outcome.output
    assert outcome.seconds < 2.5


TURNING = """
import sys, os, builtins
sys.addaudithook(lambda *a: print("mine"))
try:
    open("/etc/passwd")
except PermissionError as error:
    frame = error.__traceback__.tb_next.tb_frame
    for name, value in list(frame.f_locals.items()):
        frame.f_locals[name] = None
        try:
            value.clear()
        except Exception:
            pass
    frame.f_globals.clear()
os.path.realpath = os.getcwd = os.readlink = lambda *a: os.sep
builtins.PermissionError = builtins.isinstance = builtins.len = None
try:
    print(open("/etc/passwd").read())
except BaseException as error:
    print(error)
"""


def test_the_hook_cannot_be_deleted_or_turned():
    output = run(TURNING, LIMITS).output
    assert output.startswith("'/etc/passwd' is outside of the scratch folder")
    assert "root:" not in output
    assert "mine" not in output


def test_there_is_nothing_in_the_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    outcome = run("import os\n[*os.environ], open('/proc/self/environ').read()", LIMITS)
    assert "outside" in outcome.error
    outcome = run("import os, sys\nprint(dict(os.environ), sys.argv, sys.orig_argv, input)", LIMITS)
    assert outcome.error is None
    assert "hf_secret" not in outcome.output
    assert run("import os\nsorted(os.environ)", LIMITS).value in ("[]", "['LC_CTYPE']")


@pytest.mark.parametrize(
    "code, error",
    [
        ("while True: pass", "longer than 0.7 seconds"),
        ("import time\nprint('begun')\ntime.sleep(60)", "longer than 0.7 seconds"),
        ("import os\nos.close(1); os.close(2)\nwhile True: pass", "longer than 0.7 seconds"),
        ("try:\n    while True: pass\nfinally:\n    while True: pass", "longer than 0.7 seconds"),
        ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass", "longer than 0.7"),
        ("x = [0]\nwhile True: x *= 2", "192 MB of memory"),
        ("b = bytearray(10**10)", "192 MB of memory"),
        ("9 ** 9 ** 9 ** 9", "longer than 0.7"),
    ],
)
def test_limits_of_time_and_memory(code, error):
    started = time.monotonic()
    outcome = run(code, QUICK)
    assert error in outcome.error
    assert time.monotonic() - started < 2
    if "begun" in code:
        assert outcome.output == "begun\n"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit of a program's threads")
def test_threads_are_refused():
    assert "start new thread" in run("import threading\nthreading.Thread(target=print).start()", LIMITS).error


def test_ten_megabytes_of_output_are_cut_and_said():
    outcome = run("print('x' * 10_000_000)\n7", LIMITS)
    assert (outcome.printed, len(outcome.output), outcome.value) == (10_000_001, LIMITS.output_bytes, "7")
    result = Python(LIMITS).run("print('x' * 10_000_000)")
    assert result["cut"] == "10,000,001 bytes were printed, the first 65,536 are here"
    assert len(Python(LIMITS).run("'y' * 10_000_000")["value"]) == 64 * 1024


@pytest.mark.parametrize(
    "code, error",
    [
        ("f = open('big', 'wb')\nwhile True: f.write(b'x' * 4096)", "File too large"),
        ("for i in range(40): open(str(i), 'wb').write(b'x' * 500_000)\nwhile True: pass", "wrote more than 1 MB"),
        ("import os\nfor i in range(300): os.mkdir(str(i))\nwhile True: pass", "more than 50 files"),
        ("files = [open('f', 'a') for _ in range(100)]", "Too many open files"),
        ("import os\nwhile True:\n    os.mkdir('deep' * 10)\n    os.chdir('deep' * 10)", "outside of the scratch"),
    ],
)
def test_limits_of_the_scratch_folder(code, error):
    assert error in run(code, LIMITS).error


def test_a_link_out_of_the_scratch_folder_is_followed_and_refused(monkeypatch, tmp_path):
    """The code cannot make one; one that is there all the same leads nowhere."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    made = tempfile.mkdtemp

    def with_links(**arguments):
        folder = made(**arguments)
        os.symlink(secret, f"{folder}/link")
        os.symlink(tmp_path, f"{folder}/folder")
        return folder

    monkeypatch.setattr(python_tool.tempfile, "mkdtemp", with_links)
    for path in ("link", "folder/secret", "./folder/../link", "folder/./secret"):
        for mode in ("r", "w"):
            assert "outside of the scratch folder" in run(f"open({path!r}, {mode!r}).read()", LIMITS).error
    assert secret.read_text() == "hidden"


def test_the_scratch_folder_and_the_process_are_gone_afterwards():
    before = scratch_folders()
    run("import os\nos.makedirs('a/b/c')\nopen('a/b/c/f', 'w').write('x')\n1 / 0", LIMITS)
    run("open('f', 'w').write('x')\nwhile True: pass", QUICK)
    assert scratch_folders() <= before


WALLS = """
import json, os, socket, sys
sys.stdin.read()
def tried(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return error.errno
    return "done"
def threaded():
    import _thread
    try:
        _thread.start_new_thread(print, ())
    except RuntimeError:
        raise PermissionError(1, "no thread")
result = {
    "fork": tried(os.fork), "kill": tried(os.kill, os.getppid(), 0), "socket": tried(socket.socket),
    "thread": tried(threaded), "symlink": tried(os.symlink, "/etc/passwd", "x"), "chmod": tried(os.chmod, "/tmp", 511),
    "read": tried(open, "/etc/passwd"), "list": tried(os.listdir, "/"), "proc": tried(open, "/proc/self/environ"),
    "write": tried(open, "/tmp/playground-was-here", "w"), "exec": tried(os.execv, "/bin/sh", ["sh", "-c", "id"]),
    "own": tried(open, "mine", "w"), "outside link": tried(open, "link"),
}
os.write(int(sys.argv[1]), json.dumps({"value": json.dumps(result), "walls": sys.argv[2].split(",")}).encode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's walls are Linux's")
def test_the_kernels_walls_stand_without_the_hook(monkeypatch, tmp_path):
    import json

    walls = run("1", LIMITS).walls
    if not {"landlock", "seccomp"} <= set(walls):
        pytest.skip(f"this kernel gives {', '.join(walls)}")
    shutil.copy(python_tool._WALLS, tmp_path / "python_walls.py")
    (tmp_path / "python_child.py").write_text(WALLS)
    monkeypatch.setattr(python_tool, "_WALLS", tmp_path / "python_walls.py")
    tried = json.loads(run("", LIMITS).value)
    assert tried.pop("own") == "done"
    assert set(tried.values()) <= {1, 2, 13}, tried


def test_the_tool_answers_in_words():
    tool = Python(LIMITS).tool()
    assert tool.run(code="print(2)\n3") == {"output": "2\n", "value": "3"}
    assert tool.run(code="x = 1") == {"output": ""}
    with pytest.raises(ToolError, match=r"ZeroDivisionError: division by zero \(line 2\)\. Printed before: a"):
        tool.run(code="print('a')\n1 / 0")
    with pytest.raises(ToolError, match="at most 20,000"):
        tool.run(code="1" * 30_000)


def test_a_custom_tools_function_is_called():
    source = 'def add(a: int, b: int = 2) -> int:\n    """Add"""\n    return {"sum": a + b, "_picture": {"svg": "x"}}\n'
    assert Python(LIMITS).call(source, "add", {"a": 1}) == {"sum": 3}
    assert Python(LIMITS).call("def f(s): return s * 2", "f", {"s": "'\"\\\n"}) == {"result": "'\"\\\n'\"\\\n"}
    assert Python(LIMITS).call("def f(): pass", "f", {}) == {"result": None}
    with pytest.raises(ToolError, match="outside of the scratch folder"):
        Python(LIMITS).call("def f(): return open('/etc/passwd').read()", "f", {})
    with pytest.raises(ToolError, match="returned more than"):
        Python(LIMITS).call("def f(): return 'x' * 10**7", "f", {})


def test_only_so_many_run_at_once(monkeypatch):
    monkeypatch.setattr(python_tool, "WAIT", 0.05)
    python = Python(QUICK, at_once=1)

    def run_on():
        with pytest.raises(ToolError):
            python.run("while True: pass")

    thread = threading.Thread(target=run_on)
    thread.start()
    time.sleep(0.2)
    with pytest.raises(ToolError, match="Too many programs"):
        python.run("1")
    thread.join()
    assert python.run("1")["value"] == "1"
