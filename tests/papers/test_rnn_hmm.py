"""The paper's claims: what meets them without a network, and what does not."""

import jax
import numpy as np
import pytest

from broadsheet.numerics.markov_chains import fit_chain, lagged, linear_chain, pair_counts, symbol_statistics
from broadsheet.papers.rnn_hmm import Training, _samplers, paper
from quiet import Quiet


def test_a_first_order_chain_meets_rh3_and_not_rh10():
    emulation, architectures = (paper.experiments[name] for name in ("emulation", "architectures"))
    bounds = {check.metric: check for claim in emulation.claims if claim.id == "RH3" for check in claim.checks}
    samplers = _samplers(linear_chain(2), jax.random.key(0), Training())
    found = symbol_statistics(samplers["markov"](jax.random.key(1), 1000, 30), 3)
    for metric, value in (("b00", found.bigrams[0, 0]), ("b22", found.bigrams[2, 2]), ("volatility", found.volatility)):
        assert bounds[metric].distance(float(value), "quick") > 0
    teacher = linear_chain(3)
    check = next(claim for claim in architectures.claims if claim.id == "RH10").checks[0]
    assert check.value == pytest.approx(lagged(teacher.pairs(5)), abs=1e-3)
    symbols = np.asarray(teacher.sample(jax.random.key(2), 300, 100)[0])
    assert check.distance(lagged(pair_counts(symbols, 3, 5)), "quick") > 0
    assert check.distance(lagged(fit_chain(symbols, 3).pairs(5)), "quick") < 0


def test_checks_of_our_own_hold_at_quick():
    experiment = paper.experiments["teachers"]
    arms = experiment.function(experiment.configure("quick"), jax.random.key(3), Quiet()).arms
    claim = experiment.claims[0]
    for check in claim.checks:
        assert check.distance(arms["system"][check.metric], "quick") > 0
    for control in claim.ablations:
        assert any(check.distance(arms[control][check.metric], "quick") < 0 for check in claim.checks)
