"""How much memory a training process holds, and giving back what it holds and does not use."""

import contextlib
import ctypes
import sys

import psutil
import torch

# A process that holds this many bytes more than after its first step gives memory back. That is not free: what was
# given back has to be asked for again, page by page; done after every step it cost a quarter of the time.
GROWTH = 3 * 2**30


def memory(device) -> int:
    """Bytes: the most that CUDA has held, or what the process holds now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss


def peak_memory(device) -> int:
    """Bytes: the most that CUDA has held, or the most that this process has held, since its start."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    # Linux hands getrusage's maximum on to a child, so that a trainer would start with the peak of the app
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024
    import resource

    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def give_back() -> None:
    """Return what malloc holds in pieces: steps of many shapes otherwise make the process grow from 2 to 4 GiB."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
