"""Puzzles of pictures, videos and depths: against the official code's traces, whole again bit for bit, and what null models see."""

import hashlib
import json
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.depth_puzzles import Constraints, Point, draw_discs, lower_is_nearer, sample_points
from broadsheet.language.jigsaw.generated import colour_ramps, moving_digits, photo_crops
from broadsheet.language.jigsaw.image_puzzles import cut, join
from broadsheet.language.jigsaw.permutations import dice, order_of, places_of
from broadsheet.language.jigsaw.puzzles import JigsawTask, Wording, reassemble
from broadsheet.language.jigsaw.scenes import Box, Sphere, random_scene, render
from broadsheet.language.jigsaw.seams import answer_by_size, arrange, solve_clips, solve_tiles
from broadsheet.language.jigsaw.unfit import UnfitError
from broadsheet.language.jigsaw.video_puzzles import chosen_frames, clip_ranges, released_ranges, within

REFERENCES = Path(__file__).parents[1] / "references" / "jigsaw"
OFFICIAL = json.loads((REFERENCES / "puzzles.json").read_text())


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("case", OFFICIAL["puzzles"], ids=lambda case: f"{case['width']}x{case['height']}")
def test_tiles_and_answers_are_the_official_data_sets(case):
    image, grid = noise(case["height"], case["width"], case["seed"]), tuple(case["grid"])
    tiles = cut(Image.fromarray(image), grid)
    shown = [tiles[place] for place in order_of(case["target"])]
    assert [hashlib.sha256(np.asarray(tile).tobytes()).hexdigest()[:16] for tile in shown] == case["tiles"]
    np.testing.assert_array_equal(np.asarray(reassemble(shown, case["target"], grid)), image)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(2, 4), st.integers(20, 60), st.integers(20, 60), st.integers(0, 1000))
def test_the_target_gives_the_picture_back(rows, columns, height, width, index):
    image = noise(height, width)
    item = JigsawTask(grid=(rows, columns), smallest=1).make(image, epoch=1, index=index)
    np.testing.assert_array_equal(np.asarray(reassemble(item.pieces, item.target, (rows, columns))), image)
    wrong = places_of(item.order)
    if wrong != item.target:  # of the inverse, a picture of the same size
        other = np.asarray(reassemble(item.pieces, wrong, (rows, columns)))
        assert other.shape == image.shape
        assert (other != image).any()


@pytest.mark.parametrize("index", range(5))
def test_the_target_gives_the_video_and_the_points_back(index):
    video = np.random.default_rng(0).integers(0, 256, (60, 8, 10, 3)).astype(np.uint8)
    item = JigsawTask("video", trim=0.0, frames=100).make(video, index=index)
    np.testing.assert_array_equal(np.stack(reassemble(item.pieces, item.target)), video)
    assert len(item.images) == 60
    scene = random_scene(1)
    item = JigsawTask("depth").make(scene, index=index)
    depths = [point.depth for point in reassemble(item.pieces, item.target)]
    assert depths == sorted(depths)
    assert [scene.depth[point.y, point.x] for point in item.pieces] == [point.depth for point in item.pieces]
    again = JigsawTask("depth").make(scene, epoch=1, index=index)  # new labels for the same points
    assert sorted(again.pieces) == sorted(item.pieces)
    assert again.target != item.target


