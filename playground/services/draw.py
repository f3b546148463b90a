"""An image model as a tool, where diffusers is installed: words go in, a picture for the reader comes out.

The model is a folder or a Hub id in the layout of diffusers, with safetensors; code that a repository brings is not
run. One picture is drawn at a time. After every step it is looked whether the visitor has stopped or time is up.
"""

import base64
import html
import importlib.util
import inspect
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from playground.core.tools import PICTURE, Tool, ToolError
from playground.errors import PlaygroundError
from playground.services.loading import TURN
from playground.services.sources import HUB_ID

NAME = "draw_picture"
ABSENT = "diffusers is not installed here: pip install -e '.[images]'"
LONGEST = 400  # characters of a prompt; the usual text encoders read 77 tokens
STEPS, MAX_STEPS = 8, 50
SECONDS = 300.0
LARGEST = 512  # pixels of the longer side, as the page is sent it
STOPPED = "The visitor stopped before the picture was done."


def installed() -> bool:
    return importlib.util.find_spec("diffusers") is not None


class Studio:
    """The image model of this process: the last one asked for is kept, and draws one picture at a time."""

    def __init__(self, load: Callable | None = None):
        self.lock = threading.Lock()
        self._load, self._kept = load or load_pipeline, ("", None)
        self._loader = ThreadPoolExecutor(1, "image model")

    def begin(self, where: str) -> Future:
        """Load a model in the background, one after the other; the future holds the pipeline or why there is none."""
        return self._loader.submit(self._get, where.strip())

    def _get(self, where: str):
        if self._kept[0] != where or self._kept[1] is None:
            self._kept = ("", None)  # the memory of the last one
            self._kept = (where, self._load(where))
        return self._kept[1]


def load_pipeline(where: str):
    """The pipeline of a folder or a Hub id, on the GPU where there is one. Raises PlaygroundError."""
    where = (where or "").strip()
    if not installed():
        raise PlaygroundError(ABSENT)
    folder = Path(where).expanduser()
    if not where or not (folder.is_dir() or HUB_ID.fullmatch(where)):
        raise PlaygroundError(f"{where!r} is no image model: give a folder with a model_index.json, or a Hub id")
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise PlaygroundError(
            f"the folder {folder.name} has no model_index.json, which an image model of diffusers has"
        )
    import torch
    from diffusers import DiffusionPipeline

    there = torch.cuda.is_available()
    try:
        with TURN:
            pipeline = DiffusionPipeline.from_pretrained(
                str(folder) if folder.is_dir() else where,
                use_safetensors=True,
                torch_dtype=torch.float16 if there else torch.float32,
            )
    except Exception as error:  # files of anybody's, read by a library that has errors of many kinds
        raise PlaygroundError(f"{where} cannot be loaded as an image model: {_line(error)}") from error
    takes = inspect.signature(pipeline.__call__).parameters
    missing = [name for name in ("prompt", "num_inference_steps", "callback_on_step_end") if name not in takes]
    if missing:
        why = "draws without words" if missing[0] == "prompt" else "cannot be stopped between its steps"
        raise PlaygroundError(f"{where} is a {type(pipeline).__name__}, which {why}; choose a text-to-image model")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if there else "cpu")


def make(
    pipeline: Callable,
    title: str,
    steps: int = STEPS,
    watch: Callable[[], Callable[[], bool]] = lambda: lambda: False,
    seconds: float = SECONDS,
    lock=None,
) -> Tool:
    """`watch()` is called as a picture begins, and what it returns after every step: whether it shall end there.

    Those who share a pipeline share its `lock`.
    """
    if not 1 <= steps <= MAX_STEPS or steps != int(steps):
        raise PlaygroundError(f"a picture takes 1 to {MAX_STEPS} steps, got {steps}")
    lock = lock or threading.Lock()

    def run(prompt: str) -> dict:
        if not prompt.strip():
            raise ToolError("The prompt is empty; say in words what shall be seen.")
        if len(prompt) > LONGEST:
            raise ToolError(f"The prompt has {len(prompt):,} characters, at most {LONGEST} are drawn.")
        if not lock.acquire(blocking=False):
            raise ToolError("Another picture is being drawn; ask again when it is done.")
        try:
            image = _drawn(pipeline, prompt, int(steps), watch(), seconds)
        finally:
            lock.release()
        about = {"drawn": prompt, "model": title, "size": f"{image.width} x {image.height}", "steps": int(steps)}
        return {**about, PICTURE: {"svg": _svg(image), "alt": f"Picture drawn by {title}: {prompt}"}}

    parameters = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
    return Tool(NAME, "Draw a picture of what is described in words", parameters, run)


def _drawn(pipeline: Callable, prompt: str, steps: int, cancelled: Callable[[], bool], seconds: float):
    deadline = time.monotonic() + seconds

    def look(_pipeline, step: int, _time, values: dict) -> dict:
        if cancelled():
            raise ToolError(STOPPED)
        if time.monotonic() > deadline:
            raise ToolError(f"The picture was not done within {seconds:g} seconds: {step + 1} of {steps} steps.")
        return values

    try:
        images = pipeline(prompt=prompt, num_inference_steps=steps, callback_on_step_end=look).images
    except (RuntimeError, ValueError, TypeError) as error:  # out of memory; a model that needs more than words
        raise ToolError(f"The picture could not be drawn: {_line(error)}") from error
    return images[0]


def _svg(image) -> str:
    """The picture inside an SVG, which is what a tool's picture is, and small enough for a page."""
    small = image.convert("RGB")
    small.thumbnail((LARGEST, LARGEST))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=88)
    data = html.escape(base64.b64encode(out.getvalue()).decode())
    size = f'width="{small.width}" height="{small.height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {small.width} {small.height}">'
        f'<image {size} href="data:image/jpeg;base64,{data}"/></svg>'
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
