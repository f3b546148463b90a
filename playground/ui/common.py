"""What more than one tab needs: the services, how an error is shown, how a fetch is shown."""

import functools
import html
import inspect
from dataclasses import dataclass, fields

import gradio as gr

from playground.config import Paths, ServeConfig
from playground.errors import PlaygroundError
from playground.services.fetches import Fetches

# Events without a spinner and without an entry in the API's list. QUIET ones do not wait in the queue either; but an
# error reaches the page through the queue alone (gradio 6.31), so whatever is `shown` is QUEUED.
QUEUED = {"show_progress": "hidden", "api_visibility": "private"}
QUIET = {"queue": False, **QUEUED}


@dataclass(frozen=True)
class Services:
    """What belongs to the process, handed to every tab's `build`."""

    paths: Paths
    sources: object
    engine: object
    jobs: object
    votes: object
    datasets: object = None
    templates: object = None
    fetches: Fetches | None = None
    model: str = ServeConfig.model  # the catalog name the app opened with
    image_model: str = ServeConfig.image_model
    host: str = ServeConfig.host  # the address it listens on; some things are for this machine's own visitors only


def shown(handler):
    """Wrap a handler (function or generator) so that a PlaygroundError is shown on the page as it is."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def wrapper(*args, **kwargs):
            try:
                steps = handler(*args, **kwargs)
                # gradio 6.31 empties every output of a generator that ends without a yield
                yield next(steps, gr.skip())
                yield from steps
            except PlaygroundError as error:
                raise _error(error) from error
    else:

        @functools.wraps(handler)
        def wrapper(*args, **kwargs):
            try:
                return handler(*args, **kwargs)
            except PlaygroundError as error:
                raise _error(error) from error

    wrapper.may_raise = True  # a test holds every such event in the queue
    return wrapper


def whenever(handler, inputs: list | None, outputs, triggers: list | None = None) -> None:
    """Run `handler` whenever one of `triggers` fires, the newest values last; without triggers when the page opens and
    when an input changes.

    When an event finds one of its listeners busy, gradio (6.31) starts *all* its listeners again afterwards: two that
    wait for each other's ends keep the page and the server at work for good. What follows a listener is started again
    alone, so the event itself gets a listener that is never busy (it runs in the browser and does nothing).
    """
    if triggers is None:
        page = gr.context.Context.root_block
        triggers = [*([page.load] if page is not None else []), *(component.change for component in inputs)]
    heard = gr.on(triggers, None, None, None, js="() => []", **QUIET)
    heard.then(handler, inputs, outputs, trigger_mode="always_last", **QUIET)


def sparing(handler, outputs: list):
    """Wrap what a timer asks again and again, so that it sends only what differs from what it sent this page before.

    What was sent is a `gr.State`, its last input and, after `outputs`, its last output.
    """

    def look(*given) -> list:
        *inputs, sent = given
        made = handler(*inputs)
        if isinstance(made, dict):
            made = [made.get(output, gr.skip()) for output in outputs]
        before = sent or [gr.skip()] * len(outputs)
        now = [old if value == gr.skip() else value for value, old in zip(made, before, strict=True)]
        news = [gr.skip() if value == old else value for value, old in zip(now, before, strict=True)]
        return [*news, gr.skip() if now == sent else now]

    return look


def whole(value: float | None, name: str) -> int:
    """The number in a field. Raises PlaygroundError where it is no whole one; of an emptied field a page gives None."""
    if value is None or value != int(value):
        raise PlaygroundError(f"{name} must be a whole number, got {'nothing' if value is None else value}")
    return int(value)


def components(view) -> list:
    """All components of a view, a dataclass of them, in its order."""
    return [getattr(view, field.name) for field in fields(view)]


def _error(error: PlaygroundError) -> gr.Error:
    # gr.Error shows HTML, and the sentence may quote what a visitor or a model wrote
    return gr.Error(html.escape(str(error)), duration=20, print_exception=False)


def fetch_notice(services: Services, name: str) -> str:
    """HTML that says where the fetch of a model stands: progress with rate and time left, or why it failed."""
    title = html.escape(services.sources.entry(name).title or name)
    fetch = services.fetches.find(name)
    if fetch is None or fetch.state == "done":
        return f'<div class="notice"><p>{title} is not on this machine yet.</p></div>'
    if fetch.state == "cancelled":
        return f'<div class="notice"><p>Fetching {title} was cancelled. What was downloaded is kept.</p></div>'
    if fetch.state == "failed":
        return f'<div class="notice failed"><p>{title} could not be fetched:\n{html.escape(fetch.error)}</p></div>'
    progress = fetch.progress
    if progress is None:
        return f'<div class="notice"><p>Fetching {title} …</p></div>'
    share = min(1.0, progress.done / progress.total) if progress.total else 0.0
    bar = f'<div class="bar"><b style="width:{share:.0%}"></b></div>' if progress.total else ""
    return f'<div class="notice"><p>{title}: {html.escape(progress.text)}</p>{bar}</div>'
