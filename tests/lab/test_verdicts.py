import dataclasses
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from broadsheet.errors import InputError
from broadsheet.lab import NONE_YET, Claim, at_least, at_most, equals
from broadsheet.lab.verdicts import confidence_interval, judge, lacking, require, t_quantile


def table(system, metric="accuracy", **controls):
    """seed -> arm -> metric, from a list of values for each arm."""
    arms = {"system": system, **controls}
    return {
        100 + k: {name: {metric: values[k]} for name, values in arms.items() if k < len(values)} for k in range(len(system))
    }


def claim(*checks, **options):
    options.setdefault("ablation", "off")
    options.setdefault("null", NONE_YET)
    return Claim("C1", "it works", kind="paper", checks=checks, **options)


@pytest.mark.parametrize(
    ("system", "off", "expected"),
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
def test_verdicts_over_each_seed(system, off, expected):
    assert judge(claim(at_least("accuracy", 0.95)), table(system, off=off), "quick").verdict == expected


def test_a_provisional_verdict_says_where_it_leans():
    state = judge(claim(at_least("accuracy", 0.95)), table([0.97], off=[0.5]), "quick")
    assert (state.verdict, state.leaning, state.good) == ("provisional", "holds", False)
    vacuous = judge(claim(at_least("accuracy", 0.95)), table([0.97], off=[0.97]), "quick")
    assert vacuous.leaning == "vacuous"


def test_checks_of_other_arms_stay_as_they_are():
    made = claim(at_least("accuracy", 0.95), at_most("accuracy", 0.65, of="off"))
    assert judge(made, table([0.97] * 3, off=[0.5] * 3), "quick").verdict == "holds"
    assert judge(made, table([0.97] * 3, off=[0.7] * 3), "quick").verdict == "fails"
    assert judge(made, table([0.97] * 3, off=[0.96] * 3), "quick").verdict == "vacuous"


def test_means_use_the_interval():
    made = claim(at_least("accuracy", 0.5, over="mean"))
    assert judge(made, table([0.60, 0.61, 0.62], off=[0.1] * 3), "quick").verdict == "holds"
    assert judge(made, table([0.3, 0.6, 0.7], off=[0.1] * 3), "quick").verdict == "mixed"
    assert judge(made, table([0.30, 0.31, 0.32], off=[0.1] * 3), "quick").verdict == "fails"
    assert judge(made, table([math.inf] * 3, off=[0.1] * 3), "quick").verdict == "mixed"  # no interval, nothing is sure
    one = dataclasses.replace(made, seeds=1)
    assert judge(one, table([0.7], off=[0.1]), "quick").verdict == "provisional"  # one seed has no interval
    assert judge(one, table([0.7], off=[0.1]), "quick", deterministic=True).verdict == "holds"


def test_an_interval_that_touches_a_bound_is_not_outside_of_it():
    values = [0.3, 0.6, 0.7]
    low, high = confidence_interval(values)
    for check, verdict in (
        (at_most("accuracy", low, over="mean"), "mixed"),
        (at_most("accuracy", math.nextafter(low, 0), over="mean"), "fails"),
        (at_most("accuracy", high, over="mean"), "holds"),
        (at_least("accuracy", high, over="mean"), "mixed"),
        (at_least("accuracy", math.nextafter(high, 2), over="mean"), "fails"),
        (at_least("accuracy", low, over="mean"), "holds"),
    ):
        off = [9.0 if check.sense == "at_most" else -9.0] * 3
        assert judge(claim(check), table(values, off=off), "quick").verdict == verdict


def test_differences_are_paired():
    made = claim(at_least("accuracy", 0.05, minus="off"))
    spread = [0.1, 0.5, 0.9]
    assert judge(made, table([s + 0.1 for s in spread], off=spread), "quick").verdict == "holds"
    assert judge(made, table([s + 0.01 for s in spread], off=spread), "quick").verdict == "fails"


def test_counts_of_seeds():
    made = claim(at_least("accuracy", 0.9, over="count", count=2))
    assert judge(made, table([0.95, 0.99, 0.2], off=[0.1] * 3), "quick").verdict == "holds"
    assert judge(made, table([0.95, 0.3, 0.2], off=[0.1] * 3), "quick").verdict == "fails"


# Ways in which a control can be decorative.


def test_a_control_of_which_no_check_speaks_is_refused():
    with pytest.raises(InputError, match="no check looks at 'system'"):
        claim(at_least("accuracy", 0.9, of="reset"), at_least("accuracy", 0.1, of="reset", minus="off"))
    about = claim(at_least("accuracy", 0.9, of="reset"), about="reset")
    found = judge(about, table([0.1] * 3, reset=[0.95] * 3, off=[0.92] * 3), "quick")
    assert (found.verdict, found.met_by) == ("vacuous", ("off",))


def test_a_control_takes_the_systems_place_where_the_system_is_subtracted():
    made = claim(at_least("error", 0.5, of="worse", minus="system", over="each"))
    shared = {"worse": [1.0, 1.1, 1.2], "system": [0.1, 0.2, 0.3]}
    assert judge(made, table(metric="error", **shared, off=[0.9] * 3), "quick").verdict == "holds"
    assert judge(made, table(metric="error", **shared, off=[0.1] * 3), "quick").verdict == "vacuous"


def test_a_control_that_is_subtracted_differs_from_itself_by_nothing():
    strict, lenient = at_least("accuracy", 0.05, minus="off"), at_least("accuracy", -0.05, minus="off")
    values = table([0.9, 0.85, 0.92], off=[0.5, 0.5, 0.48])
    assert judge(claim(strict), values, "quick").verdict == "holds"
    found = judge(claim(lenient), values, "quick")
    assert found.verdict == "vacuous"  # "no worse than off" is met by off
    assert [outcome.value for outcome in found.trials[0].outcomes] == [0.0]


def test_a_control_is_tried_on_every_check():
    made = claim(at_least("accuracy", 0.9), at_least("accuracy", 0.1, minus="peer"))
    values = table([0.95, 0.97, 0.96], off=[0.92, 0.93, 0.94], peer=[0.5, 0.5, 0.5])
    assert judge(made, values, "quick").verdict == "vacuous"
    values = table([0.98, 0.99, 0.98], off=[0.92, 0.93, 0.94], peer=[0.85, 0.85, 0.84])
    assert judge(made, values, "quick").verdict == "holds"


def test_a_control_without_a_metric_is_an_error_and_no_pass():
    made = claim(at_least("accuracy", 0.9), at_most("error", 0.1))
    values = {seed: {"system": {"accuracy": 0.95, "error": 0.0}, "off": {"accuracy": 0.2}} for seed in (100, 101, 102)}
    found = judge(made, values, "quick")
    assert (found.verdict, found.warnings) == ("not run", ("the control 'off' reports no 'error'",))
    with pytest.raises(InputError, match="Claim C1: the control 'off' reports no 'error'"):
        require(made, values.values())
    assert not lacking(made, [{"system": {"accuracy": 0.95, "error": 0.0}}])  # a control of another run
    assert lacking(made, [{"system": {"accuracy": 0.95, "error": 0.0}}], whole=True)


def test_each_control_is_enough():
    made = claim(at_least("accuracy", 0.9), ablation=("off", "frozen"), null="constant")
    values = table([0.95] * 3, off=[0.1] * 3, frozen=[0.2] * 3, constant=[0.93] * 3)
    found = judge(made, values, "quick")
    assert (found.verdict, found.met_by) == ("vacuous", ("constant",))
    assert [(trial.control, trial.kind) for trial in found.trials] == [
        ("off", "ablation"), ("frozen", "ablation"), ("constant", "null"),
    ]  # fmt: skip
    assert found.trials[2].outcomes[0].distance == pytest.approx(0.03)
    assert found.trials[0].outcomes[0].distance == pytest.approx(-0.8)


def test_a_control_that_may_meet_a_mean_leaves_it_open():
    made = claim(at_least("accuracy", 0.5, over="mean"))
    found = judge(made, table([0.9, 0.91, 0.92], off=[0.3, 0.9, 0.6]), "quick")
    assert (found.verdict, found.trials[0].unclear) == ("mixed", True)
    assert judge(made, table([0.9, 0.91, 0.92], off=[0.3, 0.6, 0.4]), "quick").verdict == "holds"


@pytest.mark.parametrize(
    ("off", "options", "words"),
    [
        ([0.5, 0.5, 0.5], {}, "accuracy is 0.5 on every seed"),
        ([0.5, math.nan, 0.4], {}, "accuracy is not finite on 1 of 3 seeds"),
        ([0.5, -math.inf, 0.4], {}, "not finite"),
        ([0.5, -0.2, 0.4], {"within": (0, 1)}, "leaves its range, 0 to 1"),
        ([0.3, 0.35, 0.31], {"chance": 0.5}, "is worse than chance, 0.5"),
    ],
)
def test_a_control_that_fails_by_construction_is_warned_of(off, options, words):
    values = table([0.96, 0.97, 0.98], off=off)
    found = judge(claim(at_least("accuracy", 0.95, **options)), values, "quick")
    assert len(found.trials[0].warnings) == 1
    assert words in found.trials[0].warnings[0]
    answered = claim(at_least("accuracy", 0.95, **options), answers_to={"off": "it is a fair coin"})
    assert judge(answered, values, "quick").trials[0].answer == "it is a fair coin"
    assert judge(answered, values, "quick").verdict == "holds"
    known = all(map(math.isfinite, off))
    assert found.verdict == ("holds" if known else "mixed")  # a control that reports no number says nothing
    fair = judge(claim(at_least("accuracy", 0.95, **options)), table([0.96, 0.97, 0.98], off=[0.52, 0.55, 0.6]), "quick")
    assert not fair.trials[0].warnings


def test_worse_than_chance_is_on_the_outer_side():
    low = claim(at_most("error", 0.1, chance=1.0))
    assert not judge(low, table([0.05, 0.06], "error", off=[0.9, 0.8]), "quick").trials[0].warnings
    assert judge(low, table([0.05, 0.06], "error", off=[1.9, 1.8]), "quick").trials[0].warnings
    gap = claim(at_most("error", -0.1, minus="peer", chance=1.0))
    values = table([0.05, 0.06], "error", peer=[0.5, 0.6], off=[1.9, 1.8])
    assert judge(gap, values, "quick").trials[0].warnings


def test_metrics_that_no_seed_changes_are_noticed():
    made = claim(at_least("accuracy", 0.95))
    values = table([0.97] * 3, off=[0.5] * 3)
    assert "deterministic" in judge(made, values, "quick").warnings[0]
    assert not judge(made, values, "quick", deterministic=True).warnings
    assert not judge(made, table([0.97, 0.98, 0.97], off=[0.5, 0.4, 0.5]), "quick").warnings


# What a claim has to say.


def test_a_claim_of_a_paper_has_an_ablation_and_a_null_model_or_says_why_not():
    def made(**options):
        return Claim("C1", "it works", kind="paper", checks=[at_least("accuracy", 0.9)], **options)

    for options, words in (
        ({}, "no control"),
        ({"no_ablation": "why", "no_null": "why"}, "no control"),
        ({"no_ablation": "why", "null": NONE_YET}, "no control"),
        ({"ablation": "off"}, "no null model"),
        ({"null": "constant"}, "no ablation"),
        ({"ablation": "off", "no_ablation": "why", "null": NONE_YET}, "says that there is none"),
        ({"ablation": "off", "null": "off"}, "twice"),
        ({"ablation": "system", "null": NONE_YET}, "its own control"),
        ({"ablation": "off", "null": NONE_YET, "answers_to": {"of": "why"}}, "answers for of"),
        ({"ablation": "off", "null": NONE_YET, "seeds": 0}, "seeds"),
    ):
        with pytest.raises(InputError, match=words):
            made(**options)
    assert made(ablation="off", null=NONE_YET).waits_for_null
    assert made(null=["constant", "ridge"], no_ablation="why").controls == ("constant", "ridge")
    with pytest.raises(InputError, match="untested"):
        Claim("C1", "it works", kind="paper")
    with pytest.raises(InputError, match="how many"):
        at_least("accuracy", 0.9, over="count")
    with pytest.raises(InputError, match="smaller value"):
        at_least("accuracy", 0.9, within=(1, 0))
    with pytest.raises(InputError, match="from itself"):
        claim(at_least("accuracy", 0.9, minus="system"))


def test_references_deterministic_runs_and_presets():
    check = Claim("C2", "exact", kind="check", checks=[at_most("error", 1e-6)], reference="a closed form")
    assert judge(check, table([1e-9], "error"), "quick", deterministic=True).verdict == "reference"
    assert check.judged_at("paper")
    assert not check.judged_at("smoke")
    scaled = claim(at_least("accuracy", {"quick": 0.8, "paper": 0.95}))
    values = table([0.9] * 3, off=[0.1] * 3)
    assert judge(scaled, values, "quick").verdict == "holds"
    assert judge(scaled, values, "paper").verdict == "fails"
    assert judge(scaled, values, "smoke").verdict == "not run"
    assert judge(claim(at_least("accuracy", 0.8)), values, "paper").verdict == "not run"  # the number was found at quick
    assert judge(claim(equals("accuracy", 0.5, tol=0.1)), table([0.55] * 3, off=[0.9] * 3), "quick").verdict == "holds"


def test_round_trip_through_json():
    made = claim(
        at_least("a", {"quick": 1.0}, within=(0, 1), chance=0.5), at_most("b", 2.0, of="x", over="count", count=2),
        ablation=("off", "x"), null="constant", grows="steps", answers_to={"off": "why"}, published="0.99",
    )  # fmt: skip
    again = Claim.from_dict(made.to_dict())
    assert again == made
    assert again.controls == ("off", "x", "constant")
    assert Claim.from_dict(claim(at_least("a", 1.0)).to_dict()).waits_for_null


numbers = st.one_of(st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0]))
bounds = st.builds(
    lambda make, value, of, minus, over, count: make(
        "m", value, of=of, minus=None if minus == of else minus, over=over, count=count
    ),
    st.sampled_from([at_least, at_most, equals]), st.floats(-1, 1), st.sampled_from(["system", "peer"]),
    st.sampled_from([None, "system", "peer", "off"]), st.sampled_from(["each", "mean", "count", ""]), st.integers(1, 3),
)  # fmt: skip


