"""A stand-in for the Hub's HTTP interface, on this machine: what huggingface_hub asks when it pushes a repository."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """Keeps what it was sent. `refused` has the status that a token is answered with."""

    url: str = ""
    requests: list[tuple[str, bytes]] = field(default_factory=list)  # path and body
    tokens: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)

    def committed(self) -> dict[str, bytes]:
        """The files of the first commit by name."""
        lines = next(body for path, body in self.requests if "/commit/" in path).splitlines()
        files = [line["value"] for line in map(json.loads, lines) if line["key"] == "file"]
        return {file["path"]: base64.b64decode(file["content"]) for file in files}


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(404, {"error": "Repository not found"})

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append((self.path, body))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            hub.tokens.add(token)
            if token in hub.refused:
                return self._answer(hub.refused[token], {"error": "Invalid credentials"})
            if "/preupload/" in self.path:
                how = {"uploadMode": "regular", "shouldIgnore": False}
                return self._answer(200, {"files": [{"path": f["path"], **how} for f in json.loads(body)["files"]]})
            if self.path.endswith("/repos/create"):
                asked = json.loads(body)
                name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                return self._answer(200, {"url": f"{hub.url}/{name}"})
            repo = self.path.removeprefix("/api/models/").split("/commit/")[0]
            return self._answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/1", "commitOid": "1"})

        def _answer(self, status: int, values: dict) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(values).encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
