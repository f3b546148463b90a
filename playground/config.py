"""Settings as frozen dataclasses: the only home of defaults and bounds.

A field's name is the form's key and the CLI's flag; its metadata holds the help text and the bounds.
`parse(TrainConfig, {"rank": "8"})` turns form or CLI strings into a checked config, and every config is
checked again where it is used.
"""

import dataclasses
import math
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from playground.errors import PlaygroundError

PACKAGE = Path(__file__).resolve().parent
# In a checkout assets/ stands beside the package; a wheel carries it inside.
ASSETS = PACKAGE.parent / "assets" if (PACKAGE.parent / "assets" / "models.toml").exists() else PACKAGE / "assets"


def setting(default, help: str, **bounds):
    """A dataclass field with its help text and bounds (`min`, `max`, `above`, `choices`)."""
    return field(default=default, metadata={"help": help, **bounds})


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. Temperature 0 is greedy: always the likeliest token."""

    max_new_tokens: int = setting(200, "longest reply, in tokens", min=1, max=4096)
    temperature: float = setting(0.7, "0 is greedy; higher is more varied", min=0.0, max=5.0)
    top_p: float = setting(0.95, "keep the likeliest tokens that together hold this probability", above=0.0, max=1.0)
    top_k: int = setting(0, "keep at most this many tokens (0: all)", min=0, max=1000)
    min_p: float = setting(0.0, "drop tokens less likely than this share of the likeliest", min=0.0, max=1.0)
    repetition_penalty: float = setting(1.1, "above 1 makes tokens already used less likely", min=0.5, max=3.0)
    seed: int = setting(0, "same seed, same prompt, same reply", min=0, max=2**31 - 1)


# method → what it is, in a few words; the first is the default.
METHODS = {
    "lora": "LoRA: two thin matrices beside each chosen layer",
    "rslora": "rank-stabilised LoRA: the update is scaled by alpha / sqrt(rank), for high ranks",
    "dora": "DoRA: LoRA that learns direction and size of each weight apart; slower",
    "pissa": "PiSSA: LoRA that starts from the weights' largest singular values",
    "eva": "EVA: LoRA that starts from what the layers see of the training rows",
    "qlora": "LoRA on a base held in 4 bits (NF4, double quantisation)",
    "prompt": "prompt tuning: only a few virtual tokens before the prompt are trained",
    "full": "every weight of the model; for tiny models",
}
TWO_STAGES = ("lora", "rslora", "dora", "qlora")  # can follow a soft prompt
LORA_METHODS = ("lora", "rslora", "dora", "pissa", "eva", "qlora")
EVERY_LINEAR, ATTENTION = "all-linear", "attention"
VIEWERS = ("tensorboard", "trackio")  # packages by the same name
NAMES_A_FILE = ("model", "data", "template", "continue_from")
LONGEST_NAME = 255  # of a file or a folder, in bytes
PROBES = 3  # prompts that are asked at each evaluation
FULL_LIMIT = 400_000_000  # parameters; AdamW needs about 16 bytes for each


@dataclass(frozen=True)
class TrainConfig:
    """A fine-tune, complete: the same object on the form, on the command line and in the run's folder."""

    model: str = setting("smollm2-135m-instruct", "base model: a catalog name, a Hub id or a folder")
    data: str = setting("tool-calls", "a built-in data set or a JSON, JSONL or CSV file")
    template: str = setting("chatml-tools", "chat template: a name, 'model' (its own) or a .jinja file")
    name: str = setting("", "name of the run and its adapter (empty: made from the recipe and the time)")
    recipe: str = setting("", "recipe the run was started from")
    rows: int = setting(0, "use at most this many rows (0: all)", min=0, max=10_000_000)
    method: str = setting("lora", "what is trained", choices=tuple(METHODS))
    rank: int = setting(8, "LoRA rank", min=1, max=256)
    alpha: float = setting(16.0, "LoRA alpha; the update is scaled by alpha / rank", above=0.0, max=1024.0)
    dropout: float = setting(0.0, "dropout on the adapter's input", min=0.0, max=0.9)
    targets: str = setting(
        EVERY_LINEAR, "layers that get an adapter: all-linear, attention, or names with commas (q_proj,v_proj)"
    )
    first_layer: int = setting(
        0, "the first layer that gets an adapter, counted from 0; those before it need no backward pass, so steps are "
        "shorter", min=0, max=10_000,
    )  # fmt: skip
    prompt_tokens: int = setting(16, "virtual tokens of method prompt", min=1, max=1024)
    prompt_steps: int = setting(
        0, "steps that train a soft prompt first; it stays, frozen, while the LoRA is trained (0: none)",
        min=0, max=1_000_000,
    )  # fmt: skip
    prompt_learning_rate: float = setting(0.02, "peak learning rate of those first steps", above=0.0, max=10.0)
    continue_from: str = setting("", "go on from this LoRA adapter: a name or a folder (empty: start afresh)")
    new_tokens: str = setting("", "special tokens to add and train, with commas: <|thinking|>,<|/thinking|>")
    learning_rate: float = setting(2e-3, "peak learning rate", above=0.0, max=1.0)
    warmup_steps: int = setting(5, "steps of linear warm-up", min=0, max=100_000)
    final_lr_share: float = setting(0.05, "share of the peak rate left at the last step", min=0.0, max=1.0)
    weight_decay: float = setting(0.0, "AdamW weight decay", min=0.0, max=1.0)
    beta2: float = setting(
        0.999, "AdamW's decay of its mean of squared gradients; 0.98 suits short runs", min=0.0, max=0.99999
    )
    clip: float = setting(1.0, "gradient norm is clipped to this", above=0.0, max=1000.0)
    batch_size: int = setting(8, "rows per step", min=1, max=1024)
    piece_tokens: int = setting(
        0, "most padded tokens in one pass; a step of more is done in pieces (0: by device)", min=0, max=1_000_000
    )
    prefix_every: int = setting(
        0, "steps between two readings of the prompt that all rows begin with (0: exact). Its keys and values are kept "
        "in between and get no gradient, which makes steps of short rows a fifth shorter, but not those of a "
        "model that has layers with sliding windows, such as Gemma's", min=0, max=10_000,
    )  # fmt: skip
    skip_above: float = setting(
        0.0, "labels that the model already gives this probability have no gradient in that step (0: all have one); on "
        "a CPU, what follows a row's last other label is then not run backwards, except in models with sliding windows."
        " With 0.9, late steps are a tenth shorter and more", min=0.0, max=0.999,
    )  # fmt: skip
    epochs: float = setting(1.0, "passes over the rows (ignored when steps is set)", above=0.0, max=1000.0)
    steps: int = setting(0, "optimizer steps (0: from epochs)", min=0, max=10_000_000)
    max_length: int = setting(1024, "longest row in tokens; longer rows are cut, and counted", min=8, max=131_072)
    eval_share: float = setting(0.05, "share of rows held out for the eval loss", min=0.0, max=0.5)
    eval_every: int = setting(10, "steps between two evaluations", min=1, max=100_000)
    eval_rows: int = setting(32, "at most this many rows for the eval loss", min=1, max=10_000)
    patience: int = setting(
        3, "stop after this many evaluations without a better held-out loss (0: never)", min=0, max=1000
    )
    restore_best: bool = setting(True, "at the end, go back to the weights with the best held-out loss")
    probe: str = setting(
        "What is 23 * 47?", "asked of the model in training at each evaluation; up to 3 prompts, one a line"
    )
    probe_tokens: int = setting(48, "longest probe answer, in tokens", min=1, max=1024)
    dtype: str = setting("auto", "weights and adapter", choices=("auto", "bfloat16", "float32"))
    load_in_4bit: bool = setting(False, "hold the base in NF4 (bitsandbytes); slow on a CPU")
    threads: int = setting(0, "CPU threads (0: what is fastest now; a fixed number repeats exactly)", min=0, max=1024)
    seed: int = setting(0, "order of the rows and the adapter's start", min=0, max=2**31 - 1)
    log_to: str = setting(
        "none", "write the figures for another viewer, too, into the run's folder", choices=("none", *VIEWERS)
    )
    processes: int = setting(
        1, "processes that share each step's rows, one for each GPU (accelerate launch); same curve", min=1, max=512
    )
    shard: bool = setting(False, "with several processes: each holds only a share of the layers (FSDP)")

    @property
    def quantised(self) -> bool:
        return self.load_in_4bit or self.method == "qlora"

    @property
    def is_lora(self) -> bool:
        return self.method in LORA_METHODS

    @property
    def soft_tokens(self) -> int:
        """Virtual tokens that stand before every row."""
        return self.prompt_tokens if self.method == "prompt" or self.prompt_steps else 0

    @property
    def first_stage(self) -> "TrainConfig":
        """The settings of the soft prompt's own steps, where the run has two stages."""
        changes = {"steps": self.prompt_steps, "learning_rate": self.prompt_learning_rate, "prompt_steps": 0}
        changes |= {"targets": EVERY_LINEAR, "first_layer": 0, "prefix_every": 0}
        return dataclasses.replace(self, method="prompt", **changes)

    @property
    def added_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(filter(None, map(str.strip, self.new_tokens.split(",")))))

    @property
    def probes(self) -> list[str]:
        """The prompts that are asked at each evaluation."""
        return [line.strip() for line in self.probe.splitlines() if line.strip()]

    @property
    def contradiction(self) -> str | None:
        """Two settings that exclude each other, in a sentence that names both; or one that contradicts itself."""
        if len(self.probes) > PROBES:
            return f"the probe has {len(self.probes)} lines; at most {PROBES} prompts are asked, one a line"
        if blank := next((token for token in self.added_tokens if any(c.isspace() for c in token)), ""):
            return f"a new token is a text without blanks, such as <|thinking|>; new_tokens has {blank!r}"
        method, beside = self.method, "a LoRA method (" + ", ".join(LORA_METHODS) + ")"
        if self.quantised and method in ("full", "pissa"):
            why = "trains every weight" if method == "full" else "starts from the base's own weights"
            return (
                f"method {method} {why}, and load_in_4bit holds them in 4 bits, where they cannot be changed; "
                "switch load_in_4bit off or choose method qlora"
            )
        if not self.is_lora and self.targets != EVERY_LINEAR:
            trains = f"{self.prompt_tokens} virtual tokens and no layer" if method == "prompt" else "every layer"
            return f"method {method} trains {trains}, so targets {self.targets!r} means nothing; choose {beside}"
        if not self.is_lora and self.first_layer:
            trains = f"{self.prompt_tokens} virtual tokens and no layer" if method == "prompt" else "every layer"
            return f"method {method} trains {trains}, so first_layer {self.first_layer} means nothing; choose {beside}"
        if not self.is_lora and self.added_tokens:
            return f"new_tokens {self.new_tokens!r} are trained beside LoRA, not with method {method}; choose {beside}"
        if self.continue_from and (not self.is_lora or method in ("pissa", "eva")):
            why = "has a start of its own" if self.is_lora else "makes no LoRA adapter"
            return (
                f"method {method} {why}, so it cannot go on from the adapter {self.continue_from!r}; "
                "choose the method that the adapter was trained with"
            )
        against = next((name for name in ("continue_from", "new_tokens", "shard") if getattr(self, name)), "")
        if self.prompt_steps and (against or method not in TWO_STAGES):
            return (
                f"prompt_steps {self.prompt_steps:,} trains a soft prompt before a LoRA, which does not go with "
                f"{against or f'method {method}'}; set prompt_steps to 0, or "
                + (f"run without {against}" if against else f"choose a method of {', '.join(TWO_STAGES)}")
            )
        if self.soft_tokens >= self.max_length:
            return f"{self.prompt_tokens:,} prompt_tokens leave no room in a max_length of {self.max_length:,}"
        if self.shard and (self.quantised or method in ("pissa", "prompt")):
            what = "load_in_4bit" if self.load_in_4bit else f"method {method}"
            return f"{what} does not go with shard (FSDP); switch shard off, or choose lora, rslora, dora, eva or full"
        why = "shard (FSDP) runs each row whole" if self.shard else ""
        why = "method prompt trains a prompt that all rows begin with" if method == "prompt" else why
        if self.prefix_every and why:
            return (
                f"prefix_every {self.prefix_every:,} keeps what all rows begin with from one step to the next, and "
                f"{why}; set prefix_every to 0"
            )
        if 0 < self.skip_above < 0.5:
            return (
                f"skip_above must be 0 or at least 0.5, got {self.skip_above:g}: a label with less may not be what the "
                "model writes"
            )
        if self.piece_tokens and self.piece_tokens < 8:
            return f"piece_tokens must be 0 or at least 8, got {self.piece_tokens}"
        return None