def meets(check, control, values, deterministic):
    """Whether a control meets a check in the system's place, worked out anew."""

    def column(arm):
        return [row[control if arm == "system" else arm]["m"] for row in values.values()]

    found = column(check.of)
    if check.minus:
        found = [x - y for x, y in zip(found, column(check.minus), strict=True)]
    low = -math.inf if check.sense == "at_most" else check.value
    high = math.inf if check.sense == "at_least" else check.value
    inside = [low <= x <= high for x in found]
    if check.over == "count":
        return sum(inside) >= check.count
    if check.over == "mean" and not deterministic and not all(map(math.isfinite, found)):
        return False
    if check.over == "mean" and not deterministic and len(found) > 1:
        half = stats.t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
        mean = statistics.fmean(found)
        return low <= mean - half * 1.001 and mean + half * 1.001 <= high  # t is known to 0.1 %
    return all(inside)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_table_in_which_a_control_meets_every_check_holds(data):
    checks = data.draw(st.lists(bounds, min_size=1, max_size=3).filter(lambda all_: any(c.mentions("system") for c in all_)))
    made = claim(*checks, null="constant", seeds=1, reference=data.draw(st.sampled_from(["", "a closed form"])))
    seeds, deterministic = data.draw(st.integers(1, 4)), data.draw(st.booleans())
    arms = ("system", "off", "constant", "peer")
    values = {seed: {arm: {"m": data.draw(numbers)} for arm in arms} for seed in range(seeds)}
    if data.draw(st.booleans()):  # a null model that is the system
        for row in values.values():
            row["constant"] = dict(row["system"])
    found = judge(made, values, "quick", deterministic=deterministic)
    for control in made.controls:
        if all(meets(check, control, values, deterministic) for check in checks if check.mentions("system")):
            assert (found.leaning or found.verdict) == "vacuous"
            assert control in found.met_by


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


