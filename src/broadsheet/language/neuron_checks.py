"""Neurons, names and clamps whose answers are known: planted ones, the whole product, and closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from broadsheet.language.anatomy import blocks, matrix, mlp, unembedding
from broadsheet.language.clamp_effects import clamp_curve, planted
from broadsheet.language.clamps import clamp, next_log_probabilities
from broadsheet.language.feature_neurons import decode_neurons, directions_of
from broadsheet.language.hooks import captured
from broadsheet.language.neuron_weights import neuron_weights
from broadsheet.language.token_directions import NORMS, TokenDirections


def found_plants(
    model: Any, rng: np.random.Generator, *, plants: int, lengths: Sequence[float], words: int, reserved: int = 0
) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Shares of plants found by each decode, and p of the planted token by the length of the row (norms, lengths, plants).

    A neuron at random gets the direction of a token as its row of the up-projection; its own row and that of its gate are the
    controls. The same is done with `words` directions at right angles to each other.

    **Arguments:** `reserved`: tokens at the vocabulary's beginning that are not planted.
    """
    width = model.config.hidden_size
    square = torch.linalg.qr(torch.from_numpy(rng.standard_normal((width, width))).float())[0][:words]
    right = TokenDirections(square, None)
    directions = {norm: directions_of(model, norm) for norm in NORMS}
    hits: dict[tuple[str, str], list[bool]] = {}
    p: dict[str, list[list[float]]] = {"system": [], "gate": [], "unplanted": []}
    shares = np.empty((len(NORMS), len(lengths), plants))
    for k in range(plants):
        layer = int(rng.integers(len(blocks(model))))
        index = int(rng.integers(mlp(model, layer).neurons))
        token, word = int(rng.integers(reserved, matrix(unembedding(model)).shape[0])), int(rng.integers(words))
        unit = normalize(directions["raw"].directions([token]), dim=1)
        own, gate = (neuron_weights(model).vectors(site, layer, index, index + 1) for site in ("up", "gate"))
        with planted(model, (layer, index), up=unit[0]):
            planted_row = neuron_weights(model).vectors("up", layer, index, index + 1).clone()
        for arm, row, clean in (("system", planted_row, square[word][None]), ("gate", gate, gate), ("unplanted", own, own)):
            hits.setdefault((arm, "orthonormal"), []).append(int(right.scores(clean).argmax()) == word)
            p[arm].append([float(right.scores(a * clean).softmax(1)[0, word]) for a in lengths])
            for norm in NORMS:
                hits.setdefault((arm, norm), []).append(int(directions[norm].scores(row).argmax()) == token)
        for n, norm in enumerate(NORMS):
            shares[n, :, k] = [directions[norm].scores(a * unit).softmax(1)[0, token] for a in lengths]
    return {
        arm: {f"found_{name}": float(np.mean(hits[arm, name])) for name in ("orthonormal", *NORMS)}
        | {"smallest_rise": float(np.diff(p[arm], axis=1).min())}
        for arm in p
    }, shares


def blocked_names(model: Any, rng: np.random.Generator, tokens: int) -> dict[str, dict[str, float]]:
    """Names and scores found in blocks against a whole product in float64: of a model, and of a vocabulary of `tokens`."""
    wide = torch.from_numpy(rng.standard_normal((tokens, 64))).float()
    rows = torch.from_numpy(rng.standard_normal((100, 64))).float()
    made = decode_neurons(model, topk=10, block=50)
    known = directions_of(model).directions().double()
    every = torch.cat([matrix(mlp(model, layer).up).detach() for layer in range(len(blocks(model)))])
    best, ids = TokenDirections(wide, None, coarse=True).top(rows, 10)[0]
    rough = (rows.bfloat16() @ wide.bfloat16().T).topk(10, dim=1)
    pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor, Any, Any]]] = {
        "system": [(every, known, made.ids.reshape(-1, 10), made.scores.reshape(-1, 10)), (rows, wide.double(), ids, best)],
        "bfloat16": [(rows, wide.double(), rough.indices, rough.values)],
    }
    return {
        arm: {
            "wrong_names": float(sum(_against_whole(*each)[0] for each in parts)),
            "value_error": max(_against_whole(*each)[1] for each in parts),
        }
        for arm, parts in pairs.items()
    }


