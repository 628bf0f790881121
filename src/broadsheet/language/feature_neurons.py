"""Names for MLP neurons, after "Decoding specialised feature neurons in LLMs with the final projection layer", arXiv
2501.02688.

A neuron's vector in the residual stream, its row of the up-projection, is put through the unembedding; the tokens whose
directions it points to most are its names. The rows of the gate and the columns of the down-projection are decoded in the
same way: a row says what a neuron reads, a column what it writes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError
from broadsheet.language.neuron_weights import NeuronWeights, neuron_weights
from broadsheet.language.token_directions import TokenDirections

PARTS = ("ids", "scores", "mean", "std", "low_ids", "low_scores")


@dataclass(frozen=True)
class Named:
    """A neuron and what it is named for.

    **Arguments:** `token`: the best of those looked for; `score`: of the neuron's vector with it; `z`: the same in standard
    deviations of the neuron's scores from their mean, below 0 where the vector points away from the token.
    """

    layer: int
    neuron: int
    token: int
    score: float
    z: float


@dataclass(frozen=True)
class NeuronMap:
    """The names of all neurons of a model.

    **Arguments:** `ids`, `scores`: the tokens that each vector points to most and their scores (layers, neurons, k), best
    first; `low_ids`, `low_scores`: the same for the opposite vector, lowest score first; `mean`, `std`: of each neuron's
    scores over all tokens (layers, neurons); `site`, `norm`, `folded`: how it was made; `tokens`: size of the vocabulary.
    """

    ids: np.ndarray
    scores: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low_ids: np.ndarray
    low_scores: np.ndarray
    site: str
    norm: str
    folded: bool
    tokens: int

    @property
    def z(self) -> np.ndarray:
        """Scores in standard deviations of a neuron's scores from their mean (layers, neurons, k)."""
        return _standard(self.scores, self.mean[..., None], self.std[..., None])

    @property
    def low_z(self) -> np.ndarray:
        """Those of the lowest scores, below 0 (layers, neurons, k)."""
        return _standard(self.low_scores, self.mean[..., None], self.std[..., None])

    @property
    def zmax(self) -> np.ndarray:
        """How far the first name stands out (layers, neurons)."""
        return self.z[..., 0]

    def find(self, tokens: int | Sequence[int], k: int = 10) -> list[Named]:
        """The neurons that have any of these tokens among their first names, of either sign, furthest out first.

        Variants of a word (see `broadsheet.language.word_variants`) are looked for together. `find_neurons` looks through all
        scores, not the first few.

        **Raises:** `InputError` for a token outside the vocabulary, or none.
        """
        wanted = _checked(tokens, self.tokens)
        found = []
        for ids, scores, z in ((self.ids, self.scores, self.z), (self.low_ids, self.low_scores, self.low_z)):
            where = np.isin(ids, wanted)
            first = where.argmax(-1)  # names are in order
            for layer, neuron in np.argwhere(where.any(-1)):
                at = (layer, neuron, first[layer, neuron])
                found.append(Named(int(layer), int(neuron), int(ids[at]), float(scores[at]), float(z[at])))
        return sorted(found, key=lambda named: -abs(named.z))[:k]

    def save(self, file: str | Path) -> None:
        """Writes it as `.npz`."""
        about = {"site": self.site, "norm": self.norm, "folded": self.folded, "tokens": self.tokens}
        with writing(Path(file)) as stream:
            np.savez(stream, about=np.array(json.dumps(about)), **{name: getattr(self, name) for name in PARTS})

    @classmethod
    def load(cls, file: str | Path) -> NeuronMap:
        """Reads what `save` wrote.

        **Raises:** `DataError` for a file that is no such map.
        """
        try:
            with np.load(file, allow_pickle=False) as stored:
                found = {name: stored[name] for name in PARTS}
                about = json.loads(str(stored["about"]))
            made = cls(**found, **{name: about[name] for name in ("site", "norm", "folded", "tokens")})
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{file} holds no map of neurons: {error}") from None
        shape = made.ids.shape
        if len(shape) != 3 or any(getattr(made, name).shape != shape for name in ("scores", "low_ids", "low_scores")):
            raise DataError(f"{file} holds no map of neurons: its parts differ in shape.")
        return made


