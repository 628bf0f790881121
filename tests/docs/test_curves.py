"""Cost curves of the benchmarks' page, from the stored comparisons."""

import runpy
from pathlib import Path
from xml.etree import ElementTree

MADE = runpy.run_path(str(Path(__file__).resolve().parents[2] / "docs" / "curves.py"))


def case(size, seconds, **others):
    return {"parameters": {"size": size, **others}, "sides": {name: {"median": value} for name, value in seconds.items()}}


def test_a_curve_has_three_sizes_of_one_number_with_everything_else_alike():
    cases = [
        case(200, {"ours": 4.0, "peer": 0.2}, order=4, task="field"),
        case(100, {"ours": 2.0, "peer": 0.1}, order=4, task="field"),
        case(400, {"ours": 8.0}, order=4, task="field"),
        case(300, {"ours": 1.0}, order=6, task="field"),
        case(100, {"ours": 1.0}, order=4, task="recall"),
        case(True, {"ours": 1.0}, order=4, task="field"),
    ]
    (found,) = MADE["curves"]({"cases": dict(enumerate(cases))})
    assert found.sides == {"ours": ([100, 200, 400], [2.0, 4.0, 8.0])}  # the peer has two sizes
    assert found.caption == "Seconds by size (order 4). Power from the first size to the last: ours 1.00."
    assert ElementTree.fromstring(MADE["svg"](found)).tag.endswith("svg")


def test_a_side_that_failed_is_left_out():
    cases = {k: case(k, {"ours": k**2 / 1000}) for k in (10, 20, 40)}
    cases[20]["sides"]["peer"] = {"failed": "not made for this case"}
    (found,) = MADE["curves"]({"cases": cases})
    assert list(found.sides) == ["ours"]
    assert found.caption.endswith("ours 2.00.")
