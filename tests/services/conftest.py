"""Engines of tiny models compute with one thread: more only wait for each other at this size."""

import pytest

from playground.core.cores import Cores
from playground.services.decoder import Decoder


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "_cores", staticmethod(lambda: Cores(lambda threads: None, 1)))
        yield
