import dataclasses
import re

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.lab import NONE_YET, at_least, at_most, equals
from broadsheet.lab.claims import Claim
from broadsheet.lab.growth import Growth
from broadsheet.lab.ledger import Recorded
from broadsheet.lab.verdicts import judge
from broadsheet.page import reading

TABLE = {"system": 0.95, "off": 0.5, "ridge": 0.6}


def table(seeds=3, **arms):
    """Accuracy of each arm, a little different on each seed."""
    return {
        100 + k: {arm: {"accuracy": value + 0.002 * (k - 1)} for arm, value in (TABLE | arms).items()} for k in range(seeds)
    }


def claim(*checks, **options):
    given = {"kind": "paper", "ablation": "off", "null": "ridge", "checks": checks or [at_least("accuracy", 0.9)]} | options
    return Claim("C1", "memory carries the long range", **given)


def recorded(made, runs, **changed):
    found = judge(made, runs, "quick")
    state = Recorded(
        made, "recall", found.verdict, "quick", found.outcomes, found.seeds, found.leaning, found.trials, found.warnings,
        scale="toy size, from the official code",
    )  # fmt: skip
    return dataclasses.replace(state, **changed)


def shown(state, curve=""):
    return BeautifulSoup(reading.html(state, lambda experiment, name: curve), "html.parser").article


def said(element):
    return re.sub(r"\s+", " ", element.get_text(" ")).strip()


def test_what_is_to_be_known_beside_a_good_verdict_is_shown():
    narrow = "By one neighbour on one seed."
    assert narrow in said(shown(recorded(claim(reason=narrow), table())))
    assert shown(recorded(claim(), table())).select_one(".reason") is None


def test_each_verdict_has_a_sentence_of_its_own():
    holds = recorded(claim(), table())
    sentences = {
        "holds": reading.meaning(holds),
        "vacuous": reading.meaning(recorded(claim(), table(ridge=0.93))),
        "fails": reading.meaning(recorded(claim(), table(system=0.8))),
        "mixed": reading.meaning(recorded(claim(), table(system=0.9))),
        "provisional": reading.meaning(recorded(claim(), table(seeds=2))),
        "stale": reading.meaning(dataclasses.replace(holds, verdict="stale", leaning="holds")),
    }
    assert sentences["holds"] == (
        "The system does this; with the paper's mechanism off (off) it does not, and neither does a trivial explanation (ridge)."
    )
    assert sentences["vacuous"] == "It proves nothing: a trivial explanation (ridge) meets it too."
    assert sentences["fails"] == "The system does not do this: accuracy misses its bound."
    assert sentences["mixed"].startswith("Undecided")
    assert sentences["provisional"].startswith("Only 2 of the 3 seeds that it takes; so far: the system does this")
    assert sentences["stale"].startswith("The code has changed since this was measured; then: the system does this")
    assert len(set(sentences.values())) == len(sentences)


def test_what_was_not_tried_is_said():
    waiting = recorded(claim(null=NONE_YET), table())
    assert reading.meaning(waiting).endswith("No trivial explanation has been tried against it yet.")
    assert "Trivial explanation none yet" in said(shown(waiting))
    why = "two forms of one cell are compared"
    answered = shown(recorded(claim(null=(), no_null=why, grows="steps"), table()))
    assert why in said(answered)
    assert "As steps grows not tried yet" in said(answered)


def test_a_control_that_meets_the_claim_is_marked_in_words():
    page = shown(recorded(claim(), table(ridge=0.93)))
    rows = {
        row.th.contents[0].strip(): said(row) for row in page.select(".strips tr:not(.check)") if row.th.get("scope") == "row"
    }
    assert "meets the whole claim too" in rows["ridge"]
    assert "inside by 0.03" in rows["ridge"]
    assert "outside by 0.4" in rows["off"]
    assert "meets" not in rows["off"] + rows["system"]
    assert page.find(class_="judged").find(class_="vacuous")
    assert "toy size, from the official code" in said(page.find(class_="judged"))


