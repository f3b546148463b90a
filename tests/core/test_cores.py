import pytest

from playground.core.cores import EVERY, Cores


class Machine:
    """A machine whose time passes when told."""

    def __init__(self):
        self.now = self.all = self.own = 0.0

    def pass_time(self, own: float, others: float, seconds: float = EVERY):
        self.now += seconds
        self.own += own * seconds
        self.all += (own + others) * seconds


@pytest.fixture
def machine():
    return Machine()


def cores(machine, most):
    calls = []
    found = Cores(calls.append, most, lambda: machine.now, lambda: machine.all, lambda: machine.own)
    return found, calls


@pytest.mark.parametrize(
    "most, others, threads",
    [(2, 0.0, 2), (2, 0.3, 2), (2, 0.6, 1), (2, 1.0, 1), (2, 2.0, 1), (8, 3.0, 5), (8, 20.0, 1), (1, 1.0, 1)],
)
def test_threads_are_the_cores_that_others_leave(machine, most, others, threads):
    found, calls = cores(machine, most)
    machine.pass_time(1.0, others)
    assert found.adapt() == threads
    assert calls == ([threads] if threads != most else [])


def test_they_come_back_when_others_are_done(machine):
    found, calls = cores(machine, 2)
    machine.pass_time(0.9, 1.0)
    found.adapt()
    machine.pass_time(1.0, 0.0)
    assert found.adapt() == 2
    assert calls == [1, 2]


def test_short_looks_say_nothing(machine):
    found, calls = cores(machine, 2)
    machine.pass_time(0.0, 2.0, EVERY / 2)
    assert found.adapt() == 2
    machine.pass_time(0.0, 2.0, EVERY / 2)
    assert found.adapt() == 1
    assert calls == [1]


def test_the_real_readings_grow():
    found = Cores(lambda threads: None)
    first = found.busy(), found.own()
    sum(range(3_000_000))
    assert found.own() >= first[1]
    assert found.busy() >= first[0]
    assert found.most >= 1
