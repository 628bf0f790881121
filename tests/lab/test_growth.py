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