def test_a_difference_says_so_and_a_control_stands_in_the_systems_place():
    """The system is 0.34 lower than augmentation; beside that, the control's own 0.40 would look like the better one."""
    runs = table(seeds=8, system=0.06, off=0.40, ridge=0.30)
    strip = reading.read(recorded(claim(at_most("accuracy", -0.05, minus="off")), runs)).strips[0]
    assert strip.difference == "off"
    assert [row.said for row in strip.rows] == ["system − off", "off − off", "ridge − off"]
    assert [round(row.value, 9) for row in strip.rows] == [-0.34, 0.0, -0.1]
    assert strip.rows[1].stands == "no difference to itself: outside by 0.05"
    assert strip.wanted == "≤ -0.05 for the mean over 8 seeds, with its 95 % interval"


def test_a_check_of_an_arm_alone_has_no_controls():
    made = claim(at_least("accuracy", 0.9), at_most("accuracy", 0.65, of="off"))
    first, second = reading.read(recorded(made, table())).strips
    assert (first.of, len(first.rows)) == ("", 3)
    assert (second.of, [row.said for row in second.rows]) == ("off", ["off"])


def test_doubts_about_a_control_stand_beside_it_with_the_answer():
    made = claim(at_least("accuracy", 0.9, within=(0.0, 1.0)), answers_to={"off": "the score has no upper end"})
    text = said(shown(recorded(made, table(off=-3.0))))
    assert "“off” may fail by construction: accuracy leaves its range, 0 to 1" in text
    assert "the score has no upper end" in text
    silent = said(shown(recorded(claim(at_least("accuracy", 0.9, within=(0.0, 1.0))), table(off=-3.0))))
    assert "Nobody has answered this yet" in silent


def test_growth_has_its_words_numbers_and_picture():
    made = claim(grows="steps")
    runs = [table(), table(ridge=0.93)]
    grown = Growth(made, "steps", (1.0, 4.0), (500, 2000), tuple(judge(made, one, "quick") for one in runs))
    steady = dataclasses.replace(grown, verdicts=(grown.verdicts[0],) * 2)
    state = recorded(made, table(), growth=(grown,))
    assert reading.meaning(state).endswith("As steps grows, it fades.")
    assert reading.meaning(dataclasses.replace(state, growth=(steady,))).endswith("The same with 4 times the steps.")
    page = shown(state, "the curve of C1")
    text = said(page.find(class_="growth"))
    assert "holds at 1x; vacuous at 4x" in text
    assert "the curve of" in text
    assert [said(th) for th in page.select(".sizes tbody th")] == ["1×: 500", "4×: 2000"]
    assert "ridge 0.93" in said(page.select_one(".sizes"))


@pytest.mark.parametrize("kind", [at_least, at_most])
@given(
    values=st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=3, max_size=3),
    bound=st.floats(-1e6, 1e6).map(lambda x: round(x, 3)),
)
def test_what_lies_in_the_shaded_part_meets_the_bound(kind, values, bound):
    runs = {100: {arm: {"accuracy": value} for arm, value in zip(TABLE, values, strict=True)}}
    strip = reading.read(recorded(claim(kind("accuracy", bound), seeds=1), runs)).strips[0]
    low, high = strip.shaded
    spots = [row.spot for row in strip.rows]
    assert all(0 <= spot <= 100 for spot in spots)
    assert all(low <= row.spot <= high for row in strip.rows if row.inside)
    for one, other in zip(values, spots, strict=True):
        assert all((one <= x) <= (other <= y) for x, y in zip(values, spots, strict=True))


def test_errors_of_very_different_size_have_a_logarithmic_strip():
    runs = {100: {"system": {"e": 0.0}, "off": {"e": 0.7}, "ridge": {"e": 2e-4}}}
    strip = reading.read(recorded(claim(at_most("e", 1e-6), seeds=1), runs)).strips[0]
    assert strip.logarithmic
    system, off, ridge = (row.spot for row in strip.rows)
    assert system < strip.edges[0] < ridge < off
    assert off - ridge > 15  # on a linear strip both would lie at one end with the bound


def test_numbers_that_are_none_have_no_place():
    runs = {100: {"system": {"e": 1.0}, "off": {"e": float("nan")}, "ridge": {"e": float("inf")}}}
    rows = reading.read(recorded(claim(equals("e", 1.0, 0.1), seeds=1), runs)).strips[0].rows
    assert [row.spot is None for row in rows] == [False, True, True]
    assert rows[1].stands == "no finite number: meets no bound"


