"""Does a vision tower see more after a training? A linear question to its features that the training did not ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.language.jigsaw.generated import digit_images
from broadsheet.language.jigsaw.permutations import dice

try:
    import torch
except ImportError:
    raise MissingExtraError("Probing models that see", "language") from None


def tower_features(
    model: Any, processor: Any, images: Sequence[Any], pool: str = "mean", batch: int = 256
) -> Float[np.ndarray, "pictures width"]:
    """What the vision tower says of each picture, as the language model is given it: the mean of its tokens, or all of them.

    **Raises:** `InputError` for a model without a tower, and for pictures of several sizes where all tokens are wanted.
    """
    if not hasattr(model, "get_image_features"):
        raise InputError(f"A {type(model).__name__} has no vision tower.")
    if pool not in ("mean", "all"):
        raise InputError(f"pool is {pool!r}; mean or all is wanted.")
    found, device = [], next(model.parameters()).device
    for start in range(0, len(images), batch):
        given = processor.image_processor(list(images[start : start + batch]), return_tensors="pt").to(device)
        with torch.no_grad():
            parts = model.get_image_features(**given).pooler_output
        found += [(part.mean(0) if pool == "mean" else part.flatten()).float().cpu().numpy() for part in parts]
    if len({row.shape for row in found}) > 1:
        raise InputError("The pictures have several sizes, and so different numbers of tokens: take their mean.")
    return np.array(found)


def digits_in_quadrants(
    seed: int, count: int, side: int = 56, digit: int = 8
) -> tuple[UInt8[np.ndarray, "count side side 3"], Int[np.ndarray, "count"]]:
    """Pictures of noise with one of scikit-learn's digits somewhere, and the quadrant of its middle (0 to 3, row by row)."""
    numbers, shapes = dice(seed), digit_images() / 16
    pictures = numbers.uniform(60, 160, (count, 1, 1, 3)) + numbers.normal(0, 25, (count, side, side, 3))
    quadrants = numbers.integers(4, size=count)
    half, enlarge = side // 2, digit // 8
    for picture, quadrant in zip(pictures, quadrants, strict=True):
        shape = np.kron(shapes[numbers.integers(len(shapes))], np.ones((enlarge, enlarge)))
        top, left = numbers.integers(0, half - digit + 1, 2) + half * np.array(divmod(quadrant, 2))
        picture[top : top + digit, left : left + digit] += 90 * shape[..., None]
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8), quadrants


def linear_probe(
    features: Float[np.ndarray, "pictures width"], labels: Int[np.ndarray, "pictures"], held_out: float = 0.5
) -> float:
    """Accuracy of a logistic regression on the share of pictures that it was not fitted to, the last ones; its strength of
    regularisation is chosen by cross-validation on the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = len(labels) - round(held_out * len(labels))
    if fitted < 8 or fitted == len(labels):
        raise InputError(f"{len(labels)} pictures are too few to fit and to test a probe.")
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    probe = GridSearchCV(plain, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=2)
    return float(probe.fit(features[:fitted], labels[:fitted]).score(features[fitted:], labels[fitted:]))
