"""Visual place recognition: images of places as a network sees them, their retrieval, and how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.files import existing, natural
from broadsheet.vision.pictures import SUFFIXES, patch_normalise, photographs, picture_files, read_grey

SIDE = 28
TRAVERSES = (
    "Traverses are needed: one folder of images for each passage of the route (Nordland: spring, fall, summer at 3300 places), "
    "in the order of the places, within one folder; pass it with --data."
)


def front_end(images: Any, side: int = SIDE) -> Float[np.ndarray, "images side side"]:
    """Grey images (height, width) of any size, as the network gets them: resized, patch-normalised, whole numbers 0 to 255."""
    from PIL import Image

    small = [
        np.asarray(Image.fromarray(np.asarray(image, np.float32), "F").resize((side, side), Image.Resampling.BILINEAR))
        for image in images
    ]
    if not small:
        raise InputError("No images were given.")
    return np.floor(255 * (1 + patch_normalise(np.stack(small))) / 2)


def read_traverse(folder: str | Path, side: int = SIDE) -> tuple[Float[np.ndarray, "places side side"], list[str]]:
    """The images of a folder as the network gets them, in the natural order of their names (img2, img10); and these names.

    What is read of an image is said at `broadsheet.vision.pictures.read_grey`; sizes may differ. Other files are passed over.

    **Raises:** `MissingDataError` where there is no image, `DataError` where one cannot be read.
    """
    path = existing(folder)
    files = picture_files(path)
    if not files:
        raise MissingDataError(f"{path} is no folder with images ({', '.join(sorted(SUFFIXES))}).")
    return front_end((read_grey(file, "whole") for file in files), side), [file.name for file in files]


class Traverses(NamedTuple):
    """Images (places, side, side) of the same places in the same order: of two passages to learn, and of one to recognise."""

    reference: Float[np.ndarray, "passages places side side"]
    query: Float[np.ndarray, "places side side"]


def read_traverses(folder: str | Path | None, query: str = "", places: int = 0) -> Traverses:
    """Passages of one route from the folders within a folder; `query` names the one to recognise, by default the last in the
    natural order of their names.

    **Arguments:** `places`: the first so many only; 0 for all.
    """
    if folder is None:
        raise MissingDataError(TRAVERSES)
    path = existing(folder)
    names = sorted((part.name for part in path.iterdir() if part.is_dir()), key=natural) if path.is_dir() else []
    if len(names) < 2:
        raise MissingDataError(f"{path} holds {len(names)} folders; at least two are wanted. {TRAVERSES}")
    query = query or names[-1]
    if query not in names:
        raise DataError(f"{path} has no folder {query!r}; it has {', '.join(names)}.")
    read = {name: read_traverse(path / name)[0] for name in names}
    counts = {name: len(images) for name, images in read.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{path}: folders hold different numbers of places: {counts}.")
    kept = slice(places or None)
    return Traverses(np.stack([read[name][kept] for name in names if name != query]), read[query][kept])


def photographed(
    places: int, rng: np.random.Generator, *, variants: int = 5, crop: int = 120, stride: int = 60
) -> tuple[Float[np.ndarray, "2 places side side"], Float[np.ndarray, "variants places side side"]]:
    """Places made of two photographs that scikit-learn ships: crops along tracks that overlap by half, so that neighbours look
    alike, in two appearances to learn and in others to recognise.

    An appearance has one gamma, gain, blur, shadow and noise for all places, and a small shift for each.
    """
    photos = [np.asarray(photo, np.float32).mean(axis=2) / 255 for photo in photographs()]
    margin = 4
    corners = [
        (k, y, x)
        for k, photo in enumerate(photos)
        for y in range(margin, photo.shape[0] - crop - margin, stride)
        for x in range(margin, photo.shape[1] - crop - margin, stride)
    ]
    if places > len(corners):
        raise InputError(f"{places} places; the photographs have {len(corners)} with a stride of {stride} pixels.")
    first = int(rng.integers(0, len(corners) - places + 1))
    chosen = corners[first : first + places]

    def appearance(gamma: float) -> np.ndarray:
        gain, blur, noise = rng.uniform(0.8, 1.1), rng.uniform(0, 1.5), rng.uniform(0, 0.04)
        shadow = 1 - rng.uniform(0, 0.4) * np.linspace(0, 1, crop)[:: rng.choice([-1, 1])]
        return front_end([_seen(photos[k], y, x, crop, gamma, gain, blur, noise, shadow, rng) for k, y, x in chosen])

    learned = np.stack([appearance(1.0), appearance(0.7)])
    return learned, np.stack([appearance(float(rng.uniform(1.1, 1.6))) for _ in range(variants)])


def _seen(
    photo: np.ndarray, y: int, x: int, crop: int, gamma: float, gain: float, blur: float, noise: float, shadow: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    from scipy.ndimage import gaussian_filter

    dy, dx = rng.integers(-2, 3, 2)
    part = photo[y + dy : y + dy + crop, x + dx : x + dx + crop]
    changed = gaussian_filter(gain * part**gamma, blur) * shadow + noise * rng.standard_normal(part.shape)
    return 255 * np.clip(changed, 0, 1)


def similarity_by_difference(
    reference: Float[np.ndarray, "passages places side side"], images: Float[np.ndarray, "images side side"]
) -> Float[np.ndarray, "images places"]:
    """Scores of the plain method: minus the mean absolute difference of pixels to the nearest passage's image of a place."""
    flat = np.asarray(reference, np.float32).reshape(*reference.shape[:2], -1)
    out = np.empty((len(images), flat.shape[1]), np.float32)
    for k, image in enumerate(np.asarray(images, np.float32).reshape(len(images), -1)):
        out[k] = -np.abs(flat - image).mean(axis=2).min(axis=0)
    return out