def test_a_difference_says_so_wherever_a_control_stands_beside_it():
    """A control's value, taken alone, would read as the better one: 0.55 against 0.45."""
    pytest.importorskip("typer", reason="The command line is not here.")
    from broadsheet.cli.output import checks_text, controls_text

    made = claim(at_least("accuracy", 0.3, minus="off"), null="ridge", grows="steps")
    runs = table(system=0.95, off=0.5, ridge=0.05)
    verdicts = [judge(made, runs, "quick")] * 2
    state = recorded(made, runs, growth=(Growth(made, "steps", (1.0, 4.0), (100, 400), verdicts),))
    assert "accuracy (system − off) 0.45 ≥ 0.3" in checks_text(made, state.outcomes)
    assert controls_text(state.trials).splitlines() == ["off: off − off 0", "ridge: ridge − off -0.45"]
    row = said(shown(state).select_one(".sizes tbody tr"))
    assert "system − off 0.45" in row
    assert "ridge − off -0.45" in row
    plain = recorded(claim(), table())
    assert checks_text(plain.claim, plain.outcomes).startswith("accuracy 0.95 ≥")
    assert controls_text(plain.trials).splitlines() == ["off: 0.5", "ridge: 0.6"]


def test_checks_of_our_own_and_claims_about_another_arm_in_words():
    ours = claim(kind="check", null=(), reference="SciPy", where="eq. 3")
    holds = recorded(ours, table())
    assert holds.verdict == "reference"
    assert reading.meaning(holds) == "Our code passes; made wrong on purpose (off) it does not."
    assert (
        reading.meaning(recorded(ours, table(off=0.95)))
        == "It proves nothing: an implementation that is wrong on purpose (off) passes too."
    )
    assert reading.meaning(recorded(ours, table(system=0.5))) == "Our code does not pass: accuracy misses its bound."
    assert reading.read(holds).source == "our own check, eq. 3; against SciPy"
    assert reading.read(recorded(claim(), table())).source == "the paper's"
    about = claim(at_least("accuracy", 0.9, of="peer"), about="peer")
    runs = table(peer=0.95)
    assert reading.meaning(recorded(about, runs)) == (
        "“peer” does this; off, tried in its place, does not, and neither does a trivial explanation (ridge)."
    )
    assert reading.meaning(recorded(about, table(peer=0.95, off=0.93, ridge=0.93))) == (
        "It proves nothing: what was tried in its place (off) and a trivial explanation (ridge) meet it too."
    )
    assert (
        reading.meaning(recorded(claim(), table(off=0.93)))
        == "It proves nothing: the system with its mechanism off (off) meets it too."
    )
    both = recorded(claim(kind="check"), table(off=0.93, ridge=0.94))
    assert reading.meaning(both).endswith("a trivial explanation (ridge) pass too.")
    alone = recorded(claim(ablation=(), no_ablation="why"), table())
    assert reading.meaning(alone) == "The system does this; a trivial explanation (ridge) does not."
    assert reading.read(alone).absent == (("Mechanism off", "why"),)
    assert reading.read(recorded(claim(null=(), no_null="so"), table())).absent == (("Trivial explanation", "so"),)
    assert reading.read(recorded(claim(null=NONE_YET), table())).absent == (("Trivial explanation", "none yet"),)
    assert reading.read(recorded(claim(kind="check", null=(), no_null="so"), table())).absent == ()


def test_what_may_meet_a_claim_too_leaves_it_undecided():
    made = claim(at_least("accuracy", 0.9, over="mean"))
    runs = {
        100 + k: {"system": {"accuracy": 0.97}, "off": {"accuracy": 0.5}, "ridge": {"accuracy": 0.8 + 0.15 * k}}
        for k in range(3)
    }
    assert reading.meaning(recorded(made, runs)) == "Undecided: the system does this, but ridge may do it too."
    wide = {
        100 + k: {"system": {"accuracy": 0.85 + 0.07 * k}, "off": {"accuracy": 0.5}, "ridge": {"accuracy": 0.8 + 0.15 * k}}
        for k in range(3)
    }
    assert (
        reading.meaning(recorded(made, wide))
        == "Undecided: some seeds, or a part of the interval, lie on the wrong side of the bound."
    )


