"""Every experiment of every paper at smoke size: the shape of its report, its figures, and the index."""

import math

import jax
import numpy as np
import pytest

from broadsheet.lab import Report
from broadsheet.lab.claims import SYSTEM
from broadsheet.lab.growth import FACTORS, sizes
from broadsheet.lab.registry import describe, entries, import_paper, index_text, papers_folder
from quiet import Quiet

UNDEFINED = {
    # a score does not rise
    ("representation-geometry", "pretraining"): {("facts", "learned_in_expansion")},
}
"""(paper, experiment) -> (arm, metric) that smoke size leaves without a number."""

CASES = [(slug, name) for slug, entry in entries().items() for name in entry.experiments]


@pytest.mark.parametrize(("slug", "name"), CASES, ids=[f"{slug}-{name}" for slug, name in CASES])
def test_experiment(slug, name):
    experiment = import_paper(entries()[slug].module).experiments[name]
    runs = {}
    with jax.enable_x64(experiment.precision == "float64"):
        for variant in experiment.variant_names():
            report = experiment.function(experiment.configure("smoke", variant), jax.random.key(1), Quiet())
            assert isinstance(report, Report)
            runs[variant] = Report(report.metrics, report.numpy_arrays(), report.arms)
            found = {(arm, metric): value for arm, row in report.scalars().items() for metric, value in row.items()}
            undefined = {where for where, value in found.items() if not math.isfinite(value)}
            assert undefined == UNDEFINED.get((slug, name), set())
            for array, values in runs[variant].arrays.items():
                assert values.dtype.kind not in "fc" or np.isfinite(values).any(), f"{array} holds no number"
    arms = {arm or SYSTEM: row for arm, row in runs[SYSTEM].scalars().items()}
    arms |= {variant: run.scalars()[""] for variant, run in runs.items() if "" in run.scalars()}
    for claim in experiment.claims:
        assert set(claim.needs()) <= set(arms), f"{claim.id} looks at {set(claim.needs()) - set(arms)}"
    drawn = {figure: draw(runs) for figure, draw in experiment.figures.items()}
    for figure in drawn.values():
        for axis in figure.axes:
            assert axis.get_xlabel() or axis.get_label() == "<colorbar>"
            assert axis.get_ylabel() or not axis.get_xlabel()


def test_metrics_of_claims_exist_at_quick_in_the_ledger():
    from broadsheet.lab.ledger import latest

    known = latest(list(entries()))
    for slug, entry in entries().items():
        for name, claim in entry.claims():
            if not name or not claim.judged_at("quick"):
                continue
            for arms in known[slug]["experiments"][name]["metrics"].values():
                for arm, names in claim.needs().items():  # of its controls too: one without a metric would be decorative
                    for metric in names:
                        if arm in claim.answers_to and (arm, metric) in UNDEFINED.get((slug, name), set()):
                            continue  # the paper's file says why it has no number at any size
                        value = arms[arm][metric]
                        assert isinstance(value, float), f"{claim.id}: {arm} has no {metric}"
                        assert math.isfinite(value)


def test_what_claims_grow_with_is_a_number_that_no_variant_sets():
    for entry in entries().values():
        for name, claim in entry.claims():
            if claim.grows:
                assert all(size > 0 for size in sizes(entry.experiments[name], "paper", claim.grows, FACTORS))


def test_the_index_is_fresh():
    assert (papers_folder() / "index.json").read_text() == index_text(), "run: python -m broadsheet.lab.registry"


def test_facts_are_whole():
    for slug, entry in entries().items():
        paper = import_paper(entry.module)
        assert describe(paper, entry.module).to_dict() == entry.to_dict()
        assert entry.facts["summary"]
        assert entry.facts["basis"] in ("paper", "code", "reconstructed")
        for part in entry.facts["parts"]:
            assert part.startswith("broadsheet.")
        assert slug.replace("-", "_") == entry.module.rsplit(".", 1)[1]
        for experiment in entry.experiments.values():
            assert experiment.summary
            assert "smoke" in experiment.presets
            assert "paper" in experiment.presets