@dataclass(frozen=True)
class ServeConfig:
    """Where the app listens and what it opens with."""

    host: str = setting("", "address to listen on (empty: GRADIO_SERVER_NAME, else 127.0.0.1)")
    port: int = setting(0, "port (0: GRADIO_SERVER_PORT, else the first free one from 7860)", min=0, max=65535)
    model: str = setting("smollm2-135m-instruct", "model to load at start")
    image_model: str = setting("", "image model of diffusers (folder or Hub id) that the Tools tab may offer as a tool")
    open_browser: bool = setting(False, "open a browser window")
    fast_cpu: bool = setting(False, "decode with 8-bit weights on a CPU: faster, and now and then another word")
    load_in_4bit: bool = setting(
        False,
        "hold models in 4 bits (NF4): less than half the memory; on a CPU 1.2 times the speed of bf16 where it has "
        "AVX512-BF16, else half of it",
    )
    memory_gb: float = setting(0.0, "models may take this many GB of memory (0: most of it)", min=0.0, max=100_000.0)
    endpoints: str = setting("", "lanes elsewhere, as NAME=URL#MODEL, several apart by commas; keys from NAME_API_KEY")
    openai: bool = setting(
        False, "answer OpenAI clients at /v1 too; PLAYGROUND_API_KEY is then the key they must bring"
    )


