import pytest

from broadsheet.errors import InputError
from broadsheet.lab import NONE_YET, Claim, at_least, at_most, equals, growth
from broadsheet.lab.registry import ExperimentEntry
from broadsheet.lab.schema import Field
from broadsheet.lab.verdicts import judge

FIELDS = (Field("steps", "int"), Field("rate", "float"), Field("kind", "text"))


def experiment(**options):
    options.setdefault("variants", {"off": {"rate": 0.0}})
    config = {"steps": 500, "rate": 0.25, "kind": "a"}
    return ExperimentEntry("main", "", {"quick": config}, claims=(), fields=FIELDS, **options)


def grown(system, off, check=None, **options):
    """A claim at 1x, 2x, … from the means of the system and of its ablation at each size."""
    check = check or at_least("m", 0.0, minus="off")
    claim = Claim("C1", "it works", kind="paper", checks=[check], ablation="off", null=NONE_YET, grows="steps", **options)
    factors = tuple(float(2**k) for k in range(len(system)))
    verdicts = tuple(
        judge(claim, {100 + s: {"system": {"m": a + s / 1e4}, "off": {"m": b - s / 1e4}} for s in range(3)}, "quick")
        for a, b in zip(system, off, strict=True)
    )
    return growth.Growth(claim, "steps", factors, tuple(500 * f for f in factors), verdicts)


def test_a_difference_that_vanishes_fades():
    found = grown([0.31, 0.19, 0.08], [0.0, 0.0, 0.0], at_least("m", 1e-6, minus="off"))
    assert found.text == "fades: 0.31, 0.19, 0.0802 towards 1e-06 (holds at 1x, 2x, 4x)"
    assert found.to_dict()["fades"]


def test_a_claim_that_stays_holds():
    found = grown([0.9, 0.92, 0.91], [0.5, 0.5, 0.5], at_least("m", 0.7))
    assert (found.text, found.faded) == ("holds at 1x, 2x, 4x", None)


def test_a_claim_that_is_lost_or_met_by_its_control_fades():
    assert grown([0.9, 0.6], [0.5, 0.5], at_least("m", 0.7)).text == "fades: 0.9, 0.6 towards 0.7 (holds at 1x; fails at 2x)"
    met = grown([0.9, 0.95], [0.5, 0.8], at_least("m", 0.7))
    assert met.text == "fades: 0.5, 0.8 towards 0.7 (holds at 1x; vacuous at 2x)"
    near = grown([0.9, 0.95], [0.1, 0.6], at_least("m", 0.7))
    assert near.text == "fades: 0.0999, 0.6 towards 0.7 (holds at 1x, 2x)"


def test_what_never_held_does_not_fade():
    found = grown([0.1, 0.9], [0.0, 0.0], at_least("m", 0.7))
    assert (found.text, found.faded) == ("fails at 1x; holds at 2x", None)
    assert grown([0.5, 0.5], [0.2, 0.3], equals("m", 0.5, tol=0.1)).faded is None


def test_fewer_seeds_are_said():
    assert grown([0.9, 0.9], [0.5, 0.5], at_least("m", 0.7), seeds=8).text == "holds at 1x, 2x, on 3 seeds"


def test_settings_and_factors_as_they_are_written():
    assert growth.asked_for("steps=4,1,2") == ("steps", (1.0, 2.0, 4.0))
    for text in ("steps", "steps=", "=1,2", "steps=a", "steps=0,1", "steps=1,-2", "steps=1,inf"):
        with pytest.raises(InputError, match="is no growth"):
            growth.asked_for(text)


def test_whole_numbers_stay_whole():
    sizes = growth.sizes(experiment(), "quick", "steps", (0.001, 0.5, 1, 2.5))
    assert sizes == [1, 250, 500, 1250]
    assert all(isinstance(size, int) for size in sizes)
    assert growth.sizes(experiment(variants={}), "quick", "rate", (1, 3)) == [0.25, 0.75]


def test_what_cannot_grow_is_named():
    for setting, words in (("kind", "no setting 'kind' that is a number; there are steps, rate"), ("rate", "'off' sets it")):
        with pytest.raises(InputError, match=words):
            growth.sizes(experiment(), "quick", setting, (1, 2))


