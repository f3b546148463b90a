"""Our OpenAI routes served over a real socket, for the official client to ask."""

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from playground.services.openai_server import router


@contextlib.contextmanager
def served(engine, default: str, key: str | None = None) -> Iterator[str]:
    """The address of the routes of `engine`; `default` and `key` are those of `router`."""
    app = FastAPI()
    app.include_router(router(engine, default, key=key))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)
