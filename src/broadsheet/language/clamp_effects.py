"""What holding MLP neurons does to a model's next word: one clamp a row, curves over the value, and the controls for both.

After arXiv 2501.02688. A neuron that is held moves the residual stream along its column of the down-projection; the control
of equal size is a random neuron that moves the stream as far along its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import MLP, matrix, mlp
from broadsheet.language.clamps import (
    Neuron,
    check_neuron,
    clamp,
    clamp_rows,
    divergence,
    next_log_probabilities,
    prompt_ids,
    repeated,
)
from broadsheet.language.hooks import Change, captured, hooked


def clamp_effects(
    model: Any,
    prompt: Sequence[int],
    rows: Sequence[tuple[int, int, float]],
    site: str = "up",
    positions: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each next token (rows, vocabulary), pushes (rows, tokens)) after a prompt under each clamp alone.

    A push is how far a clamp moves the residual stream at a token, along the neuron's column of the down-projection: signed, in
    units of the stream.
    """
    ids = repeated(model, prompt, len(rows))
    layers = sorted({layer for layer, _, _ in rows})
    downs = {layer: mlp(model, layer).down for layer in layers}
    with captured(model, downs.values(), inputs=True) as plain:
        next_log_probabilities(model, ids[:1])
    plain = dict(plain)
    with clamp_rows(model, rows, site, positions), captured(model, downs.values(), inputs=True) as held:
        found = next_log_probabilities(model, ids)
    moved = []
    for row, (layer, neuron, _) in enumerate(rows):
        down = downs[layer]
        moved.append((held[down][row, :, neuron] - plain[down][0, :, neuron]).float() * _length(down, neuron))
    return found, torch.stack(moved)


def push_effects(model: Any, prompt: Sequence[int], neurons: Sequence[Neuron], pushes: torch.Tensor) -> torch.Tensor:
    """log p of each next token (rows, vocabulary) where each row's neuron moves the residual stream as far as another did.

    The control that a clamp is compared with: a random neuron with the same size of change at every token. `pushes` (rows,
    tokens) are those of `clamp_effects`.
    """
    by_layer: dict[int, list[int]] = {}
    for row, (layer, _) in enumerate(neurons):
        by_layer.setdefault(layer, []).append(row)

    def pushing(rows: list[int], down: torch.nn.Module) -> Change:
        def change(states: torch.Tensor) -> torch.Tensor:
            moved = states.clone()
            for row in rows:
                neuron = neurons[row][1]
                moved[row, :, neuron] += (pushes[row] / _length(down, neuron)).to(states)
            return moved

        return change

    downs = {layer: mlp(model, layer).down for layer in by_layer}
    changes = {downs[layer]: pushing(rows, downs[layer]) for layer, rows in by_layer.items()}
    with hooked(model, changes, inputs=True):
        return next_log_probabilities(model, repeated(model, prompt, len(neurons)))


@dataclass(frozen=True)
class ClampCurve:
    """The next token's probability over the value at which a neuron is held.

    **Arguments:** `values` (values,); `p`, `rank` (values,): of the token, 0 the most probable; `kl` (values,): of the next
    token's distribution without the clamp to that with it, nats; `plain`: p without a clamp; `change`: of log p for random
    neurons of the layer held at the same value (controls, values); `matched`: the same for random neurons that move the
    residual stream as far.
    """

    neuron: Neuron
    token: int
    values: np.ndarray
    p: np.ndarray
    rank: np.ndarray
    kl: np.ndarray
    plain: float
    change: np.ndarray
    matched: np.ndarray

    @property
    def effect(self) -> np.ndarray:
        """Change of log p by the clamp (values,)."""
        return np.log(self.p) - math.log(self.plain)

    @property
    def monotone(self) -> float:
        """Rank correlation of p with the value: 1 where it only rises, -1 where it only falls, 0 where nothing moves."""
        from scipy.stats import spearmanr

        return float(spearmanr(self.values, self.p).statistic) if np.ptp(self.p) > 0 and len(self.p) > 1 else 0.0


