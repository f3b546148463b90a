"""`playground bench soak`: scripted visitors chat with the running page for minutes, as browsers do.

Each visitor is a Gradio client with a session of its own: it asks all lanes a question with its own mark in it, reads
what the page shows, goes on, and now and then leaves in the middle of an answer. Counted are answers, refusals (a full
queue says so), mixed conversations (another visitor's mark, or a turn too many), answers that never end, and how much
memory the app has taken on since its warm-up. In that the model is loaded and what has a bound fills up: what was
read before (core.prefixes), torch's kernels (cli.KERNEL_CACHES) and the closed pages (ui.housekeeping).
"""

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field

import psutil

from playground.errors import PlaygroundError

STUCK = 600  # seconds for one answer
LEAVES = 0.05  # of the questions: the visitor closes the page while the lanes answer
TURNS = 3  # then the visitor opens a new page
ARRIVAL = 15.0  # seconds in which the visitors come, one after the other
PATIENCE = {"timeout": 60}  # seconds for one request: thirty pages are opened at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--visitors", type=int, default=30, help="visitors at the same time")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--warm-up", type=float, default=3.0, help="of these minutes, those before memory is compared")
    parser.add_argument("--tokens", type=int, default=12, help="longest reply of a lane")
    parser.add_argument("--lanes", type=int, default=2, choices=(2, 3, 4), help="lanes of each visitor")
    parser.add_argument("--port", type=int, default=7897, help="port of the app that is started for it")