def test_the_curve_shows_the_system_its_controls_and_the_bound():
    found = grown([0.9, 0.92, 0.91], [0.5, 0.5, 0.5], at_most("m", 0.95))
    (axis,) = growth.draw(found).axes
    assert axis.get_xlabel() == "steps"
    assert axis.get_ylabel() == "m"
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {"system", "off"}
    assert any(list(line.get_ydata()) == [0.95, 0.95] for line in axis.lines)
    drawn = growth.svg(found)
    assert drawn.startswith(b"<?xml")
    assert drawn == growth.svg(found)
    assert "holds at 1x" not in growth.caption(found)  # off meets it as well
    assert "vacuous at 1x, 2x, 4x" in growth.caption(found)


def two_checks(first, second, system, off):
    """A claim with two checks of `m` and `n`, from (m, n) of the system and of its ablation at each size."""
    claim = Claim("C1", "it works", kind="paper", checks=[first, second], ablation="off", null=NONE_YET, seeds=1)
    verdicts = tuple(
        judge(claim, {100: {"system": dict(zip("mn", a, strict=True)), "off": dict(zip("mn", b, strict=True))}}, "quick")
        for a, b in zip(system, off, strict=True)
    )
    factors = tuple(float(4**k) for k in range(len(system)))
    return growth.Growth(claim, "steps", factors, tuple(500 * f for f in factors), verdicts, stale=True)


def test_a_control_on_a_bound_has_met_it_and_comes_no_nearer():
    """It is on the bound of `m` at each size and comes nearer to that of `n` alone."""
    found = two_checks(at_least("m", 0.5), at_most("n", 0.1), [(0.9, 0.0), (0.9, 0.0)], [(0.5, 0.9), (0.5, 0.3)])
    assert found.faded == ([0.9, 0.3], 0.1)
    both = two_checks(at_least("m", 0.5), at_most("n", 0.1), [(0.9, 0.0), (0.9, 0.0)], [(0.1, 0.9), (0.1, 0.3)])
    assert both.faded is None  # of two that it missed it comes nearer to one
    last = two_checks(at_least("m", 0.5), at_most("n", 0.1), [(0.9, 0.0), (0.9, 0.08)], [(0.1, 0.9), (0.1, 0.9)])
    assert last.faded == ([0.0, 0.08], 0.1)
    assert two_checks(at_least("m", 0.5), at_most("n", 0.1), [(0.9, 0.0)], [(0.1, 0.9)]).faded is None
    low = grown([0.42, 0.405], [0.9, 0.9], equals("m", 0.5, tol=0.1))
    assert low.faded[1] == pytest.approx(0.4)  # the nearer of its two edges


def test_growth_as_json_has_each_size():
    found = two_checks(at_least("m", 0.5), at_most("n", 0.1), [(0.9, 0.0), (0.9, 0.0)], [(0.1, 0.9), (0.1, 0.9)])
    said = found.to_dict()
    assert {name: said[name] for name in ("setting", "text", "fades", "stale")} == {
        "setting": "steps", "text": "holds at 1x, 4x", "fades": False, "stale": True,
    }  # fmt: skip
    assert [(each["factor"], each["value"], each["verdict"], each["leaning"], each["seeds"]) for each in said["sizes"]] == [
        (1.0, 500.0, "holds", None, [100]), (4.0, 2000.0, "holds", None, [100]),
    ]  # fmt: skip
    assert [each["metric"] for each in said["sizes"][0]["checks"]] == ["m", "n"]
    assert [each["control"] for each in said["sizes"][0]["controls"]] == ["off"]
    assert growth.Growth(found.claim, "steps", (1.0,), (500.0,), found.verdicts[:1]).stale is False
    assert growth.caption(found) == (
        "C1 as steps grows: m, n of system and, in grey, of its controls; the dashed line is the bound. As it grows: "
        "holds at 1x, 4x."
    )


