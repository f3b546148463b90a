"""First stage of the Python tool's process: give up rights for good, then become the interpreter that runs the code.

    python -I -S python_walls.py REPORT_FD  < request.json      (started by python_tool, nothing else)

Everything set here outlives the exec: resource limits, namespaces without a network, Landlock (Linux 5.13: no file
but the scratch folder and what Python itself is made of) and a seccomp filter (no process, thread, socket, signal,
change of rights or link). Each is taken where the kernel gives it and left out where not; the second stage's audit
hook is then what remains. This stage is apart from the second because it needs ctypes, and a process that has loaded
ctypes cannot be kept from using it.

Standard library only: it runs with -I -S, without this package.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import sysconfig

# Landlock: include/uapi/linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 13, 1 << 14
FIRST_RIGHTS = (1 << 13) - 1  # of the first version; REFER came with the second, TRUNCATE the third, ioctl the fifth
READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
SCRATCH = READ_FILE | READ_DIR | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE

NEW_NAMESPACES = 0x10000000 | 0x40000000 | 0x08000000  # user, network, System V IPC

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # → its AUDIT_ARCH_*, its column below
# What the filter refuses, with its number on x86_64 and aarch64 (the kernel's unistd.h; only x86_64 was tried).
CALLS = (  # noqa: SIM905
    # processes and threads
    " clone:56:220 fork:57: vfork:58: clone3:435:435 execveat:322:281"
    # other processes
    " kill:62:129 tkill:200:130 tgkill:234:131 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 ptrace:101:117"
    " process_vm_readv:310:270 process_vm_writev:311:271 pidfd_send_signal:424:424 pidfd_open:434:434"
    " pidfd_getfd:438:438 setpriority:141:140 sched_setaffinity:203:122 sched_setscheduler:144:119"
    " sched_setparam:142:118 sched_setattr:314:274"
    # sockets, and another way to them
    " socket:41:198 socketpair:53:199 io_uring_setup:425:425"
    # memory and queues that stay
    " shmget:29:194 semget:64:190 msgget:68:186 mq_open:240:180 memfd_create:319:279"
    # rights, links and special files
    " chmod:90: fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92: fchown:93:55 lchown:94: fchownat:260:54"
    " setxattr:188:5 lsetxattr:189:6 fsetxattr:190:7 link:86: linkat:265:37 symlink:88: symlinkat:266:36"
    " mknod:133: mknodat:259:33"
    # the system
    " unshare:272:97 setns:308:268 mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 open_tree:428:428"
    " move_mount:429:429 fsopen:430:430 open_by_handle_at:304:265 bpf:321:280 perf_event_open:298:241"
    " userfaultfd:323:282 add_key:248:217 request_key:249:218 keyctl:250:219 personality:135:92"
).split()


def set_limits(limits: dict) -> None:
    """Hard limits, which only root of the whole machine could raise again."""
    wanted = {
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":  # macOS refuses the first and counts the second for all of a user's programs
        wanted[resource.RLIMIT_AS] = limits["memory_bytes"]
        wanted[resource.RLIMIT_NPROC] = 0
    for which, value in wanted.items():
        resource.setrlimit(which, (value, value))


def without_network(libc) -> bool:
    return libc.unshare(NEW_NAMESPACES) == 0


def confine_files(libc, scratch: str, readable: list[str]) -> bool:
    """Landlock: from here on only these paths, whatever the program does."""
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return False
    handled = FIRST_RIGHTS | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(444, attributes, size, 0)
    if ruleset < 0:
        return False
    rules = [(path, READ) for path in readable]
    rules += [("/dev/null", READ_FILE | WRITE_FILE), ("/dev/urandom", READ_FILE), (scratch, SCRATCH)]
    for path, rights in rules:
        if not os.path.exists(path):
            continue
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights &= handled if os.path.isdir(path) else handled & OF_FILES
        added = libc.syscall(445, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
        os.close(fd)
        if added != 0:
            return False
    done = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return done


def filter_calls(libc) -> bool:
    """seccomp: the listed system calls answer "not permitted" in this process and what it becomes."""
    if platform.machine() not in ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    architecture, column = ARCHITECTURES[platform.machine()]
    numbers = [int(number) for call in CALLS if (number := call.split(":")[1 + column])]
    load, equal, at_least, back = 0x20, 0x15, 0x35, 0x06
    refuse, allow, kill = (back, 0, 0, 0x00050001), (back, 0, 0, 0x7FFF0000), (back, 0, 0, 0x80000000)
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), kill, (load, 0, 0, 0)]
    if platform.machine() == "x86_64":  # the second set of numbers (x32) that reaches the same calls
        program += [(at_least, 0, 1, 0x40000000), refuse]
    for number in numbers:
        program += [(equal, 0, 1, number), refuse]
    program.append(allow)
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    whole = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    return libc.prctl(22, 2, whole, 0, 0) == 0


def python_paths() -> list[str]:
    """What an interpreter reads to run: itself, its library, the system's libraries, time zones."""
    paths = sysconfig.get_paths()
    own = [sys.executable, paths["stdlib"], paths["platstdlib"], os.path.join(sys.base_prefix, "lib")]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    here = os.path.dirname(os.path.abspath(__file__))
    return [os.path.realpath(path) for path in [*own, *system, os.path.join(here, "python_child.py")]]


def main() -> None:
    request = json.load(sys.stdin)
    set_limits(request["limits"])
    walls = ["limits"]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if without_network(libc):
            walls.append("namespaces")
        if libc.prctl(38, 1, 0, 0, 0) == 0:  # no new rights by exec, which the next two ask for
            walls += ["landlock"] * confine_files(libc, request["scratch"], python_paths())
            walls += ["seccomp"] * filter_calls(libc)
    os.lseek(0, 0, os.SEEK_SET)
    child = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python_child.py")
    python = os.path.realpath(sys.executable)
    os.execve(python, [python, "-I", "-S", "-B", "-u", "-X", "utf8", child, sys.argv[1], ",".join(walls)], {})


if __name__ == "__main__":
    main()
