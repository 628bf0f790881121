"""What is verified anew is merged claim by claim, and makes nothing less known."""

import json
from types import SimpleNamespace

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


def test_where_no_claim_is_judged_the_largest_record_stays():
    """By preset, then the present code, then seeds, then the newest."""
    entry = made_of([claim("A", metric="other")], presets=("smoke", "quick", "paper"))

    def stays(old, new):
        (name,) = ledger.merge(entry, old, new)["experiments"]
        merged = ledger.merge(entry, old, new)["experiments"][name]
        assert "more" not in merged
        return merged

    small, large = data(range(100, 109)), data([100], preset="paper", code=BEFORE)
    assert stays(small, large)["preset"] == stays(large, small)["preset"] == "paper"
    smoke, own = data(range(100, 109), preset="smoke"), data([100], preset="my size")  # which counts as quick
    assert stays(smoke, own)["preset"] == stays(own, smoke)["preset"] == "my size"
    old, new = data(range(100, 109), code=BEFORE), data([100])
    assert stays(old, new)["code_hash"] == stays(new, old)["code_hash"] == NOW
    few, many = data([100], code="a"), data([100, 101], code="b")
    assert stays(few, many)["code_hash"] == stays(many, few)["code_hash"] == "b"
    one, other = data([100], code="a"), data([100], code="b")
    assert (stays(one, other)["code_hash"], stays(other, one)["code_hash"]) == ("b", "a")


def test_of_records_that_say_as_much_the_present_codes_then_that_of_most_seeds_then_the_newest_counts():
    entry = made_of([claim("A", seeds=2)])

    def counts(old, new):
        return ledger.merge(entry, old, new)["experiments"]["main"]["code_hash"]

    many, few = data(range(100, 106), code=BEFORE), data([100, 101])
    assert counts(many, few) == counts(few, many) == NOW  # two are enough
    many, few = data(range(100, 106), code="a"), data([100, 101], code="b")
    assert counts(many, few) == counts(few, many) == "a"
    one, other = data([100, 101], code="a"), data([100, 101], code="b")
    assert (counts(one, other), counts(other, one)) == ("b", "a")
    single = made_of([claim("A", seeds=5)], deterministic=True)
    fresh, old = data([100]), data(range(100, 106), code=BEFORE)
    for both in ((fresh, old), (old, fresh)):
        assert ledger.merge(single, *both)["experiments"]["main"]["code_hash"] == NOW


def test_records_of_another_device_are_not_mixed():
    entry = made_of([claim("A")])
    merged = ledger.merge(entry, data([100, 101, 102], device="gpu"), data([103]))
    assert len(merged["experiments"]["main"]["metrics"]) == 3
    one = ledger.merge(entry, data([100, 101]), data([102], value=0.99))["experiments"]["main"]
    assert (one["seconds"], list(one["metrics"])) == (3.0, ["100", "101", "102"])
    assert ledger.merge(entry, {"made": "2026-01-01", "a": 1}, {"made": "2026-02-01", "b": 2}) == {
        "made": "2026-02-01", "a": 1, "b": 2, "experiments": {},
    }  # fmt: skip


def test_an_entry_that_lacks_something_is_not_whole():
    growing = {
        "steps": {"preset": "quick", "code_hash": NOW, "sizes": {"4": {"value": 40, "metrics": record([100])["metrics"]}}}
    }
    whole = {"made": "2026-01-01", "experiments": {"main": record([100], growth=growing, more=[record([101], code=BEFORE)])}}
    assert ledger._is_whole(whole)
    assert ledger._is_whole({"made": "2026-01-01", "experiments": {}})

    def without(path, value=...):
        copy = json.loads(json.dumps(whole))
        *outer, last = path
        inner = copy
        for step in outer:
            inner = inner[step]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        return copy

    main = ("experiments", "main")
    assert not ledger._is_whole(without(("made",)))
    assert not ledger._is_whole(without(("experiments",)))
    for name in ("preset", "code_hash", "device", "seconds", "metrics"):
        assert not ledger._is_whole(without((*main, name)))
        assert not ledger._is_whole(without((*main, "more", 0, name)))
    for name in ("preset", "code_hash", "sizes"):
        assert not ledger._is_whole(without((*main, "growth", "steps", name)))
    for name in ("value", "metrics"):
        assert not ledger._is_whole(without((*main, "growth", "steps", "sizes", "4", name)))
    assert not ledger._is_whole(without((*main, "metrics"), {}))
    assert not ledger._is_whole(without((*main, "seconds"), "long"))
    assert not ledger._is_whole(without((*main, "preset"), 3))