def test_t_quantile_is_closer_to_scipys_than_it_says():
    for freedom in (*range(1, 40), 100, 500):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=8e-5), freedom
        if freedom > 17:
            assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=8e-6), freedom


def test_a_control_at_the_ends_of_its_range_or_at_chance_is_a_fair_one():
    made = claim(at_least("accuracy", 0.95, within=(0, 1), chance=0.5))
    ends = judge(made, table([0.96, 0.97], off=[0.0, 1.0]), "quick").trials[0]
    assert ends.warnings == ()
    below = judge(made, table([0.96, 0.97], off=[0.4, 0.59]), "quick").trials[0]
    assert below.warnings == ("accuracy, 0.495, is worse than chance, 0.5",)
    above = judge(made, table([0.96, 0.97], off=[0.1, 1.1]), "quick").trials[0]
    assert above.warnings == ("accuracy leaves its range, 0 to 1",)
    better = claim(at_least("accuracy", 0.4, chance=0.5))  # of which chance meets the bound
    assert judge(better, table([0.96, 0.97], off=[0.45, 0.46]), "quick").trials[0].warnings == ()


@pytest.mark.parametrize(
    ("check", "off", "worse"),
    [
        (at_least("m", 0.1, minus="peer", chance=0.5), 0.4, True),
        (at_least("m", 0.1, minus="peer", chance=0.5), 0.5, False),
        (at_least("m", 0.1, minus="peer", chance=0.5), 0.6, False),
        (at_least("m", 0.1, of="peer", minus="system", chance=0.5), 0.6, True),
        (at_least("m", 0.1, of="peer", minus="system", chance=0.5), 0.4, False),
        (at_most("m", -0.1, minus="peer", chance=0.5), 0.6, True),
        (at_most("m", -0.1, minus="peer", chance=0.5), 0.4, False),
        (at_most("m", -0.1, of="peer", minus="system", chance=0.5), 0.4, True),
        (equals("m", 0.1, minus="peer", chance=0.5), 0.9, False),
        (equals("m", 0.1, chance=0.3), 0.9, True),
        (equals("m", 0.1, chance=0.3), 0.2, False),
    ],
)
def test_which_side_of_chance_is_the_worse_one(check, off, worse):
    values = table([0.7, 0.71], "m", peer=[0.3, 0.3], off=[off, off + 1e-9])
    found = judge(claim(check), values, "quick").trials[0].warnings
    assert any("worse than chance" in each for each in found) is worse