@dataclass
class Seen:
    """What all visitors saw. Changed under `lock`."""

    answers: int = 0
    left: int = 0
    refused: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    stuck: int = 0
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def main(args: argparse.Namespace) -> dict:
    if args.visitors < 1 or args.minutes <= 0 or args.tokens < 1:
        raise PlaygroundError(
            f"visitors, minutes and tokens must be above 0; got {args.visitors}, {args.minutes:g} and {args.tokens}"
        )
    if not 0 < args.warm_up < args.minutes:
        raise PlaygroundError(
            f"the warm-up must be above 0 and below the {args.minutes:g} minutes in all, got {args.warm_up:g}"
        )
    seen, over = Seen(), threading.Event()
    with app(args.port) as (url, process):
        answered(url, args)  # the model is there
        threads = [
            threading.Thread(target=visit, args=(url, number, args, seen, over), daemon=True)
            for number in range(args.visitors)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        memory = watch(process, args.minutes * 60, args.warm_up * 60, started, seen)
        over.set()
        for thread in threads:
            thread.join(STUCK)
        seen.stuck += sum(thread.is_alive() for thread in threads)
        seconds = time.monotonic() - started
    warm_up = args.warm_up * 60
    grown = memory[max(memory)] / memory[warm_up] - 1
    result = {
        "visitors": args.visitors,
        "seconds": round(seconds, 1),
        "answers": seen.answers,
        "left": seen.left,
        "refused": len(seen.refused),
        "mixed": len(seen.mixed),
        "stuck": seen.stuck,
        "median_seconds": round(statistics.median(seen.seconds), 2) if seen.seconds else None,
        "memory_growth": round(grown, 4),
        "warm_up_seconds": round(warm_up, 1),
        "memory_gib": {round(at): round(value / 2**30, 3) for at, value in memory.items()},
    }
    print(
        f"{seen.answers} answers to {args.visitors} visitors in {seconds:.0f} s (median {result['median_seconds']} s), "
        f"{seen.left} left, {len(seen.refused)} refused, {len(seen.mixed)} mixed, {seen.stuck} stuck; "
        f"memory {100 * grown:+.1f} % since the warm-up of {warm_up:.0f} s, in which the caches fill to their bounds"
    )
    for sentence in [*seen.mixed[:5], *dict.fromkeys(seen.refused[:5])]:
        print(f"  {sentence}")
    return result


@contextlib.contextmanager
def app(port: int):
    """The app as a process of its own, once its page is there: (address, process)."""
    command = [sys.executable, "-m", "playground", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError):
                json.load(urllib.request.urlopen(url + "config", timeout=10))
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise PlaygroundError(f"the app did not come up on port {port}; choose another with --port")
            time.sleep(0.5)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def answered(url: str, args: argparse.Namespace) -> None:
    """Ask once and wait for the answer: it comes when the model is loaded."""
    from gradio_client import Client

    client = Client(url, verbose=False, httpx_kwargs=PATIENCE)
    client.submit("Name a fruit.", api_name="/chat", **settings(client, args)).result(timeout=STUCK)


def watch(process: psutil.Process, seconds: float, warm_up: float, started: float, seen: Seen) -> dict[float, int]:
    """The app's memory by seconds since the start: at each minute, at the end of the warm-up, and at the end."""
    memory = {}
    for at in sorted({*range(60, int(seconds) + 1, 60), warm_up, seconds} - {0}):
        time.sleep(max(0.0, at - (time.monotonic() - started)))
        memory[at] = process.memory_info().rss
        what = ", warm" if at == warm_up else ""
        print(f"{at:.0f} s{what}: {seen.answers} answers, {memory[at] / 2**30:.3f} GiB", flush=True)
    return memory


def visit(url: str, number: int, args: argparse.Namespace, seen: Seen, over: threading.Event) -> None:
    from gradio_client import Client

    pick, turn, page = random.Random(number), TURNS, contextlib.ExitStack()
    over.wait(ARRIVAL * number / args.visitors)
    while not over.is_set():
        if turn == TURNS:
            page.close()  # as a browser does it; a client that is let go keeps its page open
        begun = time.monotonic()
        try:
            if turn == TURNS:  # a new page, a new session
                client, turn, asked = Client(url, verbose=False, httpx_kwargs=PATIENCE), 0, []
                page.callback(client.close)
            asked.append(f"Mark {number}-{pick.randrange(10**6)}: name a fruit.")
            job = client.submit(asked[-1], api_name="/chat", **settings(client, args))
            if pick.random() < LEAVES:
                time.sleep(pick.random())
                job.cancel()
                turn = TURNS
                with seen.lock:
                    seen.left += 1
                continue
            shown = job.result(timeout=STUCK)
        except TimeoutError:
            with seen.lock:
                seen.stuck += 1
            turn = TURNS
            continue
        except Exception as error:  # noqa: BLE001 (the client raises what the page refused with; it is told)
            with seen.lock:
                seen.refused.append(f"visitor {number}: {type(error).__name__} {error}"[:200])
            turn = TURNS
            time.sleep(1)
            continue
        wrong = [sentence for chat in chats(shown)[: args.lanes] if (sentence := fault(chat, asked))]
        with seen.lock:
            seen.answers += 1
            seen.seconds.append(time.monotonic() - begun)
            seen.mixed += [f"visitor {number}: {sentence}" for sentence in wrong]
        turn += 1
    page.close()


def settings(client, args: argparse.Namespace) -> dict:
    """The form as the page opens it, with short replies; fields without a value are empty."""
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/chat"]["parameters"]
    given = {p["parameter_name"]: None for p in info if not p["parameter_has_default"]}
    labels = {p["label"]: p["parameter_name"] for p in info}
    return {**given, labels["max new tokens"]: args.tokens, "count": args.lanes}


def chats(shown) -> list[list[dict]]:
    """The conversations among what the page shows, one for each lane."""
    return [part for part in shown if isinstance(part, list) and (not part or isinstance(part[0], dict))]


def fault(chat: list[dict], asked: list[str]) -> str:
    """What is wrong with a lane's conversation; empty where it holds the visitor's own questions and nothing else."""
    said = [_text(message["content"]) for message in chat if message["role"] == "user"]
    if said != asked:
        return f"asked {asked}, and the page shows {said}"
    roles = [message["role"] for message in chat]
    return (
        ""
        if roles.count("assistant") <= len(asked)
        else f"{roles.count('assistant')} answers to {len(asked)} questions"
    )


def _text(content) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return str(content)