def test_the_prompt_has_a_place_for_each_picture():
    for task, sample, places in (
        (JigsawTask(grid=(2, 2)), noise(90, 90), 4),
        (JigsawTask("video", clips=3, frames=4), np.stack([noise(20, 20)] * 30), 12),
        (JigsawTask("depth"), random_scene(0), 1),
    ):
        item = task.make(sample)
        parts = [part for message in item.prompt for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(item.images) == places
        assert all(part.get("text") != "" for part in parts)
        text = "".join(part.get("text", "") for part in parts)
        assert "<answer>" in text
        assert set(item.row) == {"prompt", "images", "target"}
    own = JigsawTask(grid=(1, 2), wording=Wording("", "Tile {number} :", "order {count} {example}"))
    said = [part.get("text") for part in own.make(noise(90, 90)).prompt[0]["content"]]
    assert said == ["Tile 1 :", None, "Tile 2 :", None, "order 2 2, 1"]
    assert r"\boxed{}" in str(JigsawTask(variant="released").make(noise(90, 90)).prompt).replace("\\\\", "\\")


def test_what_makes_no_puzzle_is_refused():
    with pytest.raises(UnfitError, match="side below 84"):
        JigsawTask().make(noise(83, 200))
    with pytest.raises(UnfitError, match="not cut"):
        JigsawTask(grid=(1, 5), smallest=1).make(noise(3, 4))
    with pytest.raises(UnfitError, match="none left in clip 1"):
        JigsawTask("video").make(np.zeros((10, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="depths of shape"):
        JigsawTask("depth").make((noise(90, 90), np.ones((4, 4))))
    with pytest.raises(InputError, match="2 points were given"):
        JigsawTask("depth").make((noise(90, 90), [Point(1, 1, 0), Point(2, 2, 1)]))
    with pytest.raises(InputError, match="no picture"):
        JigsawTask().make(np.zeros((90, 90)))
    for wrong in ({"kind": "sound"}, {"grid": (1, 1)}, {"grid": (0, 3)}, {"kind": "video", "clips": 1}, {"seed": -1}):
        with pytest.raises(InputError):
            JigsawTask(**wrong)
    with pytest.raises(InputError, match="no order of 3 pieces"):
        reassemble([1, 2, 3], [1, 1, 2])
    with pytest.raises(InputError, match="no grid"):
        join(cut(Image.fromarray(noise(9, 9)), (3, 3)), (2, 2))


def test_clips_are_the_official_ones():
    for case in OFFICIAL["ranges"]:
        wanted = case["ranges"] and [tuple(one) for one in case["ranges"]]
        if wanted is None:
            with pytest.raises(UnfitError):
                released_ranges(case["frames"], case["clips"], case["trim"])
        else:
            assert released_ranges(case["frames"], case["clips"], case["trim"]) == wanted
            if case["clips"] > 1 and not case["frames"] % (case["clips"] * 100):  # where nothing is rounded both are the same
                assert clip_ranges(range(case["frames"] + 1), case["clips"], case["trim"]) == wanted


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 8), st.integers(100, 500), st.sampled_from([0.0, 0.05, 0.1, 0.3]), st.integers(0, 100))
def test_clips_are_uniform_in_time(clips, frames, trim, seed):
    """At any rate: frames that are kept lie wholly within their clip, and the next ones on both sides do not."""
    steps = np.random.default_rng(seed).uniform(0.01, 0.2, frames) if seed else np.full(frames, 0.04)
    times = np.concatenate([[7.0], 7.0 + np.cumsum(steps)])
    length = (times[-1] - times[0]) / clips
    for k, (start, end) in enumerate(clip_ranges(times, clips, trim)):
        low, high = times[0] + (k + trim) * length, times[0] + (k + 1 - trim) * length
        assert times[start] >= low - 1e-6
        assert times[end] <= high + 1e-6
        assert start == 0 or times[start - 1] < low + 1e-6
        assert end == frames or times[end + 1] > high - 1e-6


def test_frames_of_a_clip():
    assert chosen_frames([(0, 10), (10, 25)], 4) == [[0, 3, 6, 9], [10, 15, 19, 24]]
    assert [len(clip) for clip in chosen_frames([(0, 10), (10, 13)], 12)] == [3, 3]  # as many, so that the number says nothing
    assert [len(clip) for clip in chosen_frames([(0, 100)] * 2, 12, seconds=2.0, rate=2.0)] == [4, 4]
    assert within(Image.new("RGB", (400, 300)), 128 * 28 * 28).size == (365, 274)
    assert within(Image.new("RGB", (40, 30)), 128 * 28 * 28).size == (40, 30)


def test_discs_are_the_official_ones_but_for_the_font():
    with np.load(REFERENCES / "depth.npz") as stored:
        points, target, official = (stored[name] for name in ("points", "target", "image"))
    places = [Point(int(x), int(y), float(k)) for k, (y, x) in enumerate(points)]
    shown = [places[place] for place in order_of(target.tolist())]
    ours = np.asarray(draw_discs(Image.fromarray(np.full((120, 160, 3), 100, np.uint8)), shown)).astype(int)
    y, x = np.indices(ours.shape[:2])
    for point in shown:
        number = (abs(x - point.x) <= 9) & (abs(y - point.y) <= 11)
        ours[number] = official[number]
    np.testing.assert_array_equal(ours, official)


def test_points_keep_the_constraints():
    for seed in (1, 2, 5):
        depth = random_scene(seed).depth
        depth[:, :5] = np.nan
        rules = Constraints()
        try:
            points = sample_points(depth, 6, dice(seed))
        except UnfitError as error:
            assert "draws" in str(error)
            continue
        x, y, z = np.array(points).T
        apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(6)
        assert apart.min() >= rules.apart
        assert (np.diff(z) > rules.step).all()
        assert z.min() >= rules.nearest
        assert z.max() <= rules.farthest
        assert min(x.min(), y.min(), 319 - x.max(), 239 - y.max()) >= rules.margin
    drawn = {tuple(sample_points(random_scene(1).depth, 6, dice(k))) for k in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("depth", "why"),
    [
        (np.ones((200, 200)), "only 1 values"),
        (np.linspace(1, 2.0, 200 * 200).reshape(200, 200), "only 5 values"),  # 1.2 is not more than 0.2 from 1.0
        (np.full((200, 200), np.nan), "only 0 values"),
        (np.full((200, 200), 11.0), "only 0 values"),
        (np.linspace(0.0, 0.09, 40000).reshape(200, 200), "only 0 values"),
        (np.linspace(1, 9, 20 * 20).reshape(20, 20), "only 0 values"),
        (np.linspace(1, 9, 60 * 60).reshape(60, 60), "were found"),
    ],
)
def test_pictures_without_such_points_are_refused(depth, why):
    with pytest.raises(UnfitError, match=why) as caught:
        sample_points(depth, 6)
    assert str(caught.value).count(". ") == 0


def test_depths_of_a_scene_are_exact():
    """Against marching along each ray in small steps until it is inside something."""
    sphere, box, size = Sphere((0.3, 0.2, 4.0), 0.7), Box((-0.8, 0.5, 3.0), (0.4, 0.5, 0.3)), (24, 32)
    depth = render([sphere, box], size, floor=1.0).depth
    x = ((np.arange(32) + 0.5) / 32 - 0.5)[None] * np.ones((24, 1))
    y = ((np.arange(24) + 0.5 - 12) / 32)[:, None] * np.ones((1, 32))
    found = np.full(size, 12.0)
    for z in np.arange(12.0, 0.5, -0.002):
        at = np.stack([x * z, y * z, np.full(size, z)], -1)
        inside = ((at - sphere.centre) ** 2).sum(-1) < sphere.radius**2
        inside |= (np.abs(at - box.centre) < box.half).all(-1)
        inside |= at[..., 1] > 1.0
        found[inside] = z
    assert np.abs(found - depth).max() < 0.004
    assert len(np.unique(depth)) > 100


def test_generated_data():
    ramps = colour_ramps(0, 5, noise=0)
    assert ramps.shape == (5, 28, 84, 3)
    assert (np.diff(ramps[..., 0].astype(int), axis=2) >= 0).all()
    assert (np.diff(ramps[..., 2].astype(int), axis=2) <= 0).all()
    assert (ramps[..., 1] == 120).all()
    assert (np.diff(colour_ramps(0, 2, 56, 56, 0, both=True)[..., 1].astype(int), axis=1) >= 0).all()
    video = moving_digits(3)
    assert video.shape == (72, 56, 56)
    assert video.max() > 200
    np.testing.assert_array_equal(moving_digits(3), video)
    with pytest.raises(InputError, match="too large"):
        photo_crops(0, 1, (500, 500))


@pytest.mark.parametrize(
    ("images", "grid"),
    [
        (colour_ramps(0, 20), (1, 3)),
        (colour_ramps(1, 10, 84, 84, both=True), (3, 3)),
        (photo_crops(0, 20, (168, 168)), (3, 3)),
        (photo_crops(1, 10, (85, 169)), (3, 3)),
        (photo_crops(2, 3, (224, 224)), (4, 4)),
    ],
    ids=["strips", "ramps", "photographs", "uneven", "sixteen"],
)
def test_seams_alone_solve_pictures(images, grid):
    task = JigsawTask(grid=grid, smallest=28)
    items = [task.make(image, index=k) for k, image in enumerate(images)]
    assert np.mean([solve_tiles(item.pieces, grid) == item.target for item in items]) >= 0.9


def test_borders_alone_solve_videos_and_low_points_are_often_near():
    task = JigsawTask("video")
    items = [task.make(moving_digits(seed), index=seed) for seed in range(6)]
    assert np.mean([solve_clips(item.pieces) == item.target for item in items]) >= 0.8
    points = [Point(0, 10, 9.0), Point(0, 90, 1.0), Point(0, 50, 4.0)]
    assert lower_is_nearer(points) == [2, 3, 1]


def test_sizes_of_tiles_tell_their_places():
    """One pixel too many: with unequal tiles a ninth of the guesses is right by sizes alone, with even ones none."""
    images = [noise(100, 100, seed) for seed in range(40)]
    right = {}
    for even in (False, True):
        items = [JigsawTask(even=even).make(image, index=k) for k, image in enumerate(images)]
        places = [answer_by_size(item.pieces, (3, 3), dice(k)) for k, item in enumerate(items)]
        right[even] = np.mean([np.equal(place, item.target).mean() for place, item in zip(places, items, strict=True)])
    assert right[False] > 0.35  # classes of 1, 2, 2 and 4 tiles: 4 / 9
    assert right[True] < 0.2


def test_the_search_is_exact():
    """Against all arrangements."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        right, below, fits = rng.random((6, 6)), rng.random((6, 6)), rng.random((6, 6))

        def cost(order, right=right, below=below, fits=fits):
            rows = [order[:3], order[3:]]
            across = sum(right[a, b] for row in rows for a, b in pairwise(row))
            return across + sum(below[a, b] for a, b in zip(*rows, strict=True)) + sum(fits[a, k] for k, a in enumerate(order))

        best = min(permutations(range(6)), key=cost)
        assert arrange(right, below, (2, 3), fits) == [piece + 1 for piece in best]
        assert cost([piece - 1 for piece in arrange(right, below, (2, 3), fits, states=8)]) <= 1.5 * cost(best)
    with pytest.raises(InputError, match="do not fill"):
        arrange(np.zeros((5, 5)), np.zeros((5, 5)), (2, 3))
