"""Directions in a model's states that stand for a property of texts, such as truth: fitted, compared, carried over to others.

The mean of the states of one label minus that of the other, after each group of texts (a topic, a data set) is centred, with a
one-dimensional logistic classifier along it: mass-mean probes as in arXiv 2504.02904 and its official code; the variant with a
polarity is TTPD. States are (texts, width), labels 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError
from broadsheet.files import existing
from broadsheet.language.anatomy import blocks, matrix, unembedding
from broadsheet.language.states import Rows, States, read_states

Vector = Float[np.ndarray, " width"]
Labels = Sequence[int] | np.ndarray
Groups = Sequence[Any] | np.ndarray | None
KINDS = ("mass-mean", "ttpd")


def centred(states: States, groups: Groups = None) -> States:
    """States less the mean of their group, float64."""
    made = np.asarray(states, np.float64).copy()
    which = np.zeros(len(made)) if groups is None else np.asarray(groups)
    for group in np.unique(which):
        made[which == group] -= made[which == group].mean(axis=0)
    return made


def mass_mean(states: States, labels: Labels, groups: Groups = None) -> Vector:
    """Mean state of label 1 minus that of label 0, after centring each group.

    **Raises:** `InputError` where a label is missing, or labels and states differ in number.
    """
    x, y = centred(states, groups), _checked(states, labels)
    return x[y].mean(axis=0) - x[~y].mean(axis=0)


def ttpd(states: States, labels: Labels, polarities: Labels, groups: Groups = None) -> tuple[Vector, Vector]:
    """(general, polarity) directions: least squares of the centred states on y and y p, with y and p in {-1, 1}.

    **Arguments:** `polarities`: 1 for an affirmative text, -1 (or 0) for a negated one.

    **Raises:** `InputError` where all polarities are the same, beside those of `mass_mean`.
    """
    x, y = centred(states, groups), np.where(_checked(states, labels), 1.0, -1.0)
    p = np.where(np.asarray(polarities) > 0, 1.0, -1.0)
    if len(set(p)) < 2:
        raise InputError("All texts have the same polarity; ttpd needs affirmative and negated ones.")
    both, *_ = np.linalg.lstsq(np.stack([y, y * p], 1), x, rcond=None)
    return both[0], both[1]


def cosine(one: Vector, other: Vector) -> float:
    """The cosine of the angle between two directions.

    **Raises:** `InputError` where their widths differ.
    """
    if len(one) != len(other):
        raise InputError(f"Directions of width {len(one)} and {len(other)} have no angle between them.")
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def word_difference(model: Any, one: int, other: int) -> Vector:
    """The unembedding of a word less that of another: what makes the one more likely and the other less."""
    words = matrix(unembedding(model))
    return (words[one] - words[other]).detach().double().cpu().numpy()


def mass_mean_by_block(
    model: Any, rows: Rows, labels: Labels, groups: Groups = None, *, position: int = -1, batch: int = 64
) -> Float[np.ndarray, "blocks width"]:
    """`mass_mean` of the states after each block, read a block at a time."""
    return np.array(
        [
            mass_mean(read_states(model, rows, layer, position=position, batch=batch), labels, groups)
            for layer in range(len(blocks(model)))
        ]
    )


def cosines(one: Float[np.ndarray, "blocks width"], other: Float[np.ndarray, "blocks width"]) -> Float[np.ndarray, " blocks"]:
    """`cosine` block by block."""
    return np.array([cosine(a, b) for a, b in zip(one, other, strict=True)])


def plane(states: States, groups: Groups = None) -> Float[np.ndarray, "texts two"]:
    """Coordinates of centred states along their first two principal components."""
    x = centred(states, groups)
    return x @ np.linalg.svd(x, full_matrices=False)[2][:2].T


def separation(states: States, labels: Labels, vector: Vector, groups: Groups = None) -> float:
    """How far apart the labels are along a direction: the difference of their means over the spread within a label (d')."""
    y = _checked(states, labels)
    along = centred(states, groups) @ np.asarray(vector, np.float64)
    spread = np.sqrt((along[y].var() + along[~y].var()) / 2)
    return float((along[y].mean() - along[~y].mean()) / spread) if spread > 0 else np.nan


@dataclass(frozen=True)
class Direction:
    """A direction of a model's states, with the classifier along it: label 1 where `slope (x · vector) + bias > 0`.

    **Arguments:** `vector`: (width,), in units of the states: as long as the labels' means are apart; `layer`: the block after
    which the states are, from 0; `position`: of their token, from the end; `model`: what it was fitted on (see
    `broadsheet.language.models.model_identity`); `kind`: how.
    """

    vector: Vector
    layer: int
    position: int = -1
    slope: float = 1.0
    bias: float = 0.0
    model: str = ""
    kind: str = "mass-mean"

    @classmethod
    def fit(
        cls,
        states: States,
        labels: Labels,
        groups: Groups = None,
        *,
        layer: int,
        position: int = -1,
        model: str = "",
        kind: str = "mass-mean",
        polarities: Labels | None = None,
    ) -> Direction:
        """From labelled states.

        **Raises:** `InputError` as `mass_mean` and `ttpd` do, or for an unknown kind.
        """
        if kind not in KINDS:
            raise InputError(f"The kind of direction is {kind!r}; {' or '.join(KINDS)} is wanted.")
        if kind == "mass-mean":
            vector = mass_mean(states, labels, groups)
        elif polarities is None:
            raise InputError("ttpd needs the polarity of each text.")
        else:
            vector = ttpd(states, labels, polarities, groups)[0]
        return cls.along(vector, states, labels, groups, layer=layer, position=position, model=model, kind=kind)

    @classmethod
    def along(cls, vector: Vector, states: States, labels: Labels, groups: Groups = None, **said: Any) -> Direction:
        """A vector from elsewhere, with the classifier along it (logistic, without penalty) fitted to labelled states."""
        found = LogisticRegression(C=np.inf).fit((centred(states, groups) @ vector)[:, None], np.asarray(labels))
        return cls(vector, slope=float(found.coef_[0, 0]), bias=float(found.intercept_[0]), **said)

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))

    @property
    def unit(self) -> Vector:
        """The direction, of length 1."""
        return self.vector / self.norm

    def predict(self, states: States, groups: Groups = None) -> np.ndarray:
        """Labels of states, centred in their groups first.

        **Raises:** `InputError` for states of another width.
        """
        self.check_width(np.shape(states)[1])
        return (self.slope * (centred(states, groups) @ self.vector) + self.bias > 0).astype(int)

    def accuracy(self, states: States, labels: Labels, groups: Groups = None) -> float:
        """Share of states whose label it gives."""
        return float(np.mean(self.predict(states, groups) == np.asarray(labels)))

    def check_width(self, width: int) -> None:
        """Raises `InputError` where a model has another width: the direction is another model's."""
        if width != len(self.vector):
            of = f" (it is of {self.model})" if self.model else ""
            raise InputError(f"The direction has a width of {len(self.vector)}, the model one of {width}{of}.")

    def save(self, path: str | Path) -> Path:
        """Writes a safetensors file: the vector as `direction`, all else as its metadata."""
        from safetensors.numpy import save

        said = {name: str(getattr(self, name)) for name in ("layer", "position", "slope", "bias", "model", "kind")}
        path = Path(path)
        with writing(path) as stream:
            stream.write(save({"direction": np.asarray(self.vector, np.float64)}, metadata=said | {"format": "np"}))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Reads what `save` wrote.

        **Raises:** `DataError` for a file that is no direction.
        """
        from safetensors import SafetensorError, safe_open

        path = existing(path)
        try:
            with safe_open(path, "np") as stream:
                said, vector = stream.metadata() or {}, stream.get_tensor("direction")
            made = cls(
                np.asarray(vector, np.float64), int(said["layer"]), int(said["position"]), float(said["slope"]),
                float(said["bias"]), said["model"], said["kind"],
            )  # fmt: skip
        except (SafetensorError, OSError, KeyError, ValueError):
            raise DataError(f"{path} holds no direction as `save` writes it: a vector `direction` with its metadata.") from None
        if made.vector.ndim != 1 or not np.isfinite(made.vector).all() or not made.norm > 0:
            raise DataError(f"{path}: the direction is no vector of finite numbers.")
        return made


def folds(labels: Labels, groups: Groups = None, parts: int = 5) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fit on, look at) masks of texts: each group held out in turn; of a single group, each of `parts` parts."""
    y = np.asarray(labels)
    which = np.zeros(len(y)) if groups is None else np.asarray(groups)
    if len(np.unique(which)) < 2:
        which = np.empty(len(y), int)
        for label in (0, 1):
            here = np.flatnonzero(y == label)
            which[np.random.default_rng(0).permutation(here)] = np.arange(len(here)) % parts
    for group in np.unique(which):
        yield which != group, which == group


