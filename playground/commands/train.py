"""`playground train`: a short LoRA fine-tune in the terminal, with the same settings as the form.

The same command is the trainer process that the app starts: `playground train --run-folder FOLDER`.
"""

import argparse
from pathlib import Path

from playground.commands import add_settings, settings
from playground.config import Paths, TrainConfig, check, fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: playground train --recipe tool-calling. Ctrl-C stops after the step and keeps the adapter."
    )
    parser.add_argument("--run-folder", type=Path, help="do the run that this folder describes (or go on with it)")
    add_settings(parser, TrainConfig)


def main(args: argparse.Namespace) -> dict:
    from playground.errors import PlaygroundError
    from playground.services import runs
    from playground.services.sources import Sources

    paths = Paths()
    if args.run_folder:
        run = runs.Run(args.run_folder.expanduser().resolve())
        check(run.config)
    else:
        run = runs.create(config_of(args), paths)
    print(f"run {run.name} in {run.folder}", flush=True)
    from playground.services.trainer import train

    result = train(run, paths, Sources(paths), tell=print_event)
    if result["state"] == "failed":
        raise PlaygroundError(result["sentence"])
    for line in closing_lines(result):
        print(line, flush=True)
    return result


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The recipe's settings with the given flags on top."""
    from playground.core.training.recipes import recipe

    if name := getattr(args, "recipe", ""):
        given = {f.name: getattr(args, f.name) for f in fields(TrainConfig) if hasattr(args, f.name)}
        return recipe(name).config(**given)
    return settings(args, TrainConfig)


def print_event(event: dict) -> None:
    if line := event_line(event):
        print(line, flush=True)


def event_line(event: dict) -> str | None:
    """An event of a run as one line for people; None for those that say nothing to them."""
    match event["kind"]:
        case "state":
            return f"{event['state']}: {event['sentence']}" if event["sentence"] else event["state"]
        case "queue":
            return f"waiting: {event['before']} {'run' if event['before'] == 1 else 'runs'} before this one"
        case "plan":
            return (
                f"{event['sentence']}\n{event['train_rows']:,} rows to train on, {event['held_out_rows']:,} held out, "
                f"{event['steps']:,} steps, {event['trainable']:,} trained parameters, "
                f"{event['dtype']} on {event['device']}"
            )
        case "fetch":
            return event["text"]
        case "step":
            return (
                f"step {event['step']}/{event['steps']}  loss {event['loss']:.4f}  lr {event['lr']:.2e}  "
                f"norm {event['grad_norm']:.2f}  {event['tokens_per_second']:,.0f} tokens/s  "
                f"{event['memory'] / 2**30:.2f} GiB  {duration(event['eta'])} left"
            )
        case "eval":
            return f"step {event['step']}  held-out loss {event['eval_loss']:.4f}"
        case "sample":
            return f"step {event['step']}  {event['prompt']!r} → {event['text']!r}"
        case "truth":
            return f"truth check {'passed' if event['passed'] else 'FAILED'}: {event['sentence']}"
        case "scores":
            return f"exact calls on held-out questions: {event['summary']} ({event['seconds']:.0f} s)"
    return None


def closing_lines(result: dict) -> list[str]:
    lines = [f"adapter: {result['adapter']}"] if result["adapter"] else []
    return [*lines, f"{result['steps']:,} steps in {result['seconds']:.0f} s of training"]


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
