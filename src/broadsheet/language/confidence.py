"""How sure a model is of its next token, and the neurons that were thought to set that: arXiv 2504.02904 and its official code.

An entropy neuron of the last MLP has a long output vector that moves all logits alike: it acts through the final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, final_norm, matrix, mlp, unembedding
from broadsheet.language.hooks import captured, hooked
from broadsheet.language.models import check_tokens
from broadsheet.language.states import Rows, batches, run

BLOCK = 4096
"""Neurons whose cosines with all words are held at once."""


@dataclass(frozen=True)
class EntropyNeurons:
    """Of the neurons of a last MLP the length of the output vector and the variance, over words, of its cosine with theirs.

    `candidates`: those with the smallest variance among the longest.
    """

    norms: Float[np.ndarray, " neurons"]
    logit_var: Float[np.ndarray, " neurons"]
    candidates: np.ndarray

    @property
    def ratio(self) -> Float[np.ndarray, " neurons"]:
        """Length over the logarithm of the variance, as the official code ranks them in print."""
        return self.norms / np.log(np.maximum(self.logit_var, 1e-10))


def entropy_neurons(model: Any, top: float = 0.25, n: int = 10, *, processed: bool = True) -> EntropyNeurons:
    """The entropy neurons of a model's last MLP.

    **Arguments:** `top`: share of the neurons that are long enough; `n`: candidates among them; `processed`: with the weights
    of the final norm in the unembedding and the mean over words taken off it, and off the output vectors what a LayerNorm takes
    off anyhow: as TransformerLens makes a model, in which the official code looks. `False` takes the matrices as they are.

    **Raises:** `InputError` for a share or number out of range, or where the last block has no MLP with separate maps.
    """
    if not 0 < top <= 1 or n < 1:
        raise InputError(f"top is {top:g} and n {n}; a share within (0, 1] and at least 1 neuron are wanted.")
    with torch.no_grad():
        norms, variance = _norms_and_variances(model, processed)
    return EntropyNeurons(norms, variance, select(norms, variance, top, n))


def select(norms: np.ndarray, statistic: np.ndarray, top: float = 0.25, n: int = 10) -> np.ndarray:
    """The `n` neurons with the smallest statistic among those whose norm is above the quantile `1 - top`, by it."""
    long = np.flatnonzero(norms > np.quantile(norms, 1 - top))
    return long[np.argsort(statistic[long], kind="stable")[:n]]


def iou(one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray) -> float:
    """Size of the intersection of two sets over that of their union."""
    a, b = set(map(int, one)), set(map(int, other))
    return len(a & b) / len(a | b) if a | b else 0.0


def last_vectors(model: Any) -> Float[np.ndarray, "neurons width"]:
    """The output vectors of the neurons of the last MLP."""
    return _last_vectors(model).detach().cpu().numpy()


def _last_vectors(model: Any) -> torch.Tensor:
    return matrix(mlp(model, len(blocks(model)) - 1).down).T.float()


def _norms_and_variances(model: Any, processed: bool) -> tuple[np.ndarray, np.ndarray]:
    vectors = _last_vectors(model)
    words = matrix(unembedding(model)).float()  # (words, width)
    if processed:
        gain, centres = _norm_as(final_norm(model), words)
        words = words * gain
        if centres:
            vectors, words = (part - part.mean(1, keepdim=True) for part in (vectors, words))
        words = words - words.mean(0)
    words = words / words.norm(dim=1, keepdim=True)
    norms = vectors.norm(dim=1)
    variances = [
        ((part / norm[:, None]) @ words.T).var(dim=1)
        for part, norm in zip(vectors.split(BLOCK), norms.split(BLOCK), strict=True)
    ]
    return norms.cpu().numpy(), torch.cat(variances).cpu().numpy()


def _norm_as(norm: torch.nn.Module, words: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """What a norm multiplies each dimension by, up to a common factor, and whether it takes the mean off: by what it does."""
    like = next(norm.parameters())
    signs = torch.ones(words.shape[1], device=like.device, dtype=like.dtype)
    zero, even = norm(torch.zeros_like(signs)), norm(signs)
    signs[1::2] = -1
    centres = torch.allclose(zero, even, atol=1e-3)
    return ((norm(signs) - zero) * signs).float().to(words.device), centres


@dataclass(frozen=True)
class Confidence:
    """Of each text the mean over its tokens of the entropy of the next token's distribution (nats) and of the largest
    probability, and over all tokens the accuracy and the expected calibration error."""

    entropy: Float[np.ndarray, " texts"]
    largest: Float[np.ndarray, " texts"]
    accuracy: float
    ece: float

    def summary(self) -> dict[str, float]:
        return {
            "entropy": float(self.entropy.mean()), "max_probability": float(self.largest.mean()), "accuracy": self.accuracy,
            "ece": self.ece,
        }  # fmt: skip


def read_confidence(model: Any, rows: Rows, *, bins: int = 15, batch: int = 16) -> Confidence:
    """How sure a model is of the tokens of texts, and how often it is right; no more than a batch's logits are held.

    **Raises:** `InputError` for a text of one token, tokens beyond the embedding, or numbers that are not finite.
    """
    check_tokens(model, rows)
    if min(map(len, rows)) < 2:
        raise InputError("A text of one token has no next token to be sure of.")
    entropy, largest = np.empty(len(rows)), np.empty(len(rows))
    counts = np.zeros((3, bins))  # tokens, right ones, sum of the largest probabilities
    for chosen, ids in batches(rows, batch):
        log_law = torch.log_softmax(run(model, ids)[:, :-1], -1)
        top, guess = log_law.max(-1)
        p, right = top.exp().cpu().numpy(), (guess.cpu() == ids[:, 1:]).numpy()
        entropy[chosen] = -(log_law.exp() * log_law).sum(-1).mean(1).cpu().numpy()
        largest[chosen] = p.mean(1)
        where = np.minimum((p * bins).astype(int), bins - 1).ravel()
        for k, weight in enumerate((None, right.ravel(), p.ravel())):
            counts[k] += np.bincount(where, weight, bins)
    tokens = counts[0].sum()
    return Confidence(
        entropy, largest, float(counts[1].sum() / tokens), float(np.abs(counts[1] - counts[2]).sum() / tokens)
    )  # fmt: skip


def mean_activations(model: Any, rows: Rows, *, batch: int = 16) -> Float[np.ndarray, " neurons"]:
    """The mean activation of each neuron of the last MLP over all tokens of texts."""
    layer = len(blocks(model)) - 1
    down, total, tokens = mlp(model, layer).down, None, 0
    for _, ids in batches(rows, batch):
        with captured(model, [down], inputs=True) as found:
            run(model, ids)
        here = found[down].detach().double().sum((0, 1))
        total, tokens = here if total is None else total + here, tokens + ids.numel()
    if total is None:
        raise InputError("There are no texts to take the mean activation of.")
    return (total / tokens).cpu().numpy()


@contextmanager
def mean_ablated(model: Any, neurons: Sequence[int] | np.ndarray, means: Float[np.ndarray, " neurons"]) -> Iterator[None]:
    """Holds neurons of the last MLP at their mean activations, in every forward pass within."""
    down = mlp(model, len(blocks(model)) - 1).down
    chosen = torch.as_tensor(np.asarray(neurons, int))

    def hold(states: torch.Tensor) -> torch.Tensor:
        held = states.clone()
        held[..., chosen.to(states.device)] = torch.as_tensor(means[chosen.numpy()]).to(states)
        return held

    with hooked(model, {down: hold}, inputs=True):
        yield
