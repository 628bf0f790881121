"""Images with labels for networks that classify them: scikit-learn's digits, and MNIST and CIFAR as published."""

from __future__ import annotations

import gzip
import struct
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import DataError, MissingDataError
from broadsheet.files import MIB, existing, load_arrays, load_pickle

MNIST = (
    "MNIST is needed: download train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two t10k files (or mnist.npz of "
    "Keras) and pass their folder with --data."
)
CIFAR = (
    "CIFAR is needed: unpack cifar-10-binary.tar.gz or cifar-100-binary.tar.gz (cs.toronto.edu/~kriz/cifar.html) and pass the "
    "folder with the .bin files with --data; the files of the Python version are pickles and need --trust too."
)


class Images(NamedTuple):
    """Training and test images (samples, height, width[, channels]), from 0 to 1, and their labels."""

    x: Float[np.ndarray, "samples height width *channels"]
    y: Int[np.ndarray, " samples"]
    test_x: Float[np.ndarray, "tests height width *channels"]
    test_y: Int[np.ndarray, " tests"]


def digits(rng: np.random.Generator, *, train: int = 1400, scale: float = 1.0) -> Images:
    """The 1797 handwritten digits that scikit-learn carries, in random order; enlarged `scale` times, bilinearly."""
    images, labels = _digits(scale)
    order = rng.permutation(len(images))
    x, y = images[order], labels[order]
    return Images(x[:train], y[:train], x[train:], y[train:])


@lru_cache(maxsize=4)
def _digits(scale: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images / 16
    if scale != 1:
        images = np.stack([zoom(image, scale, order=1) for image in images])
    return images.astype(np.float32), bunch.target.astype(np.int64)


def mnist(folder: str | Path | None) -> Images:
    """MNIST, or a set in its format, from IDX files (gzipped or not) or Keras's mnist.npz."""
    if folder is None:
        raise MissingDataError(MNIST)
    path = existing(folder)
    packed = path if path.suffix == ".npz" else path / "mnist.npz"
    if packed.exists():
        arrays = load_arrays(packed)
        missing = {"x_train", "y_train", "x_test", "y_test"} - arrays.keys()
        if missing:
            raise DataError(f"{packed} has no {', '.join(sorted(missing))}.")
        parts = [arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    else:
        names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
        parts = [_idx(path, name) for name in names]
    x, y, test_x, test_y = parts
    if x.ndim != 3 or x.shape[1:] != test_x.shape[1:] or len(x) != len(y) or len(test_x) != len(test_y):
        raise DataError(f"{path}: images {x.shape} and {test_x.shape} do not fit their labels {y.shape} and {test_y.shape}.")
    return Images((x / 255).astype(np.float32), y.astype(np.int64), (test_x / 255).astype(np.float32), test_y.astype(np.int64))


def _idx(folder: Path, name: str) -> np.ndarray:
    """An array of bytes in Yann LeCun's IDX format."""
    path = next((file for file in (folder / name, folder / f"{name}.gz") if file.exists()), None)
    if path is None:
        raise MissingDataError(f"{folder / name} is missing. {MNIST}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            zero, kind, ndim = struct.unpack(">HBB", stream.read(4))
            if zero or kind != 8 or not 1 <= ndim <= 3:
                raise DataError(f"{path} is no IDX file of bytes.")
            shape = struct.unpack(f">{ndim}I", stream.read(4 * ndim))
            size = int(np.prod(shape, dtype=np.int64))
            if size > 1024 * MIB:
                raise DataError(f"{path} claims {size / MIB:.0f} MiB; at most 1024 MiB are read.")
            raw = stream.read(size + 1)
    except (OSError, EOFError, struct.error) as error:
        raise DataError(f"{path} is damaged ({error}).") from None
    if len(raw) != size:
        raise DataError(f"{path} holds {len(raw)} bytes of pixels or labels; its header says {size}.")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def cifar(folder: str | Path | None, classes: int = 10) -> Images:
    """CIFAR-10 or CIFAR-100 (fine labels) from the files of their binary version, or of the Python one with `--trust`."""
    if folder is None:
        raise MissingDataError(CIFAR)
    path = existing(folder)
    if classes == 10:
        names, labels = ([f"data_batch_{k}" for k in range(1, 6)], ["test_batch"]), 1
    else:
        names, labels = (["train"], ["test"]), 2
    binary = (path / f"{names[1][0]}.bin").exists() or not (path / names[1][0]).exists()
    parts = []
    for part in names:
        read = [_cifar_bytes(path / f"{n}.bin", labels) if binary else _cifar_pickle(path / n, labels) for n in part]
        for name, (_, y) in zip(part, read, strict=True):
            if not 0 <= y.min() <= y.max() < classes:
                raise DataError(
                    f"{path / name} has the label {y.max() if y.max() >= classes else y.min()}; there are {classes} classes."
                )
        x = np.concatenate([each for each, _ in read]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts += [(x / 255).astype(np.float32), np.concatenate([y for _, y in read])]
    return Images(*parts)


def _cifar_bytes(path: Path, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (images, 3072) and labels of a file of the binary version, which has `labels` bytes before each image."""
    if not path.exists():
        raise MissingDataError(f"{path} is missing. {CIFAR}")
    record, size = labels + 3072, path.stat().st_size
    if not size or size % record or size > 1024 * MIB:
        raise DataError(f"{path} has {size} bytes, no multiple of {record}: it is not a file of CIFAR's binary version.")
    raw = np.fromfile(path, np.uint8).reshape(-1, record)
    return raw[:, labels:], raw[:, labels - 1].astype(np.int64)


def _cifar_pickle(path: Path, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (images, 3072) and labels of a file of the Python version."""
    if not path.exists():
        raise MissingDataError(f"{path} is missing. {CIFAR}")
    held = load_pickle(path)
    name = "labels" if labels == 1 else "fine_labels"
    if not isinstance(held, dict) or not {"data", name} <= held.keys():
        raise DataError(f"{path} has no data and {name}: it is not a file of CIFAR's Python version.")
    x, y = np.asarray(held["data"]), np.asarray(held[name])
    if (
        x.dtype != np.uint8
        or x.ndim != 2
        or x.shape[1] != 3072
        or y.shape != x.shape[:1]
        or y.dtype.kind not in "iu"
        or not len(y)
    ):
        raise DataError(
            f"{path} holds data {x.shape} of {x.dtype} and {name} {y.shape}; (n, 3072) of uint8 and n labels are wanted."
        )
    return x, y.astype(np.int64)