def test_a_curve_for_each_check_of_the_system_with_its_numbers():
    claim = Claim(
        "C1", "it works", kind="paper", ablation="off", null="ridge", seeds=2,
        checks=[at_least("m", 0.1, of="ridge"), at_least("m", 0.3, minus="ridge"), at_most("m", 0.95)],
    )  # fmt: skip
    tables = [
        {100 + k: {"system": {"m": a + 0.02 * k}, "off": {"m": b}, "ridge": {"m": 0.2}} for k in range(2)}
        for a, b in ((0.8, 0.1), (0.7, 0.15))
    ]
    found = growth.Growth(claim, "steps", (1.0, 4.0), (500.0, 2000.0), tuple(judge(claim, each, "quick") for each in tables))
    first, second = growth.draw(found).axes
    assert (first.get_ylabel(), second.get_ylabel(), first.get_xscale()) == ("m, minus ridge", "m", "log")
    off, ridge = ([list(map(float, line.get_ydata())) for line in axis.lines[:2]] for axis in (first, second))
    assert (off, ridge) == ([pytest.approx([-0.1, -0.05]), pytest.approx([0.0, 0.0])], [[0.1, 0.15], [0.2, 0.2]])
    (bars,) = [each for each in first.collections if len(each.get_segments()) == 2]
    outcome = found.verdicts[0].outcomes[1]
    (_, low), (_, high) = bars.get_segments()[0]
    assert (low, high) == pytest.approx((outcome.low, outcome.high))
    assert [text.get_text() for text in first.get_xticklabels()] == ["500", "2000"]
    assert all(axis.get_xscale() == "log" and axis.xaxis.get_transform().base == 2 for axis in (first, second))


def kept(*seeds, code="now", preset="quick", value=0.9, factor="1"):
    rows = {str(seed): {"system": {"m": value}, "off": {"m": 0.1}} for seed in seeds}
    return {"preset": preset, "code_hash": code, "sizes": {factor: {"value": 500, "metrics": rows}}}


def test_two_records_of_growth_are_one_where_they_are_of_the_same_code_and_size():
    assert growth.merge(None, None) is None
    assert growth.merge(kept(100), None) == growth.merge(None, kept(100)) == kept(100)
    both = growth.merge(kept(100, 102), kept(101, 102, value=0.8))
    assert {seed: row["system"]["m"] for seed, row in both["sizes"]["1"]["metrics"].items()} == {
        "100": 0.9, "101": 0.8, "102": 0.8,
    }  # fmt: skip
    assert list(growth.merge(kept(100, factor="10"), kept(100, factor="4"))["sizes"]) == ["4", "10"]
    for other in (kept(100, 101, code="then"), kept(100, 101, preset="paper")):
        assert growth.merge(kept(100, 101), other) == other  # as many of both
        assert growth.merge(kept(100, 101, 102), other) == kept(100, 101, 102)
        assert growth.merge(kept(100, factor="4"), other) == kept(100, factor="4")
    assert growth.merged_seeds(
        {"9": {"a": {"x": 1, "y": 2}}}, {"10": {"a": {"x": 3}}, "9": {"a": {"x": 5}, "b": {"z": 4}}}
    ) == {
        "9": {"a": {"x": 5, "y": 2}, "b": {"z": 4}},
        "10": {"a": {"x": 3}},
    }


def test_what_a_record_of_growth_says_of_a_claim():
    check = at_least("m", 0.5)
    paper = Claim("C1", "it works", kind="paper", checks=[check], ablation="off", null=NONE_YET, seeds=1)
    ours = Claim("C2", "it is exact", kind="check", checks=[check], seeds=1)
    sizes = {"10": kept(100)["sizes"]["1"] | {"value": 5000}, **kept(100, factor="2")["sizes"], **kept(factor="1")["sizes"]}
    record = {"steps": {**kept(), "sizes": sizes}}
    (found,) = growth.growths(paper, experiment(), record, "now")
    assert (found.factors, found.sizes, found.setting, found.stale) == (
        (2.0, 10.0),
        (500, 5000),
        "steps",
        False,
    )  # 1x has no seed
    assert growth.growths(paper, experiment(), record, "later")[0].stale
    assert growth.growths(ours, experiment(), record, "now") == ()
    grows = Claim("C2", "it is exact", kind="check", checks=[check], seeds=1, grows="steps")
    assert len(growth.growths(grows, experiment(), record, "now")) == 1
    assert growth.growths(paper, experiment(), {"steps": kept()}, "now") == ()


def test_a_setting_that_is_no_number_cannot_grow():
    made = ExperimentEntry("main", "", {"quick": {"fast": True}}, {}, (), (Field("fast", "bool"),))
    for setting in ("fast", "none"):
        with pytest.raises(InputError, match=r"is a number; there are none\."):
            growth.sizes(made, "quick", setting, (1, 2))
    assert growth.asked_for(" steps =2,1,1") == ("steps", (1.0, 2.0))
