"""`playground train`: a short fine-tune in the terminal, with the same settings as the form.

The same command is the trainer process that the app starts: `playground train --run-folder FOLDER`.

Several processes share a run under `accelerate launch -m playground train …`, or with --processes N, which launches
them itself. Two processes on one CPU are tested to match one; several GPUs have not been run.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from playground.commands import add_settings, settings
from playground.config import ASSETS, Paths, TrainConfig, check, fields

LAUNCH_CONFIGS = ("ddp", "fsdp", "zero2", "zero3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: playground train --recipe tool-calling. Ctrl-C stops after the step and keeps the adapter."
    )
    parser.add_argument("--run-folder", type=Path, help="do the run that this folder describes (or go on with it)")
    parser.add_argument(
        "--estimate", action="store_true", help="say what memory and time it takes, and do nothing else"
    )
    parser.add_argument(
        "--device-memory", type=float, metavar="GIB", help="with --estimate: for a GPU with this much free memory"
    )
    parser.add_argument(
        "--launch-config",
        choices=LAUNCH_CONFIGS,
        help="print a config file for accelerate launch --config_file, and do nothing else (zero2 and zero3 are for "
        "the script that playground export --as trl makes)",
    )
    add_settings(parser, TrainConfig)
    for field in fields(TrainConfig):
        if field.default is True:
            flag = "--no-" + field.name.replace("_", "-")
            parser.add_argument(flag, dest=field.name, action="store_const", const=False, default=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> dict:
    from playground.core.training.recipes import command_line
    from playground.errors import PlaygroundError
    from playground.services import runs
    from playground.services.figures import look_at
    from playground.services.sources import Sources

    paths = Paths()
    if args.launch_config:
        print(launch_config(args.launch_config), end="")
        return {"launch_config": str(ASSETS / "accelerate" / f"{args.launch_config}.yaml")}
    if args.estimate:
        return estimate_only(config_of(args), args.device_memory, paths)
    config = check(runs.Run(args.run_folder.expanduser().resolve()).config) if args.run_folder else config_of(args)
    launched = "LOCAL_RANK" in os.environ
    if config.processes > 1 and not launched:
        from playground.core.training.ranks import check_processes

        check_processes(config.processes)
        run = runs.Run(args.run_folder.expanduser().resolve()) if args.run_folder else runs.create(config, paths)
        launch(run, config)
    from playground.services.trainer import train

    ranks = None
    if launched:
        from playground.core.training.ranks import join, leave

        ranks = join(config.shard)

    def found() -> str:
        return str(args.run_folder.expanduser().resolve() if args.run_folder else runs.create(config, paths).folder)

    run = runs.Run(Path(ranks.from_first(found) if ranks else found()))
    first = ranks is None or ranks.first
    if first:
        print(f"run {run.name} in {run.folder}\n{command_line(run.config)}", flush=True)
    result = train(run, paths, Sources(paths), tell=print_event, ranks=ranks)
    if ranks is not None and result["state"] != "failed":  # after a failure, who waits for this process is to notice
        leave(ranks)
    if not first:
        return None
    if result["state"] == "failed":
        raise PlaygroundError(result["sentence"])
    for line in closing_lines(result):
        print(line, flush=True)
    if run.config.log_to != "none":
        print(f"figures: {look_at(run.config.log_to, run.folder)}", flush=True)
    return result


def launch(run, config: TrainConfig) -> None:
    """Become the launcher of the run's processes, under this process's id."""
    from playground.services.trainer import SPIN

    command = launch_line(run.folder, config)
    print(f"{' '.join(command[2:])}", flush=True)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # in the processes themselves it would be too late
    os.execv(command[0], command)


def launch_line(folder: Path, config: TrainConfig) -> list[str]:
    # Without a GPU, too: --cpu would start a single process unless it is given MPI. The processes find out themselves.
    words = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    words += ["--num_processes", str(config.processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*words, "--main_process_port", "0", "-m", "playground", "train", "--run-folder", str(folder)]


def launch_config(name: str) -> str:
    return (ASSETS / "accelerate" / f"{name}.yaml").read_text(encoding="utf-8")


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The recipe's settings with the given flags on top."""
    from playground.core.training.recipes import recipe

    if name := getattr(args, "recipe", ""):
        given = {f.name: getattr(args, f.name) for f in fields(TrainConfig) if hasattr(args, f.name)}
        return recipe(name).config(**given)
    return settings(args, TrainConfig)