def test_seeds_that_lack_a_metric_do_not_count_and_outcomes_say_how_many_did():
    values = table([0.97, 0.98, 0.5, 0.99], off=[0.5, 0.4, 0.3])
    found = judge(claim(at_least("accuracy", 0.95)), values, "quick")
    assert (found.seeds, found.verdict) == ((100, 101, 102), "mixed")
    (outcome,) = found.outcomes
    assert (outcome.seeds, outcome.seeds_passed, outcome.passed, outcome.of) == (3, 2, False, "system")
    assert outcome.value == pytest.approx(2.45 / 3)
    assert (outcome.low, outcome.high) == pytest.approx(confidence_interval([0.97, 0.98, 0.5]))
    assert outcome.to_dict()["distance"] == pytest.approx(2.45 / 3 - 0.95)
    single = judge(claim(at_least("accuracy", 0.95), seeds=1), table([0.97], off=[0.4]), "quick")
    assert (single.outcomes[0].low, single.outcomes[0].high, single.verdict) == (None, None, "holds")
    assert confidence_interval([1.0]) is None
    assert confidence_interval([1.0, math.inf]) is None


def test_a_control_is_unclear_only_where_nothing_else_speaks_against_it():
    """Its mean lies inside, its interval does not; a second check that it clearly misses settles it."""
    spread = [0.3, 0.9, 0.6]
    two = claim(at_least("accuracy", 0.5, over="mean"), at_least("accuracy", 0.95))
    assert judge(two, table([0.97, 0.98, 0.99], off=spread), "quick").verdict == "holds"
    each = claim(at_least("accuracy", 0.5))  # on each seed: two of three is a miss
    found = judge(each, table([0.97, 0.98, 0.99], off=spread), "quick")
    assert (found.verdict, found.trials[0].unclear) == ("holds", False)
    edge = claim(at_least("accuracy", 0.6, over="mean"))  # the mean is on the bound, in numbers that add up exactly
    assert judge(edge, table([0.97, 0.98, 0.99], off=[0.35, 0.85, 0.6]), "quick").trials[0].unclear
    assert not judge(edge, table([0.97, 0.98, 0.99], off=[0.25, 0.85, 0.6]), "quick").trials[0].unclear


def test_what_no_run_reports_is_told_of_each_arm():
    made = claim(at_least("accuracy", 0.9), at_most("error", 0.1), null="ridge")
    runs = [{"system": {"accuracy": 0.95}, "off": {"accuracy": 0.2, "error": 1.0}}, {"off": {"accuracy": 0.2}}]
    assert lacking(made, runs) == ["'system' reports no 'error'"]
    assert lacking(made, runs, whole=True) == [
        "'system' reports no 'error'", "the control 'ridge' reports no 'accuracy'", "the control 'ridge' reports no 'error'",
    ]  # fmt: skip
    require(made, [{"system": {"accuracy": 1.0, "error": 0.0}}])
