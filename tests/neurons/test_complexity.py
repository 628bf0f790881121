"""Lempel-Ziv complexity against a search for substrings, known strings and entropies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.neurons.codes import markov_trains
from broadsheet.neurons.complexity import components, entropy, lz76, lzc, markov_entropy


def by_substrings(bits):
    text, begin, count = "".join(str(int(bit)) for bit in bits), 0, 0
    while begin < len(text):
        length = 1
        while begin + length <= len(text) and text[begin : begin + length] in text[: begin + length - 1]:
            length += 1
        begin, count = begin + length, count + 1
    return count


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=120))
def test_components_are_the_shortest_new_pieces(bits):
    assert lz76(bits) == by_substrings(bits)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 200])
def test_many_trains_at_once(size):
    trains = np.random.default_rng(size).random((40, size)) < np.linspace(0, 1, 40)[:, None]
    np.testing.assert_array_equal(components(trains), [by_substrings(train) for train in trains])
    assert components(trains.reshape(4, 10, size)).shape == (4, 10)


def test_published_strings():
    """Kaspar and Schuster's example, and two regular strings."""
    assert lz76([int(c) for c in "0001101001000101"]) == 6
    assert (lz76([0] * 64), lz76([0, 1] * 32)) == (2, 3)


def test_entropy_rates():
    np.testing.assert_allclose(entropy([0.0, 0.1, 0.5, 1.0]), [0, 0.4689956, 1, 0], atol=1e-6)
    assert abs(markov_entropy(0.1, 0.0) - entropy(0.1)) < 1e-12
    long = np.asarray(markov_trains(jnp.full(8, 0.1), 0.5, 8000, jax.random.key(0))).T
    assert abs(lzc(long).mean() / markov_entropy(0.1, 0.5) - 1) < 0.1
    np.testing.assert_allclose(lzc(long, normalise=False) * np.log2(8000) / 8000, lzc(long))


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, [0.5, -1e-9]])
def test_probabilities_lie_between_0_and_1(bad):
    with pytest.raises(InputError, match="between 0 and 1"):
        entropy(bad)


@pytest.mark.parametrize("bad", [[0.5, 1], [-1, 1], [], 3, [[0, 1]], [np.nan, 0]])
def test_trains_hold_zeros_and_ones(bad):
    with pytest.raises(InputError):
        lz76(bad)