def clamp_curve(
    model: Any,
    words: Any,
    prompt: str | Sequence[int],
    token: int,
    neuron: Neuron,
    values: Sequence[float],
    *,
    site: str = "up",
    positions: Sequence[int] | None = None,
    controls: int = 20,
    seed: int = 0,
    hold: Mapping[Neuron, float] | None = None,
) -> ClampCurve:
    """The probability of a token after a prompt, with a neuron held at each of some values, beside random neurons of its layer.

    **Arguments:** `words`: a tokenizer, or None where the prompt is token ids; `controls`: random neurons; `hold`: neurons
    that stay at a value throughout, for the controls.

    **Raises:** `InputError` as `clamp` does, for no values, or a token outside the vocabulary.
    """
    ids = prompt_ids(model, words, prompt)
    check_neuron(model, neuron)
    if not len(values):
        raise InputError("No value to hold the neuron at is given.")
    plain = next_log_probabilities(model, repeated(model, ids, 1))[0]
    if not 0 <= token < len(plain):
        raise InputError(f"The token {token} is outside the vocabulary; the unembedding has {len(plain)}, from 0 on.")
    layer, index = neuron
    found, pushes = clamp_effects(model, ids, [(layer, index, value) for value in values], site, positions)
    others = random_neurons(model, layer, controls, seed, without=[index])
    change, matched = [], []
    with clamp(model, hold or {}, site, positions):
        start = next_log_probabilities(model, repeated(model, ids, 1))[0, token]
        for other in others:
            held = clamp_effects(model, ids, [(layer, other, value) for value in values], site, positions)[0]
            pushed = push_effects(model, ids, [(layer, other)] * len(values), pushes)
            change.append((held[:, token] - start).cpu().numpy())
            matched.append((pushed[:, token] - start).cpu().numpy())
    return ClampCurve(
        neuron,
        token,
        values=np.asarray(values, dtype=float),
        p=found[:, token].exp().cpu().numpy(),
        rank=(found > found[:, token, None]).sum(1).cpu().numpy(),
        kl=divergence(plain[None], found).cpu().numpy(),
        plain=float(plain[token].exp()),
        change=np.reshape(change, (len(others), len(values))),
        matched=np.reshape(matched, (len(others), len(values))),
    )


def random_neurons(model: Any, layer: int, count: int, seed: int, without: Sequence[int] = ()) -> list[int]:
    """So many neurons of a layer by chance, or all where it has fewer."""
    there = np.setdiff1d(np.arange(mlp(model, layer).neurons), np.asarray(without, dtype=int))
    return np.random.default_rng(seed).choice(there, min(count, len(there)), replace=False).tolist()


def concept_changes(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    neurons: Sequence[Neuron],
    value: float,
    site: str = "up",
) -> tuple[np.ndarray, list[torch.Tensor]]:
    """(change of log p of a concept's tokens by each neuron, mean over prompts (neurons,); pushes (neurons, tokens) by prompt).

    Each neuron is held at `value` and at its opposite; the better one, over all prompts, counts.
    """
    rows = [(layer, neuron, sign * value) for layer, neuron in neurons for sign in (1, -1)]
    changes, pushes = [], []
    for prompt in prompts:
        found, pushed = clamp_effects(model, prompt, rows, site)
        changes.append(_concept(found, tokens) - _plain(model, prompt, tokens))
        pushes.append(pushed)
    best = torch.stack(changes).mean(0).reshape(-1, 2).max(1)
    chosen = 2 * torch.arange(len(neurons)) + best.indices.cpu()
    return best.values.cpu().numpy(), [pushed[chosen] for pushed in pushes]


def pushed_changes(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    neurons: Sequence[Neuron],
    pushes: Sequence[torch.Tensor],
) -> np.ndarray:
    """The same by neurons that move the residual stream as far as others did, or as far the other way: (neurons,)."""
    changes = []
    for prompt, pushed in zip(prompts, pushes, strict=True):
        found = push_effects(model, prompt, [*neurons, *neurons], torch.cat([pushed, -pushed]))
        changes.append(_concept(found, tokens) - _plain(model, prompt, tokens))
    return torch.stack(changes).mean(0).reshape(2, -1).max(0).values.cpu().numpy()


def _plain(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    return _concept(next_log_probabilities(model, repeated(model, prompt, 1)), tokens)


def _concept(found: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """log p of any of a concept's tokens (rows,)."""
    return found[:, list(tokens)].logsumexp(-1)


@contextmanager
def planted(model: Any, neuron: Neuron, *, up: Any = None, gate: Any = None, down: Any = None) -> Iterator[MLP]:
    """A model's MLP with a neuron whose row of the up-projection, row of the gate and column of the down-projection are others
    where they are given; what was there comes back.

    **Raises:** `InputError` for a neuron that does not exist, or a gate for an MLP without one.
    """
    check_neuron(model, neuron)
    layer, index = neuron
    found = mlp(model, layer)
    if gate is not None and found.gate is None:
        raise InputError(f"The MLP of layer {layer} has no gate.")
    places = [(matrix(found.up)[index], up), (matrix(found.down)[:, index], down)]
    places += [] if found.gate is None else [(matrix(found.gate)[index], gate)]
    before = [row.detach().clone() for row, _ in places]
    with torch.no_grad():
        for row, vector in places:
            if vector is not None:
                row.copy_(vector)
    try:
        yield found
    finally:
        with torch.no_grad():
            for (row, _), old in zip(places, before, strict=True):
                row.copy_(old)


def _length(down: torch.nn.Module, neuron: int) -> torch.Tensor:
    """Of a neuron's column."""
    return matrix(down)[:, neuron].detach().float().norm()
