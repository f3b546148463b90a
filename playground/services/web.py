"""The one way out: JSON from a public service, within a deadline."""

import threading

from playground import __version__

AGENT = f"instruction-tuning-playground/{__version__}"  # some public services refuse a client without a name


def fetch_json(url: str, timeout: float) -> dict:
    """The JSON that `url` answers with, or OSError.

    `timeout` holds for connecting and reading; httpx has none for looking up the name, which can take half a minute
    on a machine with no way out, so the whole request runs beside us and is left behind when it is late.
    """
    import httpx

    answer: list = []

    def get() -> None:
        try:
            reply = httpx.get(url, timeout=timeout, follow_redirects=False, headers={"User-Agent": AGENT})
            reply.raise_for_status()
            answer.append(reply.json())
        except (httpx.HTTPError, ValueError) as error:
            answer.append(error)

    thread = threading.Thread(target=get, name="fetch", daemon=True)
    thread.start()
    thread.join(timeout + 0.5)
    if not answer:
        raise TimeoutError(f"no answer within {timeout:g} seconds")
    if isinstance(answer[0], Exception):
        raise ConnectionError(str(answer[0])) from answer[0]
    return answer[0]