def _against_whole(rows: torch.Tensor, directions: torch.Tensor, ids: Any, scores: Any) -> tuple[int, float]:
    """(names of which the exact score is not that of their place, largest error of a score)."""
    whole = rows.double() @ directions.T
    ids, scores = torch.as_tensor(ids).long(), torch.as_tensor(scores).double()
    best, mine = whole.topk(ids.shape[1], dim=1).values, whole.gather(1, ids)
    return int(((best - mine).abs() > 1e-6).sum()), float((scores - best).abs().max())


def clamp_identity(model: Any, ids: torch.Tensor | np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """How far the last block's output, read by the unembedding, is from its closed form under clamps of its MLP."""
    last, errors = len(blocks(model)) - 1, {"system": 0.0, "ungated": 0.0, "row": 0.0}
    model = model.double()
    found = mlp(model, last)
    words = matrix(unembedding(model)).detach()
    ids = torch.as_tensor(ids)
    for index in rng.choice(found.neurons, 5, replace=False):
        value = float(rng.uniform(-20, 20))
        places: list[Any] = [last, found.up]
        with torch.no_grad(), captured(model, places) as plain, captured(model, [found.down], inputs=True) as hidden:
            model(input_ids=ids)
        with torch.no_grad(), captured(model, [last]) as held, clamp(model, {(last, int(index)): value}):
            model(input_ids=ids)
        moved = (held[last] - plain[last]) @ words.T
        up = plain[found.up][..., index]
        gate = hidden[found.down][..., index] / up
        column, row = matrix(found.down)[:, index].detach(), matrix(found.up)[index].detach()
        for arm, push, along in (("system", gate, column), ("ungated", torch.ones_like(gate), column), ("row", gate, row)):
            wanted = (push * (value - up))[..., None] * (words @ along)
            errors[arm] = max(errors[arm], float((moved - wanted).abs().max()))
    model.float()
    return {arm: {"identity_error": error} for arm, error in errors.items()}


def planted_curves(
    model: Any,
    layer: int,
    token: int,
    texts: Sequence[Sequence[int]],
    seed: int,
    *,
    values: Sequence[float],
    column: float,
    gate: float,
    controls: int,
) -> dict[str, Any]:
    """Arm -> curves of a planted neuron, with its gate open and with it slightly below 0.

    **Arguments:** `column`: length of the planted column of the down-projection; `gate`: what the gate's row gives at the last
    token of the texts, before its activation; `controls`: random neurons beside it.
    """
    neuron, found = (layer, 0), mlp(model, layer)
    states = []
    for text in texts:
        with captured(model, [found.up], inputs=True) as seen:
            next_log_probabilities(model, torch.tensor([list(text)]))
        states.append(seen[found.up][0, -1])
    mean = torch.stack(states).mean(0)
    unit = normalize(directions_of(model).directions([token]), dim=1)[0]
    other = torch.randn(unit.shape, generator=torch.Generator().manual_seed(seed))
    along = column * unit
    planting = {
        "system": (unit, along),
        "key-value": (normalize(other, dim=0), along),
        "own-column": (unit, None),
    }
    curves: dict[str, Any] = {arm: [] for arm in planting}
    for opened in (gate, -0.5):
        for arm, (row, written) in planting.items():
            with planted(model, neuron, up=row, gate=opened * mean / mean.square().sum(), down=written):
                beside = controls if arm == "system" else 0
                curve = clamp_curve(
                    model, None, texts[0], token, neuron, values, controls=beside, seed=seed, hold={neuron: 0.0}
                )
                curves[arm].append(curve)
    at_zero = [curve.p[np.argmin(np.abs(values))] for curve in curves["system"]]
    curves["pushed"] = [replace(curve, p=start * np.exp(np.median(curve.matched, axis=0)))
                        for start, curve in zip(at_zero, curves["system"], strict=True)]  # fmt: skip
    return curves


def scrambled(like: TokenDirections, rng: np.random.Generator) -> TokenDirections:
    """Random directions, as many and as long as others."""
    words = like.directions()
    noise = torch.from_numpy(rng.standard_normal(words.shape, dtype=np.float32))
    return TokenDirections(normalize(noise, dim=1) * torch.linalg.vector_norm(words, dim=1, keepdim=True), None)


def among(like: TokenDirections, tokens: np.ndarray) -> TokenDirections:
    """The directions of some tokens alone."""
    return TokenDirections(like.directions(torch.as_tensor(tokens.copy())), None)