@dataclass(frozen=True)
class Paths:
    """Everything the app writes, under one folder.

    `PLAYGROUND_HOME` moves it; a Space with a persistent disk sets it to `/data`.
    """

    home: Path = field(
        default_factory=lambda: Path(
            os.environ.get("PLAYGROUND_HOME") or platformdirs.user_cache_path("instruction-tuning-playground")
        ).expanduser()
    )

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def templates(self) -> Path:
        return self.home / "templates"

    @property
    def scorecards(self) -> Path:
        return self.home / "scorecards"

    @property
    def loops(self) -> Path:
        return self.home / "loops"

    @property
    def votes(self) -> Path:
        return self.home / "votes.sqlite3"

    @property
    def licences(self) -> Path:
        return self.home / "accepted-licences.json"


def fields(config_class) -> list[dataclasses.Field]:
    """The fields that a form shows and a command line takes."""
    return [f for f in dataclasses.fields(config_class) if "help" in f.metadata]


def parse(config_class, values: dict):
    """A checked `config_class` from form, JSON or CLI values; strings are converted.

    Raises PlaygroundError naming the field, what was given and what would work. Unknown keys are refused.
    """
    hints = typing.get_type_hints(config_class)
    known = {f.name: f for f in fields(config_class)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise PlaygroundError(f"unknown setting {unknown[0]!r}; the settings are {', '.join(known)}")
    return check(config_class(**{name: _convert(name, value, hints[name]) for name, value in values.items()}))


def check(config):
    """Return `config` unchanged, or raise PlaygroundError for the first value out of its bounds."""
    for f in fields(type(config)):
        value, bounds = getattr(config, f.name), f.metadata
        if "choices" in bounds and value not in bounds["choices"]:
            raise PlaygroundError(f"{f.name} must be one of {', '.join(bounds['choices'])}, got {value!r}")
        if isinstance(value, str):
            _check_text(f.name, value)
        low, high = bounds.get("min", bounds.get("above")), bounds.get("max")
        if low is None and high is None:
            continue
        too_low = value <= low if "above" in bounds else value < low
        if too_low or value > high:
            between = f"above {low:,} and at most {high:,}" if "above" in bounds else f"between {low:,} and {high:,}"
            raise PlaygroundError(f"{f.name} must be {between}, got {value:,}")
    if contradiction := getattr(config, "contradiction", None):
        raise PlaygroundError(contradiction)
    return config


def _check_text(name: str, value: str) -> None:
    """A text must be one that a file can hold, and the name of a file one that a file can have."""
    encoded = value.encode("utf-8", "replace")
    if encoded.decode() != value:
        raise PlaygroundError(f"{name} holds half a character (a lone surrogate), which no file can hold; leave it out")
    if name in NAMES_A_FILE and any(len(part) > LONGEST_NAME for part in encoded.split(b"/")):
        raise PlaygroundError(
            f"{name} is a name or a path, no part of it longer than {LONGEST_NAME} bytes; got {len(value):,} "
            f"characters, {value[:40]!r} …"
        )


def _convert(name: str, value, kind: type):
    if kind is bool and isinstance(value, str):
        if value.strip().lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return value.strip().lower() in ("true", "yes", "on", "1")
        raise PlaygroundError(f"{name} must be true or false, got {value!r}")
    if kind not in (int, float):
        return kind(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        given = "nothing" if value is None else repr(value)
        raise PlaygroundError(f"{name} must be a number, got {given}") from None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise PlaygroundError(f"{name} must be a {'whole' if kind is int else 'finite'} number, got {value!r}")
    return kind(number)
