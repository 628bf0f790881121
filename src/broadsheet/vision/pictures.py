"""Pictures without labels: folders of them, scikit-learn's photographs, and how their contrast is evened out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from broadsheet.errors import DataError, InputError
from broadsheet.files import natural

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
MAX_PIXELS = 50_000_000
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF; photometric 0 is white at zero, the sample format 1 whole numbers from 0 on."""


def picture_files(path: Path) -> list[Path]:
    """The files of a folder that hold pictures, in the natural order of their names (img2 before img10); none where it is no
    folder. Hidden files (`.name`) are no pictures, and what lies in folders within is not looked at."""
    return sorted((file for file in _visible(path) if _is_picture(file)), key=lambda file: natural(file.name))


def other_files(path: Path) -> list[str]:
    """Names of what else is in a folder of pictures, which `picture_files` passes over."""
    return sorted((file.name for file in _visible(path) if not _is_picture(file)), key=natural)


def _visible(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if not file.name.startswith(".")] if path.is_dir() else []


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.is_dir()


def read_grey(file: Path, mode: Literal["whole", "fine"] = "fine") -> Float[np.ndarray, "height width"]:
    """A picture as grey values from 0 (black) to 255 (white), whole numbers or with what lies between them.

    Colours (palettes, CMYK, bilevel) become their luminance; 16 (12) bits of grey are scaled to 255; the picture is turned as
    its EXIF orientation says; of a phone's multi-picture JPEG the first counts.

    **Raises:** `DataError` where it cannot be read or is too large, holds several pictures or transparent pixels, or numbers
    whose black and white are not said (floating-point, signed, 32 bits).
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(), file.open("rb") as stream:  # by name, Pillow misreads TIFF files that are turned
            warnings.simplefilter("ignore")  # Pillow warns of large images before their size can be seen
            with Image.open(stream) as image:
                return _grey(image, file, mode)
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file} is no image that can be read ({said[:80]}).") from None


def _grey(image: Any, file: Path, mode: Literal["whole", "fine"]) -> Float[np.ndarray, "height width"]:
    from PIL import ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{file} has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read.")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError(f"{file} holds more than one picture; save each as a file of its own.")
    tags = getattr(image, "tag_v2", {})  # of TIFF
    kind = "PPM" if image.format == "PPM" and image.mode == "I" else image.mode
    if kind in ("I", "F") or set(np.ravel(tags.get(SAMPLE_FORMAT, 1))) != {1}:
        said = "floating-point" if kind == "F" else "signed or 32-bit"
        raise DataError(f"{file} holds {said} numbers, whose black and white are not said; save it with 8 or 16 bits a pixel.")
    if "transparency" in image.info and kind.startswith("I;16"):
        raise DataError(f"{file} says that one of its grey values is transparent; save it without transparency.")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise DataError(f"{file} has transparent pixels, whose grey depends on what lies behind; save it without transparency.")
    if kind == "PPM" or kind.startswith("I;16"):
        top = 2 ** int(np.ravel(tags.get(BITS_PER_SAMPLE, 16))[0]) - 1
        grey = np.asarray(image, np.float32) * (255 / top)
        grey = 255 - grey if tags.get(PHOTOMETRIC, 1) == 0 else grey
        return np.rint(grey) if mode == "whole" else grey
    return np.asarray(image.convert("L" if mode == "whole" else "F"), np.float32)


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
