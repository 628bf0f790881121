"""Holding MLP neurons at values while a causal language model runs, and what that does to its words.

After arXiv 2501.02688: `up` holds what comes out of the up-projection, before it is multiplied with the gate, which can close
it; `hidden` holds the product, the neuron's activation that the down-projection reads. Values are in units of that
activation.
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
from broadsheet.language.anatomy import matrix, mlp
from broadsheet.language.hooks import Change, captured, hooked
from broadsheet.language.models import generate

SITES = ("up", "hidden")
Neuron = tuple[int, int]
"""(layer, neuron), counted from 0."""


@contextmanager
def clamp(
    model: Any, values: Mapping[Neuron, float], site: str = "up", positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Holds neurons at values, at all tokens of each forward pass within or at some positions of it.

    ```python
    with clamp(model, {(2, 17): 20.0}):
        model(input_ids=ids)
    ```

    In generation with a cache a pass has the tokens that are new.

    **Raises:** `InputError` for a neuron, site or position that does not exist, a value that is not finite, or a model
    without an MLP of separate maps.
    """
    held = [(layer, neuron, float(value), slice(None)) for (layer, neuron), value in values.items()]
    with hooked(model, _holding(model, held, site, positions), inputs=site == "hidden"):
        yield


@contextmanager
def clamp_rows(
    model: Any, rows: Sequence[tuple[int, int, float]], site: str = "up", positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Holds another neuron in each row of a batch: (layer, neuron, value) a row; as many clamps as rows in one pass.

    **Raises:** as `clamp` does.
    """
    held = [(layer, neuron, float(value), row) for row, (layer, neuron, value) in enumerate(rows)]
    with hooked(model, _holding(model, held, site, positions), inputs=site == "hidden"):
        yield


def _holding(
    model: Any, held: list[tuple[int, int, float, Any]], site: str, positions: Sequence[int] | None
) -> dict[torch.nn.Module, Change]:
    """What to do to the output of each map up, or to the input of each map down."""
    if site not in SITES:
        raise InputError(f"The site is {site!r}; up or hidden can be held.")
    by_layer: dict[int, list[tuple[int, float, Any]]] = {}
    for layer, neuron, value, row in held:
        check_neuron(model, (layer, neuron))
        if not math.isfinite(value):
            raise InputError(f"Neuron {neuron} of layer {layer} cannot be held at {value}.")
        by_layer.setdefault(layer, []).append((neuron, value, row))

    def changing(entries: list[tuple[int, float, Any]]) -> Change:
        def change(states: torch.Tensor) -> torch.Tensor:
            there = slice(None) if positions is None else _within(positions, states.shape[1])
            moved = states.clone()
            for neuron, value, row in entries:
                moved[row, there, neuron] = value
            return moved

        return change

    parts = {layer: mlp(model, layer) for layer in by_layer}
    return {(parts[k].up if site == "up" else parts[k].down): changing(entries) for k, entries in by_layer.items()}


def check_neuron(model: Any, neuron: Neuron) -> None:
    """Raises `InputError` for a neuron that a model does not have."""
    layer, index = neuron
    if not 0 <= index < (there := mlp(model, layer).neurons):
        raise InputError(f"Neuron {index} of layer {layer} does not exist; it has {there}, counted from 0.")


def _within(positions: Sequence[int], tokens: int) -> list[int]:
    if outside := [position for position in positions if not -tokens <= position < tokens]:
        raise InputError(f"Position {outside[0]} does not exist; the text has {tokens} tokens, counted from 0.")
    return list(positions)


def next_log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """log p of each token after rows of ids (rows, tokens): (rows, vocabulary), float32."""
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -1].float().log_softmax(-1)


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
    ids = _repeated(model, prompt, len(rows))
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
        return next_log_probabilities(model, _repeated(model, prompt, len(neurons)))


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
    plain = next_log_probabilities(model, _repeated(model, ids, 1))[0]
    if not 0 <= token < len(plain):
        raise InputError(f"The token {token} is outside the vocabulary; the unembedding has {len(plain)}, from 0 on.")
    layer, index = neuron
    found, pushes = clamp_effects(model, ids, [(layer, index, value) for value in values], site, positions)
    others = random_neurons(model, layer, controls, seed, without=[index])
    change, matched = [], []
    with clamp(model, hold or {}, site, positions):
        start = next_log_probabilities(model, _repeated(model, ids, 1))[0, token]
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


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The Kullback-Leibler divergence of log-probabilities (…, vocabulary) from others, nats (…)."""
    return (first.exp() * (first - second)).sum(-1)


def side_effects(
    model: Any,
    texts: Sequence[Sequence[int]],
    values: Mapping[Neuron, float],
    site: str = "up",
    positions: Sequence[int] | None = None,
) -> dict[str, float]:
    """What a clamp does to texts (token ids) that have nothing to do with it, a text at a time: `kl`, the mean divergence of
    the next token's distribution without it to that with it, nats; `perplexity` without it, and `clamped_perplexity`.

    **Raises:** `InputError` as `clamp` does, or where no text has two tokens.
    """
    kl, losses, clamped, count = 0.0, 0.0, 0.0, 0
    for text in texts:
        if len(text) < 2:
            continue
        ids = _repeated(model, text, 1)
        with torch.no_grad():
            before = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
            with clamp(model, values, site, positions):
                after = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        follow = ids[0, 1:, None]
        kl += float(divergence(before, after).sum())
        losses -= float(before.gather(1, follow).sum())
        clamped -= float(after.gather(1, follow).sum())
        count += len(follow)
    if not count:
        raise InputError("No text has two tokens, so that nothing follows.")
    return {
        "kl": kl / count,
        "perplexity": math.exp(losses / count),
        "clamped_perplexity": math.exp(min(clamped / count, 700.0)),
    }


def steered(
    model: Any,
    prompts: Sequence[Sequence[int]],
    values: Mapping[Neuron, float],
    *,
    tokens: int = 20,
    samples: int = 1,
    temperature: float = 0.0,
    site: str = "up",
    seed: int = 0,
) -> torch.Tensor:
    """What a model writes under a clamp after each prompt (token ids), greedy or at a temperature: (prompts, samples, tokens)."""
    made = []
    dice = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    with clamp(model, values, site):
        for prompt in prompts:
            rows = [list(prompt)] * (samples if temperature > 0 else 1)
            found = generate(model, rows, tokens, temperature=temperature, generator=dice)
            made.append(found.expand(samples, -1))
    return torch.stack(made)


def mentions(written: torch.Tensor, tokens: Sequence[int]) -> float:
    """The share of continuations (…, tokens) that have any of these tokens."""
    return float(torch.isin(written, torch.as_tensor(list(tokens), device=written.device)).any(-1).float().mean())


def prompt_ids(model: Any, words: Any, prompt: str | Sequence[int]) -> list[int]:
    """The ids of a prompt, which the model must have an embedding for.

    **Raises:** `InputError` for an empty one, or a token that is not the model's.
    """
    ids = words(prompt)["input_ids"] if isinstance(prompt, str) else [int(each) for each in prompt]
    there = model.get_input_embeddings().weight.shape[0]
    if not ids:
        raise InputError("The prompt has no token.")
    if max(ids) >= there:
        raise InputError(
            f"The prompt has the token {max(ids)}; the embedding of the {type(model).__name__} has {there}, from 0 on."
        )
    return ids


def _repeated(model: Any, prompt: Sequence[int], count: int) -> torch.Tensor:
    return torch.tensor([list(prompt)] * count, device=next(model.parameters()).device)


def _length(down: torch.nn.Module, neuron: int) -> torch.Tensor:
    """Of a neuron's column."""
    return matrix(down)[:, neuron].detach().float().norm()
