"""How much a reading of representations depends on the texts it was taken on: readings on texts drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from broadsheet.errors import InputError
from broadsheet.language.geometry import Features, Spectrum, alpha_req, rankme, spectrum


def rank_and_decay(values: Spectrum) -> tuple[float, float]:
    """RankMe and alpha of a spectrum."""
    return rankme(values), alpha_req(values)[0]


def resampled(
    sides: Sequence[Features], read: Callable[[Spectrum], Any] = rankme, *, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """Readings (draws, sides, …) on texts drawn with replacement, the same texts for each side.

    A side is a checkpoint's features (texts, d); a ratio or a difference of sides is then paired, text by text. RankMe of
    drawn texts lies a little below that of the texts themselves, of which a third is missing: use the spread of the draws
    about the reading, `log_interval`, not their quantiles.

    **Raises:** `InputError` for sides with different numbers of texts.
    """
    if len({len(side) for side in sides}) > 1:
        raise InputError(f"The sides have {', '.join(str(len(side)) for side in sides)} texts; the same texts are wanted.")
    rng = np.random.default_rng(seed)
    chosen = (rng.integers(0, len(sides[0]), len(sides[0])) for _ in range(draws))
    return np.array([[read(spectrum(side[drawn])) for side in sides] for drawn in chosen])


def log_interval(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """95 % interval of a positive reading: `value` times or over exp(1.96 deviations of ln `drawn`)."""
    spread = float(np.exp(1.96 * np.std(np.log(drawn), ddof=1)))
    return value / spread, value * spread
