"""Memory of a page that runs for days: closed pages are forgotten, and what was freed goes back to the system."""

import ctypes
import datetime
import sys
import threading
import time

import gradio as gr

EVERY = 30.0  # seconds
CLOSED = 16  # closed pages whose state is kept, so that who comes back finds the chat
UNUSED = datetime.timedelta(minutes=2)  # an open page asks for news at least once a minute


M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h


def settle() -> None:
    """To be called before the first threads: how glibc hands out memory, so that long-lived blocks leave no holes.

    Blocks from 1 MiB on (what the model has read, the caches of a batch) are mapped one by one and go back when freed;
    threads share two heaps, where each of gradio's hundred could have one of its own.
    """
    if sys.platform.startswith("linux") and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, 2**20)
        mallopt(M_ARENA_MAX, 2)


def start(page: gr.Blocks) -> None:
    """Look after the memory of a launched page for as long as the process lives."""
    threading.Thread(target=_go_on, args=(page,), name="housekeeping", daemon=True).start()


def _go_on(page: gr.Blocks) -> None:
    while True:
        time.sleep(EVERY)
        forget_closed(page)
        give_back()


def forget_closed(page: gr.Blocks) -> int:
    """Let go of what closed pages held (1.3 MB each), but for the newest `CLOSED`; says how many were forgotten.

    gradio keeps it until `state_session_capacity` other pages were opened. A page that was closed and came back still
    counts as closed there, so one that was used a moment ago is left alone.
    """
    holder = page.state_holder
    closed = [key for key, state in list(holder.session_data.items()) if state.is_closed]  # the longest unused first
    before = datetime.datetime.now() - UNUSED
    gone = [key for key in closed[:-CLOSED] if holder.time_last_used.get(key, before) <= before]
    for key in gone:
        holder.delete_state(key)  # as gradio does it, with each state's own clean-up
        holder.session_data.pop(key, None)
        holder.time_last_used.pop(key, None)
    return len(gone)


def give_back() -> bool:
    """Give freed memory back to the system: by itself glibc does it only at its heap's end. Says whether any went."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
