"""The real model, fetched if need be, on an engine of its own for each file."""

import pytest

from playground.config import Paths
from playground.services.engine import Engine
from playground.services.sources import Sources

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def engine():
    paths = Paths()
    sources = Sources(paths)
    sources.get(NAME)
    engine = Engine(sources, paths)
    yield engine
    engine.close()
