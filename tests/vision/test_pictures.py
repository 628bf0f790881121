"""Pictures as people have them: what is read is what was drawn, and what says no grey is refused in a sentence."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from broadsheet.errors import DataError
from broadsheet.vision.pictures import other_files, picture_files, read_grey
from broadsheet.vision.places import front_end, read_traverse

GREY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
COLOURED = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
LUMINANCE = COLOURED @ [0.299, 0.587, 0.114]
TURNED = {274: 6}


def saved(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    np.testing.assert_array_equal(read_grey(saved(tmp_path / f"a.{suffix}", GREY.astype(np.uint16) * 257), "whole"), GREY)


def test_a_tiff_may_have_white_at_zero(tmp_path):
    path = saved(tmp_path / "a.tif", GREY.astype(np.uint16) * 257, tiffinfo={262: 0})
    np.testing.assert_allclose(read_grey(path), 255.0 - GREY)


@pytest.mark.parametrize(("suffix", "depth"), [("jpg", 8), ("png", 8), ("png", 16), ("tif", 8), ("tif", 16)])
def test_pictures_are_turned_as_they_say(tmp_path, suffix, depth):
    exif = Image.Exif()
    exif.update(TURNED)
    how = {"tiffinfo": TURNED} if suffix == "tif" else {"exif": exif, **({"quality": 100} if suffix == "jpg" else {})}
    path = saved(tmp_path / f"a.{suffix}", GREY if depth == 8 else GREY.astype(np.uint16) * 257, **how)
    np.testing.assert_allclose(read_grey(path), np.rot90(GREY, -1), atol=2)


def test_colours_of_any_kind_become_their_luminance(tmp_path):
    opaque = np.dstack([COLOURED, np.full(GREY.shape, 255, np.uint8)])
    for path in (saved(tmp_path / "a.png", COLOURED), saved(tmp_path / "b.png", opaque),
                 saved(tmp_path / "c.tif", COLOURED, "CMYK")):  # fmt: skip
        np.testing.assert_allclose(read_grey(path), LUMINANCE, atol=1)
    few = COLOURED // 128 * 255
    np.testing.assert_allclose(read_grey(saved(tmp_path / "d.png", few, "P")), few @ [0.299, 0.587, 0.114], atol=1)
    np.testing.assert_array_equal(read_grey(saved(tmp_path / "e.png", GREY > 99)), 255 * (GREY > 99))


def png(width, height, *chunks):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in (*chunks, (b"IDAT", b""), (b"IEND", b"")))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: saved(path.with_suffix(".tif"), GREY.astype(np.float32)), "floating-point"),
        (lambda path: saved(path.with_suffix(".tif"), GREY.astype(np.int32)), "32-bit"),
        (lambda path: saved(path.with_suffix(".tif"), GREY, tiffinfo={339: 2}), "signed"),
        (lambda path: saved(path, np.dstack([COLOURED, GREY])), "transparent"),
        (lambda path: saved(path, COLOURED // 128 * 255, "P", transparency=15), "transparent"),
        (lambda path: saved(path, GREY.astype(np.uint16), transparency=7), "transparent"),
        (lambda path: saved(path, GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)]), "more than one picture"),
        (lambda path: saved(path.with_suffix(".tif"), GREY, save_all=True, append_images=[Image.fromarray(GREY)]), "more than"),
        (lambda path: saved(path.with_suffix(".tif"), COLOURED, "LAB"), "LAB"),
        (lambda path: [path.write_bytes(png(10_000, 6_000)), path][1], "at most 50000000"),
        (lambda path: [path.write_bytes(png(60_000, 60_000)), path][1], "exceeds limit"),
        (lambda path: [path.write_bytes(png(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26))))), path][1], "too large"),
        (lambda path: [path.write_bytes(b"\x89PNG\r\n\x1a\n"), path][1], "no image that can be read"),
        (
            lambda path: [path.with_suffix(".pgm").write_bytes(b"P5 9999 99999999 255\n"), path.with_suffix(".pgm")][1],
            "no image",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, make, said):
    path = make(tmp_path / "here.png")
    with pytest.raises(DataError, match=said) as caught:
        read_grey(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 250 + len(str(path))


@pytest.mark.filterwarnings("error")
def test_large_images_are_refused_without_a_warning(tmp_path):
    (tmp_path / "a.png").write_bytes(png(12_000, 12_000))
    with pytest.raises(DataError, match="12000 x 12000"):
        read_grey(tmp_path / "a.png")


def test_folders_are_read_in_the_order_in_which_people_count(tmp_path):
    order = [
        "frame.png",
        "img0.png",
        "img1.png",
        "img01.png",
        "img2.jpg",
        "img2b.png",
        "img10.png",
        "img10_2.png",
        "img10_11.png",
    ]
    for k, name in enumerate(order):
        saved(tmp_path / name, np.full((4 + k, 5), 20 * k, np.uint8))
    for name in ("Thumbs.db", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more.png").mkdir()
    found = [file.name for file in picture_files(tmp_path)]
    assert sorted(found) == sorted(order)
    numbered = [name for name in found if name not in ("img1.png", "img01.png")]
    assert numbered == [name for name in order if name not in ("img1.png", "img01.png")]
    assert {found[2], found[3]} == {"img1.png", "img01.png"}
    assert other_files(tmp_path) == ["Thumbs.db", "more.png", "notes.txt"]
    assert read_traverse(tmp_path)[1] == found


def test_two_passages_pair_whatever_their_names_and_depth(tmp_path):
    images = np.random.default_rng(3).integers(0, 256, (12, 40, 50)).astype(np.uint8)
    for name, numbered, factor in (("a", "img{:03d}.png", 1), ("b", "img{}.png", 1), ("c", "{}.tif", 257)):
        (tmp_path / name).mkdir()
        for k, image in enumerate(images):
            saved(tmp_path / name / numbered.format(k + 1), image if factor == 1 else image.astype(np.uint16) * factor)
    for name in "abc":
        np.testing.assert_array_equal(read_traverse(tmp_path / name)[0], front_end(images))
