from datetime import UTC, datetime

from broadsheet.lab.identity import code_hash
from broadsheet.lab.registry import entry
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Run
from broadsheet.page.standing import standings

SLUG, EXPERIMENT, CLAIM = "sdr-dendrites", "online", "C7"
OTHERS = {key: {"recall": 0.0, "recall_30": 0.0, "false_match": 1.0} for key in ("linear-sum", "logistic", "nearest")}


def record(store, variant, changed, seed=100, code=None, **metrics):
    """A run at quick size with these settings and numbers, of the present code where no other is said."""
    made = entry(SLUG)
    experiment = made.experiments[EXPERIMENT]
    metrics["recall_30"] = metrics["recall"]
    row = Run(
        id=f"{variant} {changed} {seed} {code}", slug=SLUG, experiment=EXPERIMENT, preset="quick", variant=variant, seed=seed,
        config=experiment.configure("quick", variant if variant in experiment.variant_names() else "system", changed),
        scalars={"system": metrics, **OTHERS} if variant == "system" else {"": metrics}, code_hash=code or code_hash(made, experiment),
        precision="float32", device="cpu", environment={}, finished=datetime.now(UTC), seconds=1.0, peak_mib=1.0,
        arrays_bytes=0,
    )  # fmt: skip
    with store.session() as session:
        session.add(row)


def test_only_runs_with_the_papers_own_settings_speak_of_its_claims(home):
    store = Store()
    changed = {"segments": "3"}
    record(store, "system", changed, recall=0.0, false_match=1.0)
    record(store, "dense", changed, recall=1.0, false_match=1.0)
    for seed, code in ((99, None), (100, "of an older time")):
        record(store, "system", {}, seed, code, recall=0.0, false_match=1.0)
        record(store, "dense", {}, seed, code, recall=1.0, false_match=1.0)
    record(store, "an older arm", {}, recall=0.0, false_match=1.0)
    assert CLAIM not in standings([SLUG], store)[SLUG].here
    record(store, "system", {}, recall=1.0, false_match=0.0)
    for control in ("dense", "dense-tuned"):
        record(store, control, {}, recall=1.0, false_match=1.0)
    assert standings([SLUG], store)[SLUG].here[CLAIM].leaning == "holds"
    record(store, "system", {"theta": "9"}, recall=0.0, false_match=1.0)  # the newest
    assert standings([SLUG], store)[SLUG].here[CLAIM].leaning == "holds"