def test_scales_and_counts_in_words():
    alike = ExperimentEntry("main", "", {"quick": {"n": 1}, "paper": {"n": 1}}, {}, ())
    larger = ExperimentEntry("main", "", {"quick": {"n": 1}, "paper": {"n": 2}}, {}, ())
    assert ledger.scale("quick", "paper", alike) == "the paper's size, from the paper's text"
    assert ledger.scale("quick", "code", larger) == ledger.scale("quick", "code") == "toy size, from the official code"
    assert ledger.scale("smoke", "reconstructed", alike) == "smoke size, after the idea of the abstract"
    assert ledger.scale("mine", "own", larger) == "mine, own"
    assert ledger.scale(None, "code") == ", from the official code"
    paper = claim("A")
    ours = Claim("B", "it is exact", kind="check", checks=[at_least("m", 0.5)])
    states = [ledger.Recorded(c, "main", v) for c, v in (
        (paper, "fails"), (paper, "holds"), (paper, None), (ours, "reference"), (paper, "holds"))]  # fmt: skip
    assert list(ledger.counts(states).items()) == [("holds", 2), ("fails", 1), ("not run", 1)]
    assert (states[2].text, states[2].to_dict()["scale"]) == ("not run", None)
    assert ledger.Recorded(paper, "", None).to_dict() == {
        "id": "A", "kind": "paper", "statement": "it works", "where": "", "experiment": None, "verdict": None, "leaning": None,
        "scale": None, "preset": None, "seeds": [], "published": None, "reason": None, "checks": [], "ablations": [],
        "no_ablation": None, "nulls": [], "no_null": "none yet", "warnings": [], "growth": [],
    }  # fmt: skip


def test_a_claim_that_its_record_does_not_reach_says_why(monkeypatch):
    entry = made_of([claim("A"), claim("B", metric="n"), Claim("U", "it flies", kind="paper", untested="no wings")])
    entry = Entry(entry.facts, "toy", entry.experiments, untested=(entry.experiments["main"].claims[2],))
    first, second, *_, last = ledger.states(entry, data([100, 101, 102]))
    assert (first.verdict, first.preset, first.seeds, first.leaning) == ("holds", "quick", (100, 101, 102), None)
    assert (second.verdict, len(second.warnings)) == (None, 2)
    assert (last.experiment, last.verdict) == ("", None)
    stale = ledger.states(entry, data([100, 101, 102], code=BEFORE))[0]
    assert (stale.verdict, stale.leaning, stale.text) == ("stale", "holds", "stale (toy size, from the official code)")
    short = ledger.states(entry, data([100], code=BEFORE))[0]
    assert (short.verdict, short.leaning) == ("stale", "provisional")


def test_what_is_made_of_runs_is_written_with_its_verdicts(tmp_path, monkeypatch):
    """Metrics to six digits; seconds of each run once; what a person reads beside it."""
    monkeypatch.setattr("broadsheet.lab.identity.code_hash", lambda entry, experiment: NOW)
    entry = made_of([claim("A", seeds=1)])
    runs = [SimpleNamespace(id=k, seed=100, variant=variant, scalars={"": {"m": value}}, seconds=seconds, device="gpu")
            for k, variant, value, seconds in (("1", "system", 0.95123456, 1.26), ("2", "off", 0.1, 2.0))]  # fmt: skip

    class Kept:
        def find(self, **which):
            assert which["slug"] == "toy"
            return runs

    plan = SimpleNamespace(
        entry=entry, experiment=entry.experiments["main"], job=SimpleNamespace(preset="quick"), runs=[*runs, runs[0]]
    )
    other = SimpleNamespace(
        entry=entry, experiment=ExperimentEntry("lost", "", {"quick": {}}, {}, ()), job=plan.job,
        runs=[SimpleNamespace(id="3", seed=1, variant="system")],
    )  # fmt: skip
    made = ledger.make_entry(entry, [plan, other], Kept(), {"main": {"steps": {4.0: plan}}, "lost": {}})
    assert set(made) == {"slug", "basis", "made", "environment", "experiments", "verdicts"}
    assert (made["slug"], made["basis"], made["verdicts"], list(made["experiments"])) == ("toy", "code", {}, ["main"])
    kept = made["experiments"]["main"]
    assert kept.pop("made") == made["made"]
    growing = kept.pop("growth")["steps"]
    assert kept == {
        "preset": "quick", "code_hash": NOW, "device": "gpu", "seconds": 3.3,
        "metrics": {"100": {"system": {"m": 0.951235}, "off": {"m": 0.1}}},
    }  # fmt: skip
    assert growing["sizes"] == {"4": {"value": 40, "metrics": kept["metrics"]}}
    assert growing["preset"] == "quick"
    text = ledger.write(entry, made, tmp_path).read_text()
    assert text.startswith('{\n "slug": "toy"')
    assert text.endswith("}\n")
    assert "≥ 0.9" in text  # as a person writes it
    assert list(json.loads(text)["verdicts"]["A"])[:2] == ["statement", "verdict"]
    assert not {"id", "kind", "experiment", "where"} & set(json.loads(text)["verdicts"]["A"])


def test_the_later_of_what_shipped_and_what_was_verified_here_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "ledger_folder", lambda: tmp_path)
    monkeypatch.setattr(ledger, "entries", lambda: {"toy": made_of([claim("A")])})
    (tmp_path / "toy.json").write_text(json.dumps({**data([100], made="2026-02-01"), "environment": "shipped"}))
    for made, said in (("2026-01-31", "shipped"), ("2026-02-02", "here")):
        here = {"toy": {**data([101], made=made), "environment": "here"}, "gone": data([1])}
        found = ledger.latest(["toy", "other"], SimpleNamespace(verifications=lambda sound, here=here: here))
        assert list(found) == ["toy"]
        assert (found["toy"]["environment"], found["toy"]["made"]) == (said, max(made, "2026-02-01"))
        assert sorted(found["toy"]["experiments"]["main"]["metrics"]) == ["100", "101"]
