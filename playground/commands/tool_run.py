"""`playground tools run` and `playground tools mcp`: the app's tools for a model, or for another program."""

import argparse
import json
import sys
from collections.abc import Iterable

from playground.core.jsonl import printable
from playground.errors import PlaygroundError

MODEL = "smollm2-135m-instruct"
TUNED = f"{MODEL}+tool-calling"
FORMAT_HELP = "auto (by default): the template's own; or a format's name, which is told to the model"


def shown(call) -> dict:
    from playground.core.tool_formats import Call

    if isinstance(call, Call):
        return {"name": call.name, "arguments": call.arguments}
    return {"fault": call.kind, "name": call.name, "reason": call.reason, "raw": call.raw}


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", help="what to ask; '-' reads it from standard input")
    parser.add_argument(
        "--lane", default=TUNED, metavar="MODEL[+ADAPTER][@TEMPLATE]", help=f"who is asked (default {TUNED})"
    )
    parser.add_argument(
        "--tools",
        metavar="NAME[,NAME]",
        help="the tools on offer: all, or names (default: calculator,get_weather, which the shipped adapter knows)",
    )
    parser.add_argument("--format", default="auto", metavar="NAME", help=FORMAT_HELP)
    parser.add_argument("--show-prompt", action="store_true", help="print the exact prompt of every turn")
    parser.add_argument("--max-turns", type=int, default=5, metavar="N", help="turns at most (5)")


def run(args: argparse.Namespace) -> dict:
    question = (sys.stdin.read() if args.question == "-" else args.question).strip()
    if not question:
        raise PlaygroundError("the question is empty; ask something, as in: playground tools run 'What is 23 * 47?'")
    if args.max_turns < 1:
        raise PlaygroundError(f"--max-turns must be at least 1, got {args.max_turns}")
    from playground.config import Paths
    from playground.core import scorecard, toolloop
    from playground.core.messages import Conversation
    from playground.core.tools import TOOLS
    from playground.services import scorecards
    from playground.services.engine import Engine, Lane
    from playground.services.sources import Sources
    from playground.services.turns import EngineTurn

    tools = _tools(args.tools, TOOLS)
    paths = Paths()
    engine = Engine(Sources(paths), paths)
    try:
        asked = scorecards.entrant(engine, Lane.parse(args.lane), args.format)
        conversation = Conversation([{"role": "user", "content": question}], [tool.schema for tool in tools])

        def generate(conversation: Conversation) -> EngineTurn:
            if asked.announced:
                conversation = scorecard.told(conversation, asked.format)
            return EngineTurn(engine.reply(asked.lane, conversation, stop=asked.format.STOPS))

        about = {"question": question, "lane": asked.column.title, "template": asked.column.template}
        result = {**about, "format": asked.format.NAME, "steps": [], "answer": None, "stopped": None}
        if not args.json:
            print(f"{result['lane']}, template {result['template']}, calls in the {result['format']} format")
        for event in toolloop.run(generate, conversation, tools, asked.format, args.max_turns):
            step = printable(_step(event))
            if step is None:
                continue
            result["steps"].append(step)
            if event.kind == "answer":
                result["answer"] = step["text"]
            if event.kind == "stopped":
                result["stopped"] = event.reason
            if not args.json:
                _print_step(step, args.show_prompt)
    finally:
        engine.close()
    return result


def _tools(names: str | None, default: Iterable[str]) -> list:
    """Fresh tools; those that can be live ask the network, and fall back on what this app holds."""
    from playground.core.tools import catalog, make_tools
    from playground.core.tools.catalog import PYTHON
    from playground.services.python_tool import Python, allowed
    from playground.services.web import fetch_json

    # whoever types a command here is on this machine
    python = allowed("")
    there = [entry.name for entry in catalog(python)]
    wanted = list(default) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise PlaygroundError(f"--tools names no tool; there are all, or {', '.join(there)}")
    wanted = there if wanted == ["all"] else wanted
    return make_tools(wanted, fetch_json, Python() if python and PYTHON in wanted else None)


def _step(event) -> dict | None:
    """An event of the loop as JSON; None for what is said again by a later one."""
    at = {"step": event.kind, "turn": event.turn}
    match event.kind:
        case "prompt" | "answer" | "error" | "stopped":
            return {**at, "text": event.text}
        case "parsed":
            return {**at, "step": "raw", "text": event.text}
        case "call":
            return {**at, **shown(event.call)}
        case "verdict":
            fault = event.fault
            return {**at, "valid": fault is None, **({"fault": fault.kind, "reason": fault.reason} if fault else {})}
        case "result":
            ran = event.fault is None or event.fault.kind == "tool_error"
            return {**at, "text": event.text, "run": ran, "seconds": round(event.seconds, 3)}
    return None


def _print_step(step: dict, show_prompt: bool) -> None:
    kind = step["step"]
    if kind == "prompt":
        print(f"--- turn {step['turn']}")
        if show_prompt:
            _print_under("prompt", step["text"])
    elif kind == "call":
        written = (
            step["raw"] if "fault" in step else f"{step['name']} {json.dumps(step['arguments'], ensure_ascii=False)}"
        )
        _print_under("call", written)
    elif kind == "verdict":
        _print_under("verdict", "fits the tool's schema" if step["valid"] else f"{step['fault']}: {step['reason']}")
    elif kind == "result":
        _print_under("result" if step["run"] else "not run", step["text"])
    else:
        _print_under(kind, step["text"] or "(nothing)")


def _print_under(title: str, text: str) -> None:
    print(f"{title:<10} " + text.replace("\n", "\n" + " " * 11), flush=True)


# --- mcp ---


def add_mcp(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " It speaks on standard input and output, as a program expects of a server that it starts:"
        " give `playground tools mcp` as the command. With --port it is a web address."
    )
    parser.add_argument(
        "--tools", metavar="NAME[,NAME]", help="the tools that are served: all, or names (default: all but python)"
    )
    parser.add_argument("--port", type=int, metavar="N", help="serve http://127.0.0.1:N/mcp instead, to this machine")


def mcp(args: argparse.Namespace) -> None:
    from playground.core.tools import catalog
    from playground.services import mcp_server

    if args.port is not None and not 1 <= args.port <= 65535:
        raise PlaygroundError(f"--port must be between 1 and 65535, got {args.port}")
    tools = _tools(args.tools, [entry.name for entry in catalog(python=False)])
    if args.port is None:
        mcp_server.serve(tools)  # standard output belongs to the protocol: nothing else may be printed
    else:
        print(f"{len(tools)} tools at http://127.0.0.1:{args.port}/mcp; Ctrl-C ends it", flush=True)
        mcp_server.serve_http(tools, args.port)
