"""Pictures without labels: folders of them, scikit-learn's photographs, and how their contrast is evened out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from broadsheet.errors import DataError, InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
MAX_PIXELS = 50_000_000


def picture_files(path: Path) -> list[Path]:
    """The files of a folder that hold pictures, in the order of their names; none where it is no folder."""
    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else []


def read_grey(file: Path, mode: Literal["whole", "fine"] = "fine") -> Float[np.ndarray, "height width"]:
    """A picture as grey values from 0 to 255, whole numbers or with what lies between them.

    **Raises:** `DataError` where it cannot be read or is too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{file} has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read.")
            return np.asarray(image.convert("L" if mode == "whole" else "F"), np.float32)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no image that can be read ({str(error)[:80]}).") from None


def photographs() -> list[np.ndarray]:
    """The two photographs that scikit-learn carries, (height, width, 3) of 0 to 255."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def whiten(image: Float[np.ndarray, "x y"], cutoff: float = 0.4) -> Float[np.ndarray, "x y"]:
    """Spectrum times `f exp(-(f / cutoff)^4)`, f in cycles a pixel; mean 0 and deviation 1."""
    fx, fy = np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")
    f = np.hypot(fx, fy)
    white = np.fft.ifft2(np.fft.fft2(image) * f * np.exp(-((f / cutoff) ** 4))).real
    return (white - white.mean()) / white.std()


def patch_normalise(
    images: Float[np.ndarray, "images height width"], window: int = 7
) -> Float[np.ndarray, "images height width"]:
    """Each pixel less the mean of the window around it, over its standard deviation, clipped to -1 to 1; flat windows give 0.

    Windows are cut at the border.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window = {window}; an odd number of pixels is wanted.")
    padded = np.pad(np.asarray(images, float), ((0, 0), (window // 2,) * 2, (window // 2,) * 2), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(1, 2))
    mean, spread = np.nanmean(windows, axis=(3, 4)), np.nanstd(windows, axis=(3, 4))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (images - mean) / spread
    return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0), -1, 1)