def test_claims_without_a_verdict_in_words():
    for made, said in (
        (claim(), "Not measured yet."), (claim(at_least("accuracy", {"paper": 0.9})), "Not measured: it is judged at the paper's size only."),
        (Claim("U", "it flies", kind="paper", untested="no wings"), "It could not be tested here."),
    ):  # fmt: skip
        state = Recorded(made, "recall", None)
        assert reading.meaning(state) == said
        found = reading.read(state)
        assert (found.verdict, found.then, found.made, found.reason) == ("not run", "", "", made.untested)
    assert reading.meaning(Recorded(claim(), "recall", "reported")) == "A number without a bound."
    assert reading.meaning(Recorded(claim(), "recall", "of another age")) == ""
    assert reading.meaning(Recorded(claim(), "recall", "stale")) == reading.VERDICTS["stale"]


def test_what_a_verdict_was_and_is_made_of():
    holds = recorded(claim(), table())
    stale = dataclasses.replace(holds, verdict="stale", leaning="holds")
    early = recorded(claim(), table(seeds=1))
    assert (reading.read(holds).then, reading.read(stale).then, reading.read(early).then) == ("", "was: holds", "so far: holds")
    assert reading.read(holds).made == "toy size, from the official code · 3 seeds"
    assert reading.read(early).made == "toy size, from the official code · 1 seed"
    states = [holds, stale, early, Recorded(claim(), "", None), holds]
    assert list(reading.tally(states).items()) == [("holds", 2), ("provisional", 1), ("stale", 1), ("not run", 1)]
    assert [reading.in_trouble(state) for state in (holds, stale, dataclasses.replace(stale, leaning="mixed"))] == [
        False,
        False,
        True,
    ]
    assert reading.in_trouble(recorded(claim(), table(system=0.5)))
    assert [reading.number(value) for value in (None, float("nan"), 1 / 3, 1e-9)] == ["–", "–", "0.3333", "1e-09"]
    assert [reading.FILTERS["css"](name) for name in (None, "not run", "holds")] == ["notrun", "notrun", "holds"]


def test_growth_in_words_and_numbers():
    made = claim(at_least("accuracy", 0.3, of="ridge"), at_least("accuracy", 0.9), grows="steps")
    runs = [table(), table(system=0.9)]
    grown = Growth(made, "steps", (1.0, 4.0), (500, 2000), tuple(judge(made, one, "quick") for one in runs), stale=True)
    kept = dataclasses.replace(grown, verdicts=grown.verdicts[:1], factors=(1.0,), sizes=(500,))
    lost = dataclasses.replace(grown, verdicts=grown.verdicts[::-1])
    found = reading.read(recorded(made, table(), growth=(grown,))).growth[0]
    assert (found.setting, found.fades, found.stale, found.curve) == ("steps", True, True, "growth-C1-steps")
    assert found.checks == ("accuracy, ≥ 0.9",)
    first, second = found.sizes
    assert (first.factor, first.value, first.verdict, second.factor, second.value, second.verdict) == (
        1.0,
        500,
        "holds",
        4.0,
        2000,
        "mixed",
    )
    assert [[name for name, _ in cell] for cell in first.cells] == [["system", "off", "ridge"]]
    assert [value for _, value in first.cells[0]] == pytest.approx([0.95, 0.5, 0.6])

    def ends(*growth):
        return reading.meaning(recorded(made, table(), growth=growth)).partition(". ")[2] or ""

    plain = reading.meaning(recorded(made, table()))
    assert reading.meaning(recorded(made, table(), growth=(kept,))) == plain  # one size says nothing
    assert reading.meaning(recorded(made, table(), growth=(lost,))) == f"{plain} With 4 times the steps: holds."
    assert reading.meaning(recorded(made, table(system=0.5), growth=(grown,))) == reading.meaning(
        recorded(made, table(system=0.5))
    )
    assert reading.meaning(Recorded(made, "", None, growth=(grown,))) == "Not measured yet."
    cautious = reading.read(recorded(made, table(), warnings=("it is odd",))).cautions
    assert cautious == ("It is odd.",)