def transfer_table(
    states: Mapping[str, States], labels: Labels, groups: Groups = None, *, kind: str = "mass-mean", polarities: Any = None
) -> dict[tuple[str, str], float]:
    """(fitted on, looked at) -> accuracy on texts held out (see `folds`), of models' states of the same texts.

    **Raises:** `InputError` where models differ in width, or as `mass_mean` does.
    """
    y, p = np.asarray(labels), None if polarities is None else np.asarray(polarities)
    which = np.zeros(len(y), int) if groups is None else np.asarray(groups)
    if len({np.shape(x)[1] for x in states.values()}) > 1:
        widths = ", ".join(f"{name} {np.shape(x)[1]}" for name, x in states.items())
        raise InputError(f"The models differ in width ({widths}): a direction of one is none of the other.")
    centre = {name: centred(x, which) for name, x in states.items()}
    right = {(one, other): 0 for one in states for other in states}
    for fit, look in folds(y, groups):
        for one, x in centre.items():
            found = Direction.fit(
                x[fit], y[fit], which[fit], layer=0, kind=kind, polarities=None if p is None else p[fit]
            )  # fmt: skip
            for other, seen in centre.items():
                along = found.slope * (seen[look] @ found.vector) + found.bias
                right[one, other] += int(np.sum((along > 0) == y[look]))
    return {pair: count / len(y) for pair, count in right.items()}


def _checked(states: States, labels: Labels) -> np.ndarray:
    """Labels as booleans."""
    y = np.asarray(labels)
    if len(y) != len(states):
        raise InputError(f"There are {len(states)} states and {len(y)} labels.")
    if set(np.unique(y)) != {0, 1}:
        raise InputError(f"The labels are {', '.join(map(str, np.unique(y)[:5]))}; both 0 and 1 are wanted, and nothing else.")
    return y == 1
