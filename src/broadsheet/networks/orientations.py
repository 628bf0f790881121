"""Neurons and stimuli on the ring of orientations: drives, connectivity, ensembles. Angles in radians, of period pi."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from broadsheet.errors import InputError
from broadsheet.networks.gain_control import GainNetwork


def grid(count: int) -> Float[np.ndarray, " count"]:
    """`count` orientations, evenly from 0 to pi."""
    if count < 2:
        raise InputError(f"{count} orientations; two or more are wanted.")
    return np.pi * np.arange(count) / count


def von_mises(difference: np.ndarray, concentration: float) -> np.ndarray:
    """A bump of height 1 and period pi: exp(k (cos 2d - 1))."""
    return np.exp(concentration * (np.cos(2 * difference) - 1))


def drives(neurons: int, stimuli: int | None = None, concentration: float = 2.0) -> Float[np.ndarray, "neurons stimuli"]:
    """Feed-forward tuning curves, a von Mises bump around each neuron's orientation."""
    return von_mises(grid(neurons)[:, None] - grid(stimuli or neurons), concentration)


def weights_between(
    orientations: Float[np.ndarray, " neurons"], strength: float, concentration: float = 2.0
) -> Float[np.ndarray, "neurons neurons"]:
    """Weights that fall off with the difference of orientations, a von Mises bump; each row sums to `strength`."""
    bump = von_mises(orientations[:, None] - orientations, concentration)
    return strength * bump / bump.sum(axis=1, keepdims=True)


def circulant_weights(neurons: int, strength: float, concentration: float = 2.0) -> Float[np.ndarray, "neurons neurons"]:
    """The same on an even grid: circulant, and symmetric to the last bit."""
    theta = grid(neurons)
    row = von_mises(theta, concentration)
    row = row + np.roll(row[::-1], 1)
    place = np.arange(neurons)
    return strength * (row / row.sum())[(place[:, None] - place) % neurons]


def ring_network(
    neurons: int = 24,
    stimuli: int | None = None,
    *,
    excitation: float = 0.85,
    inhibition: float = 0.0,
    drive_concentration: float = 2.0,
    excitation_concentration: float = 2.0,
    inhibition_concentration: float = 2.0,
    tau: float = 10.0,
) -> GainNetwork:
    """The gain network of an orientation column: von Mises drives, local excitation less inhibition, decoder I - W.

    **Raises:** `InputError` for an excitation past stability (its rows sum to `excitation - inhibition`).
    """
    weights = circulant_weights(neurons, excitation, excitation_concentration)
    weights = weights - circulant_weights(neurons, inhibition, inhibition_concentration)
    return GainNetwork(drives(neurons, stimuli, drive_concentration), weights, tau=tau)


def uniform(stimuli: int) -> Float[np.ndarray, " stimuli"]:
    """All stimuli alike."""
    return np.full(len(grid(stimuli)), 1 / stimuli)


def biased(stimuli: int, adapter: int, share: float = 0.35) -> Float[np.ndarray, " stimuli"]:
    """The adapter with a probability of `share` on top of a uniform rest."""
    if not 0 <= adapter < stimuli:
        raise InputError(f"Stimulus {adapter} is no adapter among {stimuli}; 0 to {stimuli - 1} are.")
    if not 0 <= share < 1:
        raise InputError(f"A share of {share:g}; the adapter comes with a probability from 0 to below 1.")
    p = (1 - share) * uniform(stimuli)
    p[adapter] += share
    return p


def image_orientations(image: np.ndarray, stimuli: int, scale: float = 2.0) -> Float[np.ndarray, " stimuli"]:
    """How often edges of each orientation come in a picture, weighed by their contrast.

    Derivatives of Gaussians of `scale` pixels, which steer to every orientation, stand for a bank of oriented filters.

    **Arguments:** `image`: (height, width) or (height, width, colours).

    **Raises:** `InputError` for a picture that is no array of this shape, is smaller than the filters, or has no edges.
    """
    from scipy.ndimage import gaussian_filter

    grey = np.asarray(image, float)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    if grey.ndim != 2 or min(grey.shape) < 8 * scale:
        raise InputError(f"The picture has the shape {np.shape(image)}; two axes of {8 * scale:g} pixels or more are wanted.")
    down, right = (gaussian_filter(grey, scale, order=order) for order in ((1, 0), (0, 1)))
    inside = (slice(round(4 * scale), -round(4 * scale)),) * 2
    down, right = down[inside], right[inside]
    contrast = np.hypot(down, right)
    if not contrast.sum() > 0:
        raise InputError("The picture has no edges, or holds NaN.")
    edge = (np.arctan2(down, right) + np.pi / 2) % np.pi  # an edge runs across its gradient
    nearest = np.round(edge / (np.pi / stimuli)).astype(int) % len(grid(stimuli))
    counted = np.bincount(nearest.ravel(), contrast.ravel(), minlength=stimuli)
    return counted / counted.sum()
