import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from playground.services.web import fetch_json


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        self.send_response(500 if self.path == "/broken" else 302 if self.path == "/elsewhere" else 200)
        if self.path == "/elsewhere":
            self.send_header("Location", "/json")
        self.end_headers()
        self.wfile.write(b"<html>log in</html>" if self.path == "/page" else b'{"ok": 1}')

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_json_comes_back(service):
    assert fetch_json(f"{service}/json", 5.0) == {"ok": 1}


@pytest.mark.parametrize("path", ["/broken", "/page", "/elsewhere"])
def test_what_is_not_the_services_answer_is_an_os_error(service, path):
    with pytest.raises(OSError, match="."):
        fetch_json(service + path, 5.0)


def test_nobody_there_is_an_os_error():
    with pytest.raises(OSError, match="."):
        fetch_json("http://127.0.0.1:9/", 5.0)


def test_a_service_that_hangs_is_left_behind(service):
    started = time.monotonic()
    with pytest.raises(OSError, match="."):
        fetch_json(f"{service}/slow", 0.2)
    assert time.monotonic() - started < 0.9


def test_a_name_that_takes_too_long_to_look_up_is_left_behind(monkeypatch):
    monkeypatch.setattr("httpx.get", lambda *args, **kwargs: time.sleep(1))
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.1 seconds"):
        fetch_json("http://nowhere.invalid/", 0.1)
    assert time.monotonic() - started < 0.9
