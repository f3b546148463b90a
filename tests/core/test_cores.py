"""The number of threads follows what is faster, and notices when that changes."""

import pytest

from playground.core import cores
from playground.core.cores import SECONDS, UNITS, Cores


class Machine:
    """`speed(threads)` is in work per second; time passes only while work is done."""

    def __init__(self, most, speed):
        self.now, self.speed, self.calls = 0.0, speed, []
        self.cores = Cores(self.calls.append, most, lambda: self.now)

    def work(self, units, work=10.0):
        used = []
        for _ in range(units):
            with self.cores.unit(work):
                used.append(self.cores.threads)
                self.now += work / self.speed(self.cores.threads)
        return used


@pytest.mark.parametrize(
    "most, speed, best",
    [
        (2, {1: 10, 2: 19}, 2),
        (2, {1: 10, 2: 4}, 1),
        (8, {1: 1, 2: 2, 4: 4, 8: 7}, 8),
        (8, {1: 1, 2: 2, 4: 3, 8: 2.5}, 4),
        (8, {1: 5, 2: 4, 4: 3, 8: 2}, 1),
        (6, {1: 1, 3: 3, 6: 2}, 3),
        (1, {1: 1}, 1),
    ],
)
def test_the_fastest_number_is_found_and_kept(most, speed, best):
    machine = Machine(most, speed.__getitem__)
    used = machine.work(400)
    assert used[0] == most
    assert used.count(best) > 0.85 * len(used)
    assert set(used) <= set(speed)


def test_a_change_is_noticed_soon():
    speeds = {1: 10, 2: 19}
    machine = Machine(2, speeds.__getitem__)
    machine.work(100)
    assert machine.cores.threads == 2
    speeds[2] = 4  # somebody else has taken a core
    assert machine.work(12)[-1] == 1
    speeds[2] = 19
    assert machine.work(UNITS * 2)[-1] == 2


def test_larger_units_are_not_slower():
    machine = Machine(2, {1: 10, 2: 12}.__getitem__)
    used = [threads for number in range(200) for threads in machine.work(1, work=1.0 + 50 * (number % 2))]
    assert used.count(2) > 170


def test_tries_are_apart_in_time_where_units_are_short():
    machine = Machine(2, {1: 4000, 2: 8000}.__getitem__)
    used = machine.work(2000)  # each an eight hundredth of a second
    assert used.count(1) <= 2 + 2000 * 10 / 8000 / SECONDS


def test_an_error_in_a_unit_is_passed_on_and_not_measured():
    machine = Machine(2, {1: 10, 2: 19}.__getitem__)
    machine.work(3)
    before = dict(machine.cores._kinds[""].rates)
    with pytest.raises(ValueError, match="broken"), machine.cores.unit(1):
        raise ValueError("broken")
    assert machine.cores._kinds[""].rates == before


def test_kinds_of_work_are_not_compared():
    speeds = {1: 10, 2: 19}
    machine = Machine(2, speeds.__getitem__)
    machine.work(50)
    with machine.cores.unit(10.0, "other"):
        machine.now += 10_000.0  # another measure altogether
    assert machine.work(12).count(2) >= 11


def test_fixed_changes_nothing():
    with cores.fixed(3.0):
        pass
    assert Cores(lambda threads: None).most >= 1