def similarity_by_gradients(
    reference: Float[np.ndarray, "passages places side side"], images: Float[np.ndarray, "images side side"], cell: int = 7,
    bins: int = 8,
) -> Float[np.ndarray, "images places"]:  # fmt: skip
    """Scores by histograms of oriented gradients over square cells: the largest cosine with a passage's image of a place."""

    def described(stack: np.ndarray) -> np.ndarray:
        dy, dx = np.gradient(np.asarray(stack, float), axis=(-2, -1))
        part = ((np.arctan2(dy, dx) % np.pi) / np.pi * bins).astype(int) % bins
        strength = np.hypot(dy, dx)[..., None] * (part[..., None] == np.arange(bins))
        cells = stack.shape[-1] // cell
        kept = strength[..., : cells * cell, : cells * cell, :]
        pooled = kept.reshape(*stack.shape[:-2], cells, cell, cells, cell, bins).sum(axis=(-4, -2))
        flat = pooled.reshape(*stack.shape[:-2], -1)
        return flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)

    return np.einsum("qf,spf->sqp", described(images), described(reference)).max(axis=0)


def recall_at(
    scores: Float[np.ndarray, "images places"],
    truth: Int[np.ndarray, " images"],
    ks: Any = (1, 5, 10, 15, 20, 25),
    tolerance: int = 0,
) -> dict[int, float]:
    """Share of images of which a place within `tolerance` of the true one is among the k best. Images without any response (all
    scores zero) are never recognised."""
    scores, truth = np.asarray(scores), np.asarray(truth)
    if scores.ndim != 2 or truth.shape != (len(scores),):
        raise InputError(f"scores are {scores.shape} and truth {truth.shape}; (images, places) and (images,) are wanted.")
    order = np.argsort(-scores, axis=1, kind="stable")
    answered = scores.any(axis=1, keepdims=True)
    right = (np.abs(order - truth[:, None]) <= tolerance) & answered
    return {int(k): float(right[:, :k].any(axis=1).mean()) for k in ks}


class PrecisionRecall(NamedTuple):
    """Precision and recall for falling thresholds on the best score, the area under the curve, and recall at full precision."""

    precision: Float[np.ndarray, " thresholds"]
    recall: Float[np.ndarray, " thresholds"]
    area: float
    recall_at_full_precision: float


def precision_recall(
    scores: Float[np.ndarray, "images places"], truth: Int[np.ndarray, " images"], tolerance: int = 0, thresholds: int = 99
) -> PrecisionRecall:
    """Matches are kept where the best score passes a threshold; all images have a true place."""
    scores, truth = np.asarray(scores), np.asarray(truth)
    best, found = scores.max(axis=1), scores.argmax(axis=1)
    right = (np.abs(found - truth) <= tolerance) & scores.any(axis=1)
    precision, recall = [], []
    for threshold in np.linspace(best.max(), best.min(), thresholds):
        kept = best >= threshold
        precision.append(right[kept].mean())
        recall.append(right[kept].sum() / len(truth))
    p, r = np.array(precision), np.array(recall)
    area = float(np.trapezoid(np.concatenate([p[:1], p]), np.concatenate([[0.0], r])))
    return PrecisionRecall(p, r, area, float(r[p == 1].max(initial=0.0)))
