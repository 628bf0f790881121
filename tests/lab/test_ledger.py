"""What is verified anew is merged claim by claim, and makes nothing less known."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.lab import NONE_YET, Claim, at_least, ledger
from broadsheet.lab.registry import Entry, ExperimentEntry
from broadsheet.lab.schema import Field

NOW, BEFORE = "present", "earlier"


def made_of(claims, presets=("quick", "paper"), **options):
    configs = {preset: {"steps": 10 * (k + 1)} for k, preset in enumerate(presets)}
    experiment = ExperimentEntry("main", "", configs, {}, tuple(claims), (Field("steps", "int"),), **options)
    facts = {"slug": "toy", "basis": "code", "title": "A toy", "notes": [], "requires": []}
    return Entry(facts, "toy", {"main": experiment})


def claim(name, seeds=3, bound=0.9, metric="m", **options):
    checks = [at_least(metric, {"quick": bound, "paper": bound} if options.pop("both", False) else bound)]
    return Claim(name, "it works", kind="paper", checks=checks, ablation="off", null=NONE_YET, seeds=seeds, **options)


def record(seeds, preset="quick", code=NOW, metrics=("m",), value=0.95, **more):
    rows = {
        str(seed): {
            "system": dict.fromkeys(metrics, value + seed / 100000.0),
            "off": dict.fromkeys(metrics, 0.1 + seed / 100000.0),
        }
        for seed in seeds
    }
    return {
        "preset": preset, "code_hash": code, "device": "cpu", "seconds": float(len(rows)), "metrics": rows, **more,
    }  # fmt: skip


def data(*args, made="2026-01-01", **kwargs):
    return {"slug": "toy", "made": made, "experiments": {"main": record(*args, **kwargs)}}


def verdicts(entry, merged):
    return {state.claim.id: (state.verdict, state.leaning, len(state.seeds)) for state in ledger.states(entry, merged)}


@pytest.fixture(autouse=True)
def present(monkeypatch):
    monkeypatch.setattr(ledger, "code_hash", lambda entry, experiment: NOW)


def test_fewer_seeds_replace_nothing():
    entry = made_of([claim("A"), claim("B", seeds=8)])
    old = data(range(100, 108))
    merged = ledger.merge(entry, old, data([100], made="2026-02-01"))
    assert verdicts(entry, merged) == {"A": ("holds", None, 8), "B": ("holds", None, 8)}
    more = ledger.merge(entry, data([100, 101, 102]), data(range(103, 108)))
    assert verdicts(entry, more) == {"A": ("holds", None, 8), "B": ("holds", None, 8)}
    assert more["experiments"]["main"]["seconds"] == 8.0


def test_a_smaller_preset_replaces_nothing():
    entry = made_of([claim("A", both=True), claim("B")])
    large = ledger.merge(entry, data([100, 101, 102], preset="paper"), data([100, 101, 102]))
    assert {s.claim.id: s.preset for s in ledger.states(entry, large)} == {"A": "paper", "B": "quick"}  # B has no bound there
    again = ledger.merge(entry, large, data(range(100, 110)))
    assert {s.claim.id: (s.preset, len(s.seeds)) for s in ledger.states(entry, again)} == {
        "A": ("paper", 3),
        "B": ("quick", 10),
    }


def test_other_code_replaces_what_it_says_as_much_of():
    entry = made_of([claim("A"), claim("B", seeds=8)])
    old = data(range(100, 108), code=BEFORE)
    few = ledger.merge(entry, old, data([100, 101, 102]))
    assert verdicts(entry, few) == {"A": ("holds", None, 3), "B": ("stale", "holds", 8)}  # each claim keeps the better one
    assert len(few["experiments"]["main"]["more"]) == 1
    one = ledger.merge(entry, old, data([100]))
    assert verdicts(entry, one) == {"A": ("stale", "holds", 8), "B": ("stale", "holds", 8)}
    whole = ledger.merge(entry, few, data(range(103, 108)))
    assert verdicts(entry, whole) == {"A": ("holds", None, 8), "B": ("holds", None, 8)}
    assert "more" not in whole["experiments"]["main"]


def test_a_part_of_the_claims_leaves_the_others(monkeypatch):
    entry = made_of([claim("A"), claim("B")])
    other = ExperimentEntry("other", "", {"quick": {}}, {}, (claim("C"),))
    entry = Entry(entry.facts, "toy", {**entry.experiments, "other": other})
    old = {
        "slug": "toy",
        "made": "2026-01-01",
        "experiments": {"main": record([100, 101, 102]), "other": record([100, 101, 102])},
    }
    merged = ledger.merge(entry, old, {**old, "experiments": {"other": record([100], value=0.2)}})
    assert verdicts(entry, merged)["A"] == ("holds", None, 3)
    assert verdicts(entry, merged)["C"][0] == "mixed"  # the seed run anew with the same code counts
    gone = ledger.merge(Entry(entry.facts, "toy", {"main": entry.experiments["main"]}), merged, None)
    assert list(gone["experiments"]) == ["main"]


records = st.builds(
    record, st.sets(st.integers(100, 110), min_size=1, max_size=9), st.sampled_from(["quick", "paper"]),
    st.sampled_from([NOW, BEFORE, "oldest"]), st.sampled_from([("m",), ("n",), ("m", "n")]), st.sampled_from([0.95, 0.5]),
)  # fmt: skip


@given(st.lists(records, min_size=2, max_size=5))
def test_merging_makes_nothing_less_known(found):
    entry = made_of([claim("A"), claim("B", seeds=6, both=True), claim("C", metric="n"), claim("D", seeds=1, bound=0.2)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "code_hash", lambda entry, experiment: NOW)
        merged = None
        for each in found:
            new = {"slug": "toy", "made": "2026-01-01", "experiments": {"main": each}}
            before = verdicts(entry, merged)
            merged = json.loads(json.dumps(ledger.merge(entry, merged, new)))
            alone, after = verdicts(entry, new), verdicts(entry, merged)
            for name, (verdict, leaning, _) in after.items():
                for was, leant, _ in (before[name], alone[name]):
                    if was is not None:
                        assert verdict is not None
                    if was not in (None, "provisional", "stale") or (was == "stale" and leant != "provisional"):
                        assert verdict != "provisional"
                        assert verdict != "stale" or leaning != "provisional"


def test_growth_is_kept_beside_and_merged():
    entry = made_of([claim("A", grows="steps")])

    def size(value, seeds):
        return {"value": value, "metrics": record(seeds)["metrics"]}

    old = data(
        [100, 101, 102], growth={"steps": {"preset": "quick", "code_hash": NOW, "sizes": {"4": size(40, [100, 101, 102])}}}
    )
    new = data(
        [100], growth={"steps": {"preset": "quick", "code_hash": NOW, "sizes": {"1": size(10, [100]), "4": size(40, [100])}}}
    )
    merged = ledger.merge(entry, old, new)
    sizes = merged["experiments"]["main"]["growth"]["steps"]["sizes"]
    assert {factor: len(kept["metrics"]) for factor, kept in sizes.items()} == {"1": 1, "4": 3}
    (state,) = ledger.states(entry, merged)
    assert (state.growth[0].text, state.growth[0].stale) == ("holds at 1x, 4x, on 1 seed", False)
    later = data(
        [100, 101, 102],
        code="later",
        growth={"steps": {"preset": "quick", "code_hash": "later", "sizes": {"1": size(10, [100])}}},
    )
    kept = ledger.merge(entry, merged, later)["experiments"]["main"]["growth"]["steps"]
    assert kept["code_hash"] == NOW  # it has fewer sizes


def test_a_verdict_names_its_scale_and_carries_what_was_published():
    entry = made_of([claim("A", published="0.99 of 36 classes")])
    (state,) = ledger.states(entry, data([100, 101, 102]))
    assert state.text == "holds (toy size, from the official code)"
    said = state.to_dict()
    assert (said["published"], said["scale"]) == ("0.99 of 36 classes", "toy size, from the official code")
    assert [trial["control"] for trial in said["ablations"]] == ["off"]
    assert said["no_null"] == "none yet"
    assert ledger.waiting_for_null([state]) == ["A"]
    alike = made_of([claim("A")], presets=("quick",))
    assert ledger.scale("quick", "code", alike.experiments["main"]) == "toy size, from the official code"
    assert ledger.scale("paper", "paper") == "the paper's size, from the paper's text"
    written = ledger.with_verdicts(entry, data([100, 101, 102]))["verdicts"]["A"]
    assert written["published"] == "0.99 of 36 classes"
    assert written["ablations"][0]["checks"][0]["distance"] < 0