def estimate_only(config: TrainConfig, gib: float | None, paths: Paths) -> dict:
    """Print memory, time and what would make it fit. `model` may be a folder, a model by name, or a known shape."""
    from playground.core import estimate

    device = estimate.gpu("", int(gib * estimate.GIB)) if gib else _here()
    shape = _shape(config, paths)
    again = None if gib else _work(config, device, paths)
    work = again(config) if again else None
    found = estimate.estimate(shape, config, device, work, again)
    print(f"{config.model}, method {config.method}: {found.sentence()}")
    for name, number in found.parts.items():
        print(f"  {name:<12}{estimate.size(number):>10}")
    print(f"{found.trainable:,} of {shape.numbers:,} numbers are trained")
    if config.prompt_steps:
        print(f"before them, {estimate.trainable(shape, config.first_stage):,} in the soft prompt")
    if work is None:
        print(f"every row counted as {config.max_length:,} tokens, the longest that max_length allows")
    elif found.seconds is not None:
        print(f"about {duration(found.seconds)} for {work.steps:,} steps and their evaluations")
    for change in found.changes:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in change.settings.items())
        print(f"{flags}: {change.words} ({change.estimate.verdict}, {estimate.size(change.estimate.total)})")
    return found.as_dict()


def _here():
    import torch

    from playground.core.training import methods

    mps = "mps" if torch.backends.mps.is_available() else "cpu"
    return methods.device("cuda" if torch.cuda.is_available() else mps)


def _shape(config: TrainConfig, paths: Paths):
    from playground.core import estimate
    from playground.services.sources import Sources

    if config.model in estimate.KNOWN:
        return estimate.shape_of(estimate.KNOWN[config.model])
    folder = Path(config.model).expanduser()
    return estimate.read_shape(folder if (folder / "config.json").exists() else Sources(paths).get(config.model))


def _work(config: TrainConfig, device, paths: Paths):
    """What counts the rows under any settings; None for a known shape, which has no tokenizer."""
    from playground.core import datasets, estimate
    from playground.core.tokenizer import Tokenizer
    from playground.core.training.collate import prepare
    from playground.services.sources import Sources
    from playground.services.templates import Templates

    if config.model in estimate.KNOWN:
        return None
    folder = Path(config.model).expanduser()
    tokenizer = Tokenizer.load(folder if folder.is_dir() else Sources(paths).get(config.model))
    data = datasets.load(config.data, paths)
    template = Templates(paths).load(config.template, tokenizer)
    return partial(estimate.work_of, prepare(config, data.conversations, template, tokenizer, data), device=device)


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
                f"{event['steps']:,} steps{trained_words(event)}, "
                f"{event['dtype']} on {event['device']}" + _memory(event.get("estimate"))
            )
        case "stage":
            return f"stage {event['stage']} of 2: {event['name']}, {event['trainable']:,} trained parameters"
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
        case "scoring":
            return f"{'tuned' if event['tuned'] else 'untuned'}: {event['done']} of {event['of']} answers"
        case "scores":
            return f"{event['what']} on held-out questions: {event['summary']} ({event['seconds']:.0f} s)"
        case "early_stop":
            return (
                f"no better held-out loss in {event['waited']} evaluations: "
                f"the best was {event['best_loss']:.4f} at step {event['best_step']}"
            )
    return None


def trained_words(plan: dict) -> str:
    return f", {plan['trainable']:,} trained parameters" if plan.get("trainable") is not None else ""


def _memory(estimate: dict | None) -> str:
    return f"\nmemory: {estimate['sentence']}" if estimate else ""


def closing_lines(result: dict) -> list[str]:
    lines = [f"{kind}: {result[kind]}" for kind in ("adapter", "model") if result.get(kind)]
    peak = f", {result['peak_memory'] / 2**30:.2f} GiB at the most" if result.get("peak_memory") else ""
    return [*lines, f"{result['steps']:,} steps in {result['seconds']:.0f} s of training{peak}"]


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
