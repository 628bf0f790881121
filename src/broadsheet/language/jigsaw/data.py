"""Samples of puzzles: folders of a user's own, and the paper's data in the layouts in which they are distributed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import DataError, InputError, MissingDataError, MissingExtraError
from broadsheet.files import existing
from broadsheet.language.jigsaw.depth_puzzles import Point
from broadsheet.language.jigsaw.puzzles import JigsawItem, JigsawTask
from broadsheet.language.jigsaw.sources import MAX_PIXELS, PICTURES, VIDEOS, files_within, read_picture

NYU_FILE = "nyu_depth_v2_labeled.mat"
MILLIMETRES = 1000.0
"""Levels of a metre in depth maps of 16 bits."""
RELEASED = "craigwu/visual_jigsaw_training_data"


@dataclass(frozen=True)
class Sample:
    """Something that a puzzle is made of: its name, its file, how it is read, and what other file is read with it."""

    name: str
    file: Path
    read: Callable[[], Any]
    beside: Path | None = None


def samples(folder: str | Path, kind: str) -> list[Sample]:
    """All samples of a folder and those within it, in the natural order of their names: pictures, videos, or pictures with
    depths (`scannet`, or the file of NYU Depth V2).

    **Raises:** `InputError` where there are none.
    """
    folder = existing(folder)
    if kind == "depth":
        return nyu_depth(folder) if _has_nyu(folder) else scannet(folder)
    files = files_within(folder, PICTURES if kind == "image" else VIDEOS)
    read = read_picture if kind == "image" else Path  # of a video only the frames that a puzzle shows are read, by the task
    return [Sample(str(file.relative_to(folder)), file, partial(read, file)) for file in files]


def coco(folder: str | Path, split: str = "train2017") -> list[Sample]:
    """Pictures of COCO 2017: `FOLDER/train2017/000000000009.jpg`; raises `MissingDataError` where they are not there."""
    place = Path(folder) / split
    if not place.is_dir():
        raise MissingDataError(f"{place} is not there; get {split}.zip from https://cocodataset.org and unpack it in {folder}.")
    return samples(place, "image")


def llava_video(folder: str | Path) -> list[Sample]:
    """Videos of LLaVA-Video-178K: a folder for each part, such as `0_30_s_academic_v0_1`, with its archives unpacked in it.

    **Raises:** `MissingDataError` where there are none.
    """
    place = Path(folder)
    parts = [part for part in sorted(place.iterdir()) if part.is_dir()] if place.is_dir() else []
    if not any(file.suffix.lower() in VIDEOS for part in parts for file in part.rglob("*")):
        packed = any(file for part in parts for file in part.glob("*.tar.gz"))
        todo = "unpack the archives of each part in its folder" if packed else "get lmms-lab/LLaVA-Video-178K from the Hub"
        raise MissingDataError(f"{place} has no videos; {todo}.")
    return samples(place, "video")


def scannet(folder: str | Path) -> list[Sample]:
    """Pictures with depths of ScanNet, as its exporter writes them: `…/scene0000_00/color/0.jpg` and `…/depth/0.png`, 16 bits
    of millimetres; and of any folder that has `color` and `depth`.

    **Raises:** `InputError` where there are none, `MissingDataError` where they are still packed.
    """
    place = existing(folder)
    if place.is_dir() and not any(place.rglob("color")) and any(place.rglob("*.sens")):
        raise MissingDataError(f"{place} has .sens files; write their colour and depth images out with ScanNet's SensReader.")
    found = []
    for file in files_within(place, PICTURES):
        if file.parent.name != "color":
            continue
        depth = file.parent.parent / "depth" / f"{file.stem}.png"
        if depth.is_file():
            found.append(Sample(str(file.relative_to(place)), file, partial(read_rgbd, file, depth), depth))
    if not found:
        raise InputError(f"{place} has no pictures in folders 'color' with depths of the same name in 'depth'.")
    return found


def read_rgbd(file: Path, depth_file: Path) -> tuple[Any, np.ndarray]:
    """A picture, made as large as its depth map, and that map in metres; 0 where the sensor knew none.

    **Raises:** `DataError` where one cannot be read, is no map of 16 bits, or they have other shapes.
    """
    from PIL import Image

    image = read_picture(file)
    try:
        with Image.open(depth_file) as stored:
            if stored.width * stored.height > MAX_PIXELS:
                raise DataError(f"{depth_file} has {stored.width} x {stored.height} pixels; at most {MAX_PIXELS} are read.")
            if not stored.mode.startswith("I"):
                raise DataError(f"{depth_file} is no depth map: it has the mode {stored.mode}, not 16 bits of grey.")
            depth = np.asarray(stored, np.float64) / MILLIMETRES
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{depth_file} cannot be read ({str(error)[:80]}).") from None
    height, width = depth.shape
    if abs(image.width * height - image.height * width) > 0.02 * image.width * height:
        raise DataError(f"{file} and {depth_file} have other shapes: {image.width} x {image.height} and {width} x {height}.")
    return image.resize((width, height), Image.Resampling.BICUBIC) if image.size != (width, height) else image, depth


def _has_nyu(place: Path) -> bool:
    return place.suffix == ".mat" or (place / NYU_FILE).is_file()


def nyu_depth(place: str | Path) -> list[Sample]:
    """Pictures with depths of NYU Depth V2, the labelled ones: `nyu_depth_v2_labeled.mat`, or the folder that holds it.

    **Raises:** `MissingDataError` where it is not there, `DataError` where it is another file.
    """
    place = Path(place)
    file = place / NYU_FILE if place.is_dir() else place
    if not file.is_file():
        raise MissingDataError(f"{file} is not there; get it from the page of NYU Depth V2 (labelled data set).")
    with _nyu(file) as stored:
        images, depths = stored["images"].shape, stored["depths"].shape
    if len(images) != 4 or len(depths) != 3 or images[1] != 3 or (images[0], *images[2:]) != depths:
        raise DataError(f"{file} is not NYU Depth V2: images {images} and depths {depths} do not fit.")

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        with _nyu(file) as stored:
            return stored["images"][number].transpose(2, 1, 0), stored["depths"][number].T.astype(float)

    return [Sample(f"{file.name}:{number}", file, partial(read, number)) for number in range(images[0])]


def _nyu(file: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("Reading NYU Depth V2", "data") from None
    try:
        stored = h5py.File(file, "r")
        if not {"images", "depths"} <= set(stored):
            raise DataError(f"{file} is not NYU Depth V2: it holds no images and depths.")
    except OSError as error:
        raise DataError(f"{file} is not NYU Depth V2 ({str(error)[:80]}).") from None
    return stored


def released_items(rows: Iterable[dict[str, Any]], media: str | Path, task: JigsawTask, epoch: int = 0) -> Iterator[JigsawItem]:
    """Puzzles of the released training data, `load_dataset(RELEASED)["train"]`, with the question and permutations of `task`.

    A row names its picture or video below `media` and says how it is resized, cropped and cut; points come in the order of
    their depths.

    **Raises:** `DataError` for a row without what is needed, `MissingDataError` where its file is not there.
    """
    for index, row in enumerate(rows):
        source = str(row.get("data_source"))
        entries = row.get("videos") or row.get("images")
        if "jigsaw" not in source or not entries or not isinstance(entries[0], dict) or "path" not in entries[0]:
            raise DataError(f"Row {index} is no puzzle of the released data: data_source and images or videos are wanted.")
        entry = entries[0]
        path = entry["path"][0] if isinstance(entry["path"], list) else entry["path"]
        file = Path(media) / path
        if not file.is_file():
            raise MissingDataError(f"{file} is not there; the data of row {index} ({source}) are wanted below {media}.")
        if row.get("videos"):
            clips = entry.get("jigsaw_clip_num") or len(entry.get("clip_order") or []) or task.clips
            yield replace(task, kind="video", clips=clips).make(file, epoch, index)
            continue
        size, crop = (_pair(entry.get(name)) for name in ("resize_size", "crop_size"))
        image = read_picture(file)
        if "depth_jigsaw" in source:
            points = [Point(int(x), int(y), float(place)) for place, (y, x) in enumerate(entry["points"])]
            item = replace(task, kind="depth", points=len(points)).make((image, points), epoch, index)
            yield replace(item, images=[image.resize(size) if size else image for image in item.images])
            continue
        image = image.resize(size) if size else image
        if crop:
            left, top = (image.width - crop[0]) // 2, (image.height - crop[1]) // 2
            image = image.crop((left, top, left + crop[0], top + crop[1]))
        rows_, columns = entry["jigsaw_config"]
        yield replace(task, kind="image", grid=(rows_, columns)).make(image, epoch, index)


def _pair(value: Any) -> tuple[int, int] | None:
    """Width and height, which may be in a list of one; None where they are not given, or not above 0."""
    if value and isinstance(value[0], list):
        value = value[0]
    return (int(value[0]), int(value[1])) if value and min(value) > 0 else None
