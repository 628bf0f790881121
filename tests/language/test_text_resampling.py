"""Readings on texts drawn anew: paired, and as wide as readings of other texts are."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from broadsheet.errors import InputError
from broadsheet.language.geometry import alpha_req, rankme, spectrum
from broadsheet.language.text_resampling import log_interval, rank_and_decay, resampled


def texts(rng, count=300):
    return rng.standard_normal((count, 24)) * np.arange(1, 25) ** -0.7


def test_sides_are_read_on_the_same_texts():
    x = texts(np.random.default_rng(0))
    drawn = resampled([x, 3 * x, x[:, ::-1]], draws=5)
    assert drawn.shape == (5, 3)
    assert_allclose(drawn[:, 1:] / drawn[:, :1], 1, rtol=1e-9)
    assert len(set(drawn[:, 0])) == 5
    assert_allclose(resampled([x], draws=5)[:, 0], drawn[:, 0])
    both = resampled([x], rank_and_decay, draws=2)
    assert both.shape == (2, 1, 2)
    assert rank_and_decay(spectrum(x)) == (rankme(spectrum(x)), alpha_req(spectrum(x))[0])
    with pytest.raises(InputError, match="300, 299 texts"):
        resampled([x, x[1:]])


def test_the_interval_is_as_wide_as_other_texts_make_it():
    """The spread of one sample's draws, against that of 80 samples of other texts."""
    rng = np.random.default_rng(1)
    others = np.log([rankme(spectrum(texts(rng))) for _ in range(80)])
    low, high = log_interval(10.0, resampled([texts(rng)], draws=100))
    assert_allclose(np.log(high / low) / (2 * 1.96), others.std(), rtol=0.35)
    assert_allclose(low * high, 100)