def decode_neurons(
    source: Any,
    site: str = "up",
    norm: str = "raw",
    topk: int = 10,
    block: int = 512,
    *,
    fold_layer_norm: bool = False,
    coarse: bool | None = None,
    directions: TokenDirections | None = None,
    parts: Path | None = None,
    report: Callable[[float, str], None] = lambda share, live: None,
) -> NeuronMap:
    """Names all MLP neurons of a model by the tokens that their vectors point to, and by those they point away from.

    Never more than `block` neurons' scores are there at a time; from a folder, weights are read a block at a time too. The
    tokens and scores are those of the whole product in float32, whether or not it was made in bfloat16 first (see
    `TokenDirections`).

    **Arguments:** `source`: a causal language model, or a folder with one in safetensors, which is not loaded; `site`: `up`,
    `gate` or `down`; `norm`: `raw`, `final_norm` or `cosine`; `fold_layer_norm`: whether rows are first multiplied with the
    gain of the norm through which the MLP reads the residual stream; `coarse`: see `TokenDirections`; `directions`: what to
    compare with instead of the model's tokens; `parts`: a folder where each layer is kept when it is done, and found when the
    work begins anew; `report`: is told the share that is done.

    **Raises:** `InputError` where the model lacks such a part, the layers differ in size or an option is unknown, `DataError`
    for weights that are not finite.
    """
    weights = neuron_weights(source)
    directions = directions or directions_of(weights, norm, coarse=coarse)
    counts = {weights.count(layer) for layer in range(weights.layers)}
    if len(counts) > 1:
        raise InputError(f"The layers differ in their number of neurons: {', '.join(map(str, sorted(counts)))}.")
    if not 1 <= topk <= directions.tokens:
        raise InputError(f"topk is {topk}; from 1 to the {directions.tokens} tokens of the vocabulary are there.")
    if block < 1:
        raise InputError(f"block is {block}; at least one neuron is decoded at a time.")
    start = f"{site}-{norm}-{topk}-{int(fold_layer_norm)}"
    layers = []
    for layer in range(weights.layers):
        make = partial(_decode_layer, weights, directions, site, layer, topk, block, fold_layer_norm)
        layers.append(_kept(parts and parts / f"{start}-{layer}.npz", PARTS, make))
        report((layer + 1) / weights.layers, f"layer {layer + 1} of {weights.layers}")
    stacked = {name: np.stack([made[name] for made in layers]) for name in PARTS}
    return NeuronMap(**stacked, site=site, norm=directions.norm, folded=fold_layer_norm, tokens=directions.tokens)


def directions_of(source: Any, norm: str = "raw", *, coarse: bool | None = False) -> TokenDirections:
    """The directions of a model's tokens."""
    weights = neuron_weights(source)
    return TokenDirections(weights.unembedding(), weights.final_norm(), norm, coarse=coarse)


def _decode_layer(
    weights: NeuronWeights, directions: TokenDirections, site: str, layer: int, topk: int, block: int, folded: bool
) -> dict[str, np.ndarray]:
    """The parts of a map for one layer."""
    made: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    fold = _folding(weights, site, layer) if folded else None
    for start in range(0, weights.count(layer), block):
        vectors = weights.vectors(site, layer, start, start + block)
        readers = directions.readers(vectors if fold is None else fold(vectors))
        (scores, ids), (low_scores, low_ids) = directions.top(readers, topk, (1, -1))
        found = (ids.int(), scores, *directions.moments(readers), low_ids.int(), low_scores)
        for name, values in zip(PARTS, found, strict=True):
            made[name].append(values.cpu().numpy())
    return {name: np.concatenate(values) for name, values in made.items()}


