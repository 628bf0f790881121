"""The harness on a comparison whose times are given: what it makes of them, and of sides that fail."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
COMPARISON = """
import numpy as np
from harness import Comparison

comparison = Comparison(
    "A toy", {"one": {"factor": 2.0}}, lambda case: {"x": np.arange(3.0)}, text="Nothing.", agree={"total": 0.01}
)


def counted(seconds, factor=1.0):
    def setup(case, given):
        times = iter([9.0, *seconds])  # the first run compiles

        def run():
            return {"seconds": next(times), "total": factor * case["factor"] * given["x"].sum(), "peak_mb": 5.0}

        return run

    return setup


comparison.side("broadsheet")(counted([1.0, 2.0, 4.0]))
comparison.side("peer", packages=("numpy",))(counted([3.0, 2.0, 8.0]))
comparison.side("liar")(counted([1.0, 1.0, 1.0], factor=1.5))


@comparison.side("broken")
def broken(case, given):
    raise ValueError("no such cell")


@comparison.side("card", devices=("gpu",))
def card(case, given):
    raise AssertionError
"""


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("harness", BENCH / "harness.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["harness"] = module
    spec.loader.exec_module(module)
    return module


def test_turns_ratios_and_disagreements(harness, tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(COMPARISON)
    found = harness.measure(file, "one", "cpu", 3)
    sides = found["sides"]
    assert set(sides) == {"broadsheet", "peer", "liar", "broken"}
    assert sides["broadsheet"]["seconds"] == [1.0, 2.0, 4.0]
    assert sides["broadsheet"]["median"] == 2.0
    assert sides["peer"]["ratio"] == {"median": 2.0, "low": 1.0, "high": 3.0}  # turn by turn: 3, 1, 2
    assert sides["peer"]["versions"] == {"numpy": np.__version__}
    assert sides["peer"]["values"] == {"total": 6.0}
    assert sides["peer"]["peak_mb"] == 5.0
    assert sides["broken"] == {"failed": "ValueError: no such cell"}
    assert found["disagreements"] == ["liar: total is 9, ours 6"]


def test_where_our_own_side_fails_the_others_are_still_told(harness, tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(
        COMPARISON.replace('side("broadsheet")(counted', 'side("second")(counted').replace('"broken"', '"broadsheet"')
    )
    found = harness.measure(file, "one", "cpu", 1)
    assert found["sides"]["broadsheet"] == {"failed": "ValueError: no such cell"}
    assert "median" in found["sides"]["peer"]
    assert found["disagreements"] == []


def test_every_comparison_can_be_read_and_has_two_sides(harness):
    files = [file for file in sorted(BENCH.glob("*.py")) if "\ncomparison = " in file.read_text()]
    assert len(files) >= 7
    for file in files:
        comparison = harness.read_comparison(file)
        assert comparison.sides[0].name == harness.OURS
        assert len(comparison.sides) >= 2
        for side in comparison.sides:
            assert side.environment is None or (BENCH / "environments" / f"{side.environment}.txt").exists()


def test_an_unknown_comparison_is_named(harness, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["harness.py", "cubba"])
    with pytest.raises(SystemExit) as stop:
        harness.main()
    assert stop.value.code == 2
    assert "there is no comparison cubba" in capsys.readouterr().err
