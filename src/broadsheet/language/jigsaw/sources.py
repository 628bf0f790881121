"""Files of pictures and videos."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from broadsheet.errors import DataError, InputError, MissingExtraError
from broadsheet.files import existing, natural
from broadsheet.language.jigsaw.unfit import UnfitError
from broadsheet.language.jigsaw.video_puzzles import chosen_frames, clip_ranges, within

if TYPE_CHECKING:
    from PIL.Image import Image

    from broadsheet.language.jigsaw.puzzles import JigsawTask

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"}
VIDEOS = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".gif"}
MAX_PIXELS = 100_000_000
MAX_FRAMES = 1_000_000
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""Tags of TIFF; photometric 0 is white at zero."""


def files_within(folder: str | Path, suffixes: set[str]) -> list[Path]:
    """Files of a folder and the folders within it with these endings, in the natural order of their paths (img2 before img10);
    hidden ones are passed over.

    **Raises:** `InputError` where it is no folder, or has no such file.
    """
    folder = existing(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder is wanted.")
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    found = sorted((path for path in paths if not any(part.startswith(".") for part in path.parts)), key=_natural_path)
    if not found:
        raise InputError(f"{folder} has no files that end in {', '.join(sorted(suffixes))}.")
    return [folder / path for path in found]


def _natural_path(path: Path) -> list[Any]:
    return [natural(part) for part in path.parts]


def read_picture(file: str | Path) -> Image:
    """A picture in RGB, turned as its EXIF orientation says; 16 bits of grey are scaled to 8; of a phone's multi-picture JPEG
    the first counts.

    **Raises:** `DataError` where it cannot be read, is too large, moves, has transparent pixels, or numbers whose black and
    white are not said (floating-point, signed, 32 bits).
    """
    from PIL import Image

    file = existing(file)
    try:
        with warnings.catch_warnings(), file.open("rb") as stream:
            warnings.simplefilter("ignore")  # Pillow warns of large images before their size can be seen
            with Image.open(stream) as image:
                return _rgb(image, file)
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file} is no picture that can be read ({said[:80]}).") from None


def _rgb(image: Image, file: Path) -> Image:
    from PIL import Image, ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{file} has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read.")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError(f"{file} holds more than one picture; it is a video, or save each as a file of its own.")
    wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))
    if image.mode == "F" or (image.mode == "I" and not wide):
        raise DataError(f"{file} holds numbers whose black and white are not said; save it with 8 or 16 bits a pixel.")
    if wide and "transparency" in image.info:
        raise DataError(f"{file} says that one of its grey values is transparent; save it without transparency.")
    turned = ImageOps.exif_transpose(image)
    if wide:
        tags = getattr(image, "tag_v2", {})  # of TIFF
        top = 2 ** int(np.ravel(tags.get(BITS_PER_SAMPLE, 16))[0]) - 1
        grey = np.rint(np.asarray(turned, np.float32) * (255 / top)).astype(np.uint8)
        return Image.fromarray(255 - grey if tags.get(PHOTOMETRIC, 1) == 0 else grey).convert("RGB")
    if turned.has_transparency_data and np.asarray(turned.convert("RGBA").getchannel("A")).min() < 255:
        raise DataError(
            f"{file} has transparent pixels, whose colour depends on what lies behind them; save it without transparency."
        )
    return turned.convert("RGB")


def _opened(file: Path) -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError("Reading videos", "language") from None
    try:
        return av.open(str(file))
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"{file} is no video that can be read ({str(error)[:80]}).") from None


def frame_times(file: str | Path) -> np.ndarray:
    """When each frame of a video is shown and, one more, when it ends (s); without decoding it.

    **Raises:** `DataError` where the file cannot be read, or has no video.
    """
    file = existing(file)
    with _opened(file) as container:
        stream = container.streams.best("video")  # which passes over cover pictures
        if stream is None:
            raise DataError(f"{file} has no video in it.")
        ticks, last = [], 0
        for packet in _demuxed(container, stream, file):
            shown = packet.dts if packet.pts is None else packet.pts
            if shown is not None and not packet.is_discard:  # the decoder drops the others as well
                ticks.append(shown)
                last = packet.duration or last
            if len(ticks) > MAX_FRAMES:
                raise DataError(f"{file} has more than {MAX_FRAMES} frames.")
        tick = float(stream.time_base) if stream.time_base else 1.0
        rate = float(stream.average_rate) if stream.average_rate else 0.0
    if not ticks:
        raise DataError(f"{file} has no frames in its video.")
    times = np.sort(np.array(ticks, float)) * tick
    step = last * tick or (1 / rate if rate else float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    return np.append(times, times[-1] + step)


def _demuxed(container: Any, stream: Any, file: Path) -> Iterator[Any]:
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        raise DataError(f"{file} is damaged ({str(error)[:80]}).") from None


def read_frames(file: str | Path, wanted: list[int], pixels: int) -> dict[int, Image]:
    """Frames of a video by number, in the order in which they are shown, made smaller where they have more than `pixels`; those
    that are not wanted are decoded and forgotten.

    **Raises:** `DataError` where the file cannot be decoded, or ends before.
    """
    import av

    file = existing(file)
    left, found = set(wanted), {}
    with _opened(file) as container:
        stream = container.streams.best("video")
        stream.thread_type = "AUTO"
        try:
            for number, frame in enumerate(container.decode(stream)):
                if number in left:
                    found[number] = within(_upright(frame), pixels)
                    left.remove(number)
                    if not left:
                        break
        except (av.FFmpegError, ValueError) as error:
            raise DataError(f"{file} is damaged ({str(error)[:80]}).") from None
    if left:
        raise DataError(f"{file} is damaged: frame {min(left)} and {len(left) - 1} others are missing.")
    return found


def _upright(frame: Any) -> Image:
    """A decoded frame as a picture, turned as the video says."""
    image = frame.to_image()
    turn = round(getattr(frame, "rotation", 0) or 0) % 360
    return image.rotate(turn, expand=True) if turn else image


def read_clips(file: str | Path, task: JigsawTask) -> list[list[Image]]:
    """The clips of a video file, in order, each a list of frames, as `task` has them.

    **Raises:** `UnfitError` where the video is too short, `DataError` where it cannot be read.
    """
    times = frame_times(file)
    seconds = float(times[-1] - times[0])
    if seconds < task.shortest - 1e-6:
        raise UnfitError("too short", f"It is {seconds:.1f} s long; at least {task.shortest:g} s are wanted.")
    ranges = clip_ranges(times, task.clips, task.trim)
    chosen = chosen_frames(ranges, task.frames, seconds / task.clips * (1 - 2 * task.trim), task.rate)
    frames = read_frames(file, [frame for clip in chosen for frame in clip], task.pixels)
    return [[frames[frame] for frame in clip] for clip in chosen]
