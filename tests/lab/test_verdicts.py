import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from broadsheet.errors import InputError
from broadsheet.lab import Claim, at_least, at_most, equals
from broadsheet.lab.claims import Claim as ClaimClass
from broadsheet.lab.verdicts import confidence_interval, judge, t_quantile


def table(system, control=(), metric="accuracy"):
    arms = [{"system": {metric: value}} for value in system]
    for arm, value in zip(arms, control, strict=False):
        arm["off"] = {metric: value}
    return dict(enumerate(arms, start=100))


def claim(*checks, **options):
    options.setdefault("control", "off")
    return Claim("C1", "it works", kind="paper", checks=checks, **options)


@pytest.mark.parametrize(
    ("system", "control", "expected"),
    [
        ((0.97, 0.98, 0.99), (0.5, 0.5, 0.5), "holds"),
        ((0.97, 0.98, 0.99), (0.96, 0.97, 0.98), "vacuous"),
        ((0.97, 0.90, 0.99), (0.5, 0.5, 0.5), "mixed"),
        ((0.5, 0.6, 0.7), (0.5, 0.5, 0.5), "fails"),
        ((0.97, 0.98), (0.5, 0.5), "provisional"),
        ((math.nan, 0.98, 0.99), (0.5, 0.5, 0.5), "mixed"),
        ((), (), "not run"),
    ],
)
def test_verdicts_over_each_seed(system, control, expected):
    assert judge(claim(at_least("accuracy", 0.95)), table(system, control), "quick").verdict == expected


def test_a_provisional_verdict_says_where_it_leans():
    state = judge(claim(at_least("accuracy", 0.95)), table([0.97], [0.5]), "quick")
    assert (state.verdict, state.leaning, state.good) == ("provisional", "holds", False)
    vacuous = judge(claim(at_least("accuracy", 0.95)), table([0.97], [0.97]), "quick")
    assert vacuous.leaning == "vacuous"


def test_checks_of_variants_are_controls_by_default():
    made = Claim("C1", "it works", kind="paper", checks=[at_least("accuracy", 0.95), at_most("accuracy", 0.65, of="off")])
    assert judge(made, table([0.97] * 3, [0.5] * 3), "quick").verdict == "holds"
    assert judge(made, table([0.97] * 3, [0.7] * 3), "quick").verdict == "fails"
    assert judge(made, table([0.97] * 3, [0.96] * 3), "quick").verdict == "vacuous"


def test_means_use_the_interval():
    check = at_least("accuracy", 0.5, over="mean")
    assert judge(claim(check), table([0.60, 0.61, 0.62], [0.1] * 3), "quick").verdict == "holds"
    assert judge(claim(check), table([0.3, 0.6, 0.7], [0.1] * 3), "quick").verdict == "mixed"
    assert judge(claim(check), table([0.30, 0.31, 0.32], [0.1] * 3), "quick").verdict == "fails"


def test_differences_are_paired():
    check = at_least("accuracy", 0.05, minus="off")
    spread = [0.1, 0.5, 0.9]
    assert judge(claim(check, control=None), table([s + 0.1 for s in spread], spread), "quick").verdict == "holds"
    assert judge(claim(check, control=None), table([s + 0.01 for s in spread], spread), "quick").verdict == "fails"


def test_counts_of_seeds():
    check = at_least("accuracy", 0.9, over="count", count=2)
    assert judge(claim(check), table([0.95, 0.99, 0.2], [0.1] * 3), "quick").verdict == "holds"
    assert judge(claim(check), table([0.95, 0.3, 0.2], [0.1] * 3), "quick").verdict == "fails"


def test_references_deterministic_runs_and_presets():
    check = Claim("C2", "exact", kind="check", checks=[at_most("error", 1e-6)], reference="a closed form")
    assert judge(check, table([1e-9], metric="error"), "quick", deterministic=True).verdict == "reference"
    scaled = claim(at_least("accuracy", {"quick": 0.8, "paper": 0.95}))
    assert judge(scaled, table([0.9] * 3, [0.1] * 3), "quick").verdict == "holds"
    assert judge(scaled, table([0.9] * 3, [0.1] * 3), "paper").verdict == "fails"
    assert judge(scaled, table([0.9] * 3, [0.1] * 3), "smoke").verdict == "not run"
    assert judge(claim(equals("accuracy", 0.5, tol=0.1)), table([0.55] * 3, [0.9] * 3), "quick").verdict == "holds"


def test_a_claim_of_a_paper_needs_a_control():
    with pytest.raises(InputError, match="no control"):
        Claim("C1", "it works", kind="paper", checks=[at_least("accuracy", 0.9)])
    with pytest.raises(InputError, match="untested"):
        Claim("C1", "it works", kind="paper")
    with pytest.raises(InputError, match="how many"):
        at_least("accuracy", 0.9, over="count")


def test_round_trip_through_json():
    made = claim(at_least("a", {"quick": 1.0}), at_most("b", 2.0, of="x", over="count", count=2), control=("off", "x"))
    again = ClaimClass.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict()
    assert again.controls == ("off", "x")


@given(st.integers(1, 500))
def test_t_quantile_equals_scipys(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_interval_equals_scipys(values):
    low, high = confidence_interval(values)
    sem = stats.sem(values)
    if sem > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, statistics.fmean(values), sem)
        half = (expected[1] - expected[0]) / 2
        assert (low, high) == pytest.approx(expected, abs=2e-3 * half)
