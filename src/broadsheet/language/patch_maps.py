"""Maps of activation patching: where in a model, over blocks and tokens, what makes a statement true is; how alike two are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import writing
from broadsheet.errors import InputError

BINS = 20
ROLES = ("knowledge", "others", "last")


@dataclass(frozen=True)
class PatchMap:
    """D = logit(true) - logit(false) after the last token, where one state is patched.

    - `differences`: (pairs, layers, columns), logits.
    - `unpatched`, `source`: (pairs,), D of the target's own run, of the false statement, and of the source's, of the true one.
    - `layers`: block of each row, -1 the embedding's output.
    - `columns`: names of the tokens, of which the last is that of the prompt; position k is `k - len(columns)` from the end.
    - `different`: (pairs, columns), where the tokens of the two statements differ.
    """

    differences: np.ndarray
    unpatched: np.ndarray
    source: np.ndarray
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    different: np.ndarray

    def __len__(self) -> int:
        return len(self.differences)

    @cached_property
    def mean(self) -> np.ndarray:
        """D over the pairs, (layers, columns)."""
        return self.differences.mean(0, dtype=np.float64)

    @cached_property
    def normalised(self) -> np.ndarray:
        """The mean in steps from 0 to 1, as `normalise` has it."""
        return normalise(self.mean)

    @property
    def knowledge(self) -> np.ndarray:
        """(columns,), whether a token is part of a subject or an object."""
        return np.array([name.startswith(("[subject", "[object")) for name in self.columns])

    @property
    def by_role(self) -> np.ndarray:
        """Mean D (layers, 3) over the tokens in which the two statements differ, over the others, and at the last (`ROLES`).

        It does not need statements of one length.
        """
        kinds = self.different[:, :-1]
        weights = [np.pad(kind / np.maximum(kind.sum(1, keepdims=True), 1), ((0, 0), (0, 1))) for kind in (kinds, ~kinds)]
        there = [kind.any(1) for kind in (kinds, ~kinds)]
        means = [np.einsum("plc,pc->pl", self.differences, each)[has].mean(0) for each, has in zip(weights, there, strict=True)]
        return np.stack([*means, self.differences[:, :, -1].mean(0)], axis=1)

    def write(self, path: Path) -> None:
        """Writes it as .npz, whole or not at all."""
        with writing(path) as stream:
            values: dict[str, Any] = {field.name: np.array(getattr(self, field.name)) for field in fields(self)}
            np.savez(stream, **values)

    @classmethod
    def read(cls, path: Path) -> PatchMap:
        """Reads what `write` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            found = {field.name: stored[field.name] for field in fields(cls)}
        return cls(**found | {"layers": tuple(found["layers"].tolist()), "columns": tuple(found["columns"].tolist())})

    @classmethod
    def joined(cls, parts: Sequence[PatchMap]) -> PatchMap:
        """Maps of other pairs, with the same layers and columns, as one.

        **Raises:** `InputError` for maps of other layers or columns.
        """
        if len({(part.layers, part.columns) for part in parts}) != 1:
            raise InputError("Maps of patching can be joined where they have the same layers and columns.")
        names = ("differences", "unpatched", "source", "different")
        together: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **together)


def normalise(mean: np.ndarray) -> np.ndarray:
    """A map in steps: of 20 equal bins over its values the lower ten become 0, the upper ten 0.1, 0.2, …, 1.

    A map that is the same everywhere becomes 0.
    """
    low, high = mean.min(), mean.max()
    if low == high:
        return np.zeros_like(mean, dtype=float)
    edges = np.linspace(low - 1e-5, high + 1e-5, BINS + 1)
    return np.maximum(0, np.digitize(mean, edges) - BINS // 2) / (BINS // 2)


def similarity(first: PatchMap, second: PatchMap) -> dict[str, float]:
    """How alike two normalised maps are: `pearson` over all cells (NaN where one of them is flat), the largest difference, and
    the largest at tokens of subjects and objects.

    **Raises:** `InputError` for maps of other layers or columns.
    """
    a, b = first.normalised, second.normalised
    if first.layers != second.layers or a.shape != b.shape:
        raise InputError(f"Maps of shapes {a.shape} and {b.shape} cannot be compared, or have other layers.")
    apart = np.abs(a - b)
    known = apart[:, first.knowledge]
    return {
        "pearson": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) if a.std() and b.std() else float("nan"),
        "largest_difference": float(apart.max()),
        "largest_at_knowledge": float(known.max()) if known.size else float("nan"),
    }


def draw_map(axis: Any, values: np.ndarray, layers: Sequence[int], columns: Sequence[str], limit: float, title: str) -> Any:
    """A heat map of layers and tokens on a Matplotlib axis, from -limit to limit; the image, for its colour bar."""
    image = axis.imshow(values, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize="x-small")
    step = max(1, len(layers) // 16)
    axis.set_yticks(range(0, len(layers), step), ["emb." if layer < 0 else str(layer) for layer in layers[::step]])
    axis.set_xlabel("patched token")
    axis.set_ylabel("after block")
    axis.set_title(title, fontsize="medium")
    return image