def _folding(weights: NeuronWeights, site: str, layer: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """From a row to the direction of the residual stream that it reads: the gain of the norm before it, and for a norm that
    centres, no part along its mean. None where there is no norm, or nothing is read."""
    norm = None if site == "down" else weights.input_norm(layer)
    if norm is None:
        return None
    width = weights.vectors(site, layer, 0, 1).shape[1]
    signs = torch.ones(width)
    signs[1::2] = -1  # mean 0, square 1: what a norm leaves as it is, but for its gain
    with torch.no_grad():
        nothing = norm(torch.zeros(1, width))[0]
        gain = (norm(signs[None])[0] - nothing) * signs
        centres = width > 1 and float((norm(torch.ones(1, width))[0] - nothing).abs().max()) < 1e-3 * float(gain.abs().max())

    def fold(vectors: torch.Tensor) -> torch.Tensor:
        read = vectors * gain.to(vectors.device)
        return read - read.mean(1, keepdim=True) if centres else read

    return fold


def token_z(
    source: Any,
    tokens: int | Sequence[int],
    site: str = "up",
    norm: str = "raw",
    block: int = 4096,
    *,
    fold_layer_norm: bool = False,
    parts: Path | None = None,
    report: Callable[[float, str], None] = lambda share, live: None,
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, z) of every neuron with some tokens, (layers, neurons, tokens) each: one pass over the weights, no map.

    **Arguments:** as of `decode_neurons`.

    **Raises:** as `decode_neurons` does, and `InputError` for a token outside the vocabulary.
    """
    weights = neuron_weights(source)
    wanted = _checked(tokens, weights.tokens)
    directions = directions_of(weights, norm)
    chosen = directions.directions(torch.as_tensor(wanted)).T
    scores, z = [], []
    for layer in range(weights.layers):
        make = partial(_token_layer, weights, directions, chosen, site, layer, block, fold_layer_norm)
        made = _kept(parts and parts / f"{layer}.npz", ("scores", "z"), make)
        scores.append(made["scores"])
        z.append(made["z"])
        report((layer + 1) / weights.layers, f"layer {layer + 1} of {weights.layers}")
    return np.stack(scores), np.stack(z)


def _token_layer(
    weights: NeuronWeights,
    directions: TokenDirections,
    chosen: torch.Tensor,
    site: str,
    layer: int,
    block: int,
    folded: bool,
) -> dict[str, np.ndarray]:
    """Scores and z of a layer's neurons with chosen directions (width, tokens)."""
    fold = _folding(weights, site, layer) if folded else None
    scores, z = [], []
    for start in range(0, weights.count(layer), block):
        vectors = weights.vectors(site, layer, start, start + block)
        readers = directions.readers(vectors if fold is None else fold(vectors))
        mean, std = (each.cpu().numpy()[:, None] for each in directions.moments(readers))
        scores.append((readers @ chosen).cpu().numpy())
        z.append(_standard(scores[-1], mean, std))
    return {"scores": np.concatenate(scores), "z": np.concatenate(z)}


def _kept(file: Path | None, names: Sequence[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What is in a file, or what is made and then put there."""
    if file is None:
        return make()
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    made = make()
    with writing(file) as stream:
        np.savez(stream, **made)  # type: ignore[arg-type]
    return made


def find_neurons(source: Any, tokens: int | Sequence[int], k: int = 10, **options: Any) -> list[Named]:
    """The k neurons of a model whose vectors point most to any of these tokens, or most away from it, by |z|.

    **Arguments:** `options`: as of `token_z`.
    """
    return named(tokens, *token_z(source, tokens, **options), k)


def named(tokens: int | Sequence[int], scores: np.ndarray, z: np.ndarray, k: int) -> list[Named]:
    """The k neurons furthest out of what `token_z` gives for these tokens."""
    wanted = _checked(tokens, np.iinfo(np.int64).max)
    best = np.abs(z).argmax(-1)
    found = []
    for layer, neuron in furthest(z, k):
        at = (layer, neuron, best[layer, neuron])
        found.append(Named(layer, neuron, wanted[at[2]], float(scores[at]), float(z[at])))
    return found


def furthest(z: np.ndarray, k: int) -> list[tuple[int, int]]:
    """The k neurons (layer, neuron) furthest from 0, of either sign, for any token, from z (layers, neurons, tokens)."""
    order = np.argsort(-np.abs(z).max(-1), axis=None, kind="stable")[:k]
    return [(int(layer), int(neuron)) for layer, neuron in np.stack(np.unravel_index(order, z.shape[:2]), 1)]


def agreement(first: NeuronMap, second: NeuronMap) -> tuple[float, np.ndarray]:
    """The share of neurons with the same first name in two models: in all, and by layer.

    **Raises:** `InputError` for maps of different sizes, vocabularies or ways of decoding.
    """
    for name in ("site", "norm", "folded", "tokens"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise InputError(f"The two maps cannot be compared: {name} is {one} in one and {other} in the other.")
    if first.mean.shape != second.mean.shape:
        sizes = " and ".join(f"{layers} x {neurons}" for layers, neurons in (first.mean.shape, second.mean.shape))
        raise InputError(f"The two maps cannot be compared: their layers and neurons are {sizes}.")
    same = first.ids[..., 0] == second.ids[..., 0]
    return float(same.mean()), same.mean(axis=1)


def _standard(scores: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """In standard deviations from the mean; 0 for a vector that is 0."""
    return np.divide(scores - mean, std, out=np.zeros_like(scores), where=std > 0)


def _checked(tokens: int | Sequence[int], size: int) -> list[int]:
    wanted = [int(token) for token in ([tokens] if isinstance(tokens, int | np.integer) else tokens)]
    if not wanted:
        raise InputError("No token is given.")
    if outside := [token for token in wanted if not 0 <= token < size]:
        raise InputError(f"The token {outside[0]} is outside the vocabulary; the unembedding has {size}, from 0 on.")
    return wanted
