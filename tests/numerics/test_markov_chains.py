"""Models that emit symbols against the official matrices, brute force and sampling."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.numerics.markov_chains import (
    CategoricalHMM,
    cyclic,
    fit_chain,
    fully_connected,
    lagged,
    linear_chain,
    pair_counts,
    run_lengths,
    symbol_statistics,
)

GIVEN = json.loads((Path(__file__).parents[1] / "references" / "hmmrnn.json").read_text())


def test_the_six_models_are_the_official_ones():
    ours = {**{str(n): linear_chain(n) for n in (2, 3, 4, 5)}, "fully": fully_connected(), "cyclic": cyclic()}
    for name, wanted in GIVEN["hmm"].items():
        assert np.allclose(ours[name].transitions, wanted["transitions"], atol=1e-6)
        assert np.allclose(ours[name].emissions, wanted["emissions"], atol=1e-6)


@pytest.mark.parametrize(
    ("model", "length", "stay", "changes"),
    [(linear_chain(2), 100, 0.9405, 6.812), (linear_chain(3), 30, 0.75121, 7.430), (linear_chain(4), 30, 0.70921, 8.636),
     (linear_chain(5), 40, 0.69569, 12.136), (fully_connected(), 30, 0.91356, 2.507), (cyclic(), 40, 0.7835, 8.356)],
)  # fmt: skip
def test_closed_forms(model, length, stay, changes):
    assert model.bigrams()[0, 0] == pytest.approx(stay, abs=2e-5)
    assert model.volatility(length) == pytest.approx(changes, abs=1e-3)


def test_likelihood_is_the_sum_over_paths():
    model, symbols = linear_chain(3), [0, 1, 2, 2, 0]
    moves, emitted, start = (np.asarray(part, float) for part in (model.transitions, model.emissions, model.start))
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        p = start[path[0]] * np.prod([moves[a, b] for a, b in itertools.pairwise(path)])
        total += p * np.prod([emitted[s, o] for s, o in zip(path, symbols, strict=True)])
    assert float(model.log_likelihood(jnp.asarray(symbols))) == pytest.approx(np.log(total), abs=1e-5)


def test_sampled_runs_pairs_and_chain():
    model = linear_chain(3)
    symbols = np.asarray(model.sample(jax.random.key(0), 400, 200)[0])
    for lag in (1, 5):
        assert lagged(pair_counts(symbols, 3, lag)) == pytest.approx(lagged(model.pairs(lag)), abs=0.01)
    runs = run_lengths(symbols, 0)
    lasts = [(runs >= n).mean() for n in range(1, 8)]
    assert np.abs(np.asarray(lasts) - model.survival(0, 7)).max() < 0.02
    chain = fit_chain(symbols, 3)
    assert np.allclose(chain.transitions, symbol_statistics(symbols, 3).bigrams, atol=1e-6)
    assert lagged(chain.pairs(5)) < 0.03 < 0.08 < lagged(model.pairs(5))  # a chain of first order forgets


def test_counts_are_the_official_ones():
    wanted = GIVEN["counted"]
    found = symbol_statistics(wanted["symbols"], 3)
    assert found.volatility == pytest.approx(wanted["volatility"])
    assert np.allclose(found.frequencies, wanted["frequencies"])
    assert np.allclose(found.bigrams, wanted["bigrams"])


def test_whole_runs_alone_are_counted():
    assert run_lengths([[0, 0, 1, 0, 0, 0, 1, 0], [1, 0, 1, 1, 1, 1, 1, 1]], 0).tolist() == [3, 1]


def test_what_is_refused():
    with pytest.raises(InputError, match="2 to 5 states are wanted"):
        linear_chain(6)
    with pytest.raises(InputError, match="2 to 5 states are wanted"):
        linear_chain(1)
    with pytest.raises(InputError, match="rows that are distributions"):
        CategoricalHMM([[0.5, 0.4], [0.5, 0.5]])
    with pytest.raises(InputError, match="rows that are distributions"):
        CategoricalHMM([[np.nan, 1.0], [0.5, 0.5]])
    with pytest.raises(InputError, match="longer than the lag"):
        pair_counts([[0, 1, 0]], 2, 3)
