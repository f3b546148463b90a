"""Second stage of the Python tool's process: an audit hook, then the code.

The hook refuses, in this process and before it happens, what the code has no business with: processes, sockets,
ctypes, modules that reach the system past the hook, and files outside of the scratch folder (reading the standard
library is fine). It cannot be removed. It is not a wall against somebody who knows CPython's inside well (a made-up
.pyc can corrupt the process's memory): the kernel's walls of the first stage are. See python_tool for who stops what.

Standard library only: it runs with -I -S, without this package.
"""

import ast
import json
import os
import posix
import sys
import time
import traceback
import types

NAME = "<code>"
LONGEST = 64 * 1024  # characters of a value or an error
LONGEST_PATH = 600  # characters; keeps folders shallow enough to be removed

# Beginnings of audit events: https://docs.python.org/3/library/audit_events.html
REFUSED = (
    *("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "pty."),
    *("os.startfile", "ctypes.", "code.__new__", "gc.get_", "sys.addaudithook", "sys.remote_exec"),
    *("cpython.PyInterpreterState_New", "os.symlink", "os.link", "os.chmod", "os.chown", "os.lchown", "os.chflags"),
    *("os.setxattr", "os.getxattr", "os.listxattr", "os.removexattr", "fcntl.", "resource.", "signal.pthread_kill"),
    *("sqlite3.", "syslog.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "webbrowser."),
)
ON_PATHS = ("open", "os.listdir", "os.scandir", "os.chdir", "os.truncate", "os.utime")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime")
_MODULES = (
    "socket _socket ssl _ssl subprocess _posixsubprocess ctypes _ctypes multiprocessing _multiprocessing _posixshmem"
    " sqlite3 _sqlite3 dbm _dbm _gdbm readline resource fcntl termios tty pty pwd grp spwd nis crypt _crypt syslog"
    " faulthandler _xxsubinterpreters _xxinterpchannels _interpreters _interpchannels _interpqueues _testcapi"
    " _testinternalcapi _testlimitedcapi _testbuffer _testclinic _testimportmultiple _testmultiphase _ctypes_test"
    " _tkinter tkinter _curses _curses_panel curses"
)
MODULES = frozenset(_MODULES.split())
# Of os, what no audit event tells of.
REMOVED = (  # noqa: SIM905
    "chroot copy_file_range initgroups login_tty memfd_create mkfifo mknod nice openpty pidfd_open posix_openpt"
    " sched_setaffinity sched_setparam sched_setscheduler setegid seteuid setgid setgroups setns setpgid setpgrp"
    " setpriority setregid setresgid setresuid setreuid setsid setuid sync unshare"
).split()


def guard(scratch: str, readable: tuple[str, ...]) -> None:
    """Install the hook. All it uses are its own defaults, of types that cannot be changed: a frame of it, reached by
    a traceback, has nothing to turn."""

    def hook(
        event, args, *,
        scratch=scratch, readable=readable, refused=REFUSED, on_paths=ON_PATHS, changes=CHANGES, modules=MODULES,
        longest=LONGEST_PATH, writing=os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND,
        readlink=posix.readlink, getcwd=posix.getcwd, fsdecode=bytes.decode,
        type=type, str=str, bytes=bytes, int=int, len=len,
        PermissionError=PermissionError, ImportError=ImportError, OSError=OSError,
    ):  # fmt: skip
        if event == "import":
            if type(args[0]) is not str or args[0].partition(".")[0] in modules:
                raise ImportError(f"{args[0]} is not available in the Python tool")
            return
        if event.startswith(refused):
            raise PermissionError(f"{event} is not allowed in the Python tool")
        if event not in on_paths and event not in changes:
            return
        if event == "open":
            paths, changing = args[:1], args[2] & writing
            by_folder = args[1] is None  # os.open, whose folder fd is not told
        else:
            paths, changing, by_folder = args[: 2 if event == "os.rename" else 1], event in changes, False
            folder_fds = args[2:4] if event == "os.rename" else args[-1:] if event != "os.truncate" else ()
            for fd in folder_fds:
                if changing and type(fd) is int and fd >= 0:
                    raise PermissionError(f"{event} relative to an open folder is not allowed in the Python tool")
        for path in paths:
            if path is None or type(path) is int:
                path = "." if path is None else None
            if path is None:
                continue
            if type(path) is bytes:
                path = fsdecode(path, "utf-8", "surrogateescape")
            if type(path) is not str:
                raise PermissionError("the Python tool opens files by their name only")
            if by_folder and path[:1] != "/" and ".." in path:
                raise PermissionError("os.open with '..' is not allowed in the Python tool")
            todo = path.split("/") if path[:1] == "/" else getcwd().split("/") + path.split("/")
            done, links = [], 0
            while todo:
                part = todo.pop(0)
                if part == "..":
                    done = done[:-1]
                elif part not in ("", "."):
                    try:
                        target = readlink("/" + "/".join(done) + "/" + part)
                    except (OSError, ValueError):
                        done.append(part)
                        continue
                    links += 1
                    if links > 40:
                        raise PermissionError(f"{path!r} has too many links")
                    done = [] if target[:1] == "/" else done
                    todo = target.split("/") + todo
            where = "/" + "/".join(done)
            inside = where == scratch or where.startswith(scratch + "/")
            if inside and len(where) <= longest:
                continue
            if where == "/dev/null" and event == "open":
                continue
            if not changing and "site-packages" not in done and (where + "/").startswith(readable):
                continue
            what = "change" if changing else "read"
            raise PermissionError(f"{path[:200]!r} is outside of the scratch folder; the Python tool may not {what} it")

    for name in REMOVED:
        for module in (os, posix):
            if hasattr(module, name):
                delattr(module, name)
    os.supports_dir_fd.clear()  # shutil then goes by paths, which the hook can judge
    sys.addaudithook(hook)


def execute(code: str) -> dict:
    """Run `code` as a module of its own; where its last statement is an expression, its value is told too."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        tree = ast.parse(code, NAME)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, NAME, "exec"), module.__dict__)  # noqa: S102 - this process exists for it
        if last is None:
            return {}
        value = eval(compile(ast.Expression(last.value), NAME, "eval"), module.__dict__)  # noqa: S307
        return {} if value is None else {"value": repr(value)[:LONGEST]}
    except SystemExit as stop:
        return {} if stop.code in (None, 0) else {"error": f"the program ended with exit code {stop.code!s:.100}"}
    except BaseException as error:  # noqa: BLE001 - whatever the code raised is what it has to say
        return failure(error)


def failure(error: BaseException) -> dict:
    lines = traceback.format_exception_only(type(error), error)
    where = [frame.lineno for frame in traceback.extract_tb(error.__traceback__, 50) if frame.filename == NAME]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == NAME else where[-1] if where else None
    return {"error": lines[-1].strip()[:LONGEST], "line": line}


def main() -> None:
    report, walls = int(sys.argv[1]), sys.argv[2].split(",")
    request = json.load(sys.stdin)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.chdir(request["scratch"])
    time.tzset()
    # Loaded now: whatever reads the machine's settings does so before the door is shut.
    write, leave, out, err = os.write, os._exit, sys.stdout, sys.stderr
    roots = {os.path.realpath(path) for path in sys.path if path} | {"/usr/share/zoneinfo"}
    scratch, code = request["scratch"], request["code"]
    sys.argv[:] = [""]
    guard(scratch, tuple(root + "/" for root in roots))
    result = {**execute(code), "walls": walls}
    for stream in (out, err):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    write(report, json.dumps(result).encode())
    leave(0)


if __name__ == "__main__":
    main()
