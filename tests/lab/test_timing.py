import contextlib
import time

import jax
import jax.numpy as jnp
import pytest

from broadsheet.errors import InputError
from broadsheet.lab.timing import Timing, compare, measure


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def takes(self, *seconds):
        left = list(seconds)

        def work():
            self.now += left.pop(0)
            return len(left)

        return work


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_calls_that_compile_are_not_counted(clock):
    found = measure(clock.takes(100.0, 3.0, 1.0, 2.0, 6.0), repeats=4)
    assert found == Timing((3.0, 1.0, 2.0, 6.0), result=0)
    assert (found.minimum, found.median, found.spread) == (1.0, 2.5, 2.0)
    assert measure(clock.takes(100.0), repeats=1, warm_up=0).minimum == 100.0


def test_ways_take_turns_so_that_a_slower_machine_is_slower_for_all(clock):
    order, shares = [], []

    def way(name):
        def work():
            order.append(name)
            clock.now += len(order)

        return work

    found = compare({"a": way("a"), "b": way("b")}, repeats=3, report=shares.append)
    assert "".join(order) == "abababab"
    assert found["a"].seconds == (3.0, 5.0, 7.0)
    assert found["b"].seconds == (4.0, 6.0, 8.0)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_others_stand_still_while_times_are_measured_and_not_while_it_compiles():
    heard = []

    class Heard:
        def progress(self, fraction, **metrics): ...

        def checkpoint(self, name): ...

        @contextlib.contextmanager
        def alone(self):
            heard.append("alone")
            yield
            heard.append("together")

    measure(lambda: heard.append("call"), repeats=2, log=Heard())
    assert heard == ["call", "alone", "call", "call", "together"]


def test_a_call_ends_when_its_arrays_are_there():
    def slow():
        def wait(x):
            time.sleep(0.2)
            return x

        return {"deep": [jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.float32), jnp.float32(2.0))]}

    found = measure(jax.jit(slow), repeats=1)
    assert found.minimum > 0.19
    assert found.result["deep"][0] == 2.0


@pytest.mark.parametrize("asked", [{"repeats": 0}, {"repeats": 1, "warm_up": -1}])
def test_nothing_to_measure_is_refused(asked):
    with pytest.raises(InputError, match="at least one repeat"):
        measure(dict, **asked)
