"""Files of pictures, videos and depths, in the layouts of the paper's data; training sets that are written and read again."""

import json
import shutil

import av
import h5py
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from broadsheet.errors import BroadsheetError, DataError, InputError, MissingDataError
from broadsheet.language.jigsaw import training_sets
from broadsheet.language.jigsaw.data import coco, llava_video, nyu_depth, released_items, samples, scannet
from broadsheet.language.jigsaw.generated import moving_digits, photo_crops
from broadsheet.language.jigsaw.permutations import restore
from broadsheet.language.jigsaw.puzzles import JigsawTask, reassemble
from broadsheet.language.jigsaw.rewards import as_trl_reward
from broadsheet.language.jigsaw.scenes import random_scene
from broadsheet.language.jigsaw.sources import frame_times, read_clips, read_frames, read_picture
from broadsheet.language.jigsaw.training_sets import write_training_set

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 9, 9], [90, 90, 90], [250, 250, 250]]], np.uint8)


def write_video(path, frames, rate=5, codec="mpeg4", times=None):
    """Frames (time, height, width) of grey; `times`: in ticks of a hundredth of a second."""
    from fractions import Fraction

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"qscale": "1"} if codec == "mpeg4" else {}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number, frame in enumerate(frames):
            made = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, -1), format="rgb24")
            if times is not None:
                made.pts, made.time_base = int(times[number]), Fraction(1, 100)
            for packet in stream.encode(made):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path


def numbered(count, side=32):
    """Frames that are brighter and brighter, so that each tells its number."""
    return np.broadcast_to((np.arange(count) * 255 // count)[:, None, None], (count, side, side)).astype(np.uint8)


def brightness(frames):
    return [float(np.asarray(frame).mean()) for frame in frames]


def test_pictures_are_read_as_they_are_meant(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "plain.png")
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "plain.png")), COLOURS)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "turned.png")), np.rot90(COLOURS, -1))
    grey = np.array([[0, 65535], [32768, 257]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "wide.png")
    assert np.asarray(read_picture(tmp_path / "wide.png"))[..., 0].tolist() == [[0, 255], [128, 1]]
    Image.fromarray(COLOURS).convert("P").save(tmp_path / "palette.gif")
    assert read_picture(tmp_path / "palette.gif").size == (3, 2)
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "print.jpg")
    assert read_picture(tmp_path / "print.jpg").mode == "RGB"
    Image.fromarray(COLOURS).convert("RGBA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "opaque.png")), COLOURS)


def _glass(path):
    image = Image.fromarray(COLOURS).convert("RGBA")
    image.putalpha(128)
    image.save(path)


@pytest.mark.parametrize(
    ("name", "write", "why"),
    [
        ("glass.png", _glass, "transparent pixels"),
        (
            "moving.gif",
            lambda path: Image.new("RGB", (9, 9)).save(path, save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]),
            "more than one picture",
        ),
        ("float.tif", lambda path: Image.fromarray(np.ones((4, 4), np.float32)).save(path), "black and white"),
        ("signed.tif", lambda path: Image.fromarray(np.ones((4, 4), np.int32)).save(path), "black and white"),
        ("broken.jpg", lambda path: path.write_bytes(b"\xff\xd8\xff no"), "no picture"),
        ("empty.png", lambda path: path.write_bytes(b""), "no picture"),
        ("huge.pgm", lambda path: path.write_bytes(b"P5 12000 9000 255\n"), "at most"),
    ],
)
def test_pictures_that_are_refused(tmp_path, name, write, why):
    write(tmp_path / name)
    with pytest.raises(DataError, match=why) as caught:
        read_picture(tmp_path / name)
    assert name in str(caught.value)


def test_white_may_be_zero(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "film.tif", tiffinfo=tags)
    assert np.asarray(read_picture(tmp_path / "film.tif"))[0, :, 0].tolist() == [255, 0]


def test_a_folders_files_in_natural_order(tmp_path):
    for name in ("img10.png", "img2.png", "b/img1.png", "notes.txt", ".hidden.png", ".cache/img3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(COLOURS).save(tmp_path / name, format="PNG")
    assert [sample.name for sample in samples(tmp_path, "image")] == ["b/img1.png", "img2.png", "img10.png"]
    with pytest.raises(InputError, match="no files that end in"):
        samples(tmp_path, "video")
    with pytest.raises(InputError, match="is a file"):
        samples(tmp_path / "img2.png", "image")
    with pytest.raises(InputError, match="no such file"):
        samples(tmp_path / "none", "image")


def test_a_video_is_cut_uniformly_in_time(tmp_path):
    """A video whose second half is shown twice as fast: its clips have unequal numbers of frames."""
    frames = numbered(90)
    times = np.cumsum(np.concatenate([[0], np.where(np.arange(89) < 30, 40, 20)]))
    file = write_video(tmp_path / "slow.mkv", frames, codec="mpeg4", times=times)
    found = frame_times(file)
    assert len(found) == 91
    np.testing.assert_allclose(found[:-1] - found[0], times / 100, atol=2e-3)
    task = JigsawTask("video", clips=2, frames=6, shortest=10, trim=0.0, rate=100)
    before, after = (brightness(clip) for clip in read_clips(file, task))
    assert len(before) == len(after) == 6
    assert before == sorted(before)
    assert before[-1] < after[0]
    assert 26 <= round(before[-1] / 255 * 90) <= 34  # 12 of 24 s: 30 frames of 0.4 s, and not half of the frames
    item = task.make(file)
    shown = brightness(reassemble(item.pieces, item.target))
    assert shown == sorted(shown)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_frames_are_read_by_number(tmp_path, name):
    """Also where frames are stored in another order than they are shown."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    file = write_video(tmp_path / name, numbered(40), codec=codec)
    assert len(frame_times(file)) == 41
    found = read_frames(file, [39, 0, 20], pixels=100)
    assert sorted(found) == [0, 20, 39]
    assert found[0].size == (10, 10)
    for number, frame in found.items():
        assert abs(np.asarray(frame).mean() - number * 255 // 40) < 7
    with pytest.raises(DataError, match="frame 40 and 0 others"):
        read_frames(file, [1, 40], pixels=100)


def test_moving_gifs_are_videos(tmp_path):
    frames = [Image.fromarray(frame) for frame in numbered(30)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    [sample] = samples(tmp_path, "video")
    task = JigsawTask("video", clips=3, shortest=2, frames=4)
    shown = brightness(reassemble((item := task.make(sample.read())).pieces, item.target))
    assert shown == sorted(shown)


def test_videos_that_are_refused(tmp_path):
    file = write_video(tmp_path / "a.mp4", numbered(20))
    with pytest.raises(InputError, match=r"4\.0 s long; at least 24 s"):
        JigsawTask("video").make(file)
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no video that can be read"):
        JigsawTask("video").make(tmp_path / "b.mp4")
    data = bytearray(file.read_bytes())
    (tmp_path / "c.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError):
        JigsawTask("video", shortest=1, clips=2).make(tmp_path / "c.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        out.mux([*stream.encode(sound), *stream.encode()])
    with pytest.raises(DataError, match="no video in it"):
        frame_times(tmp_path / "sound.mp4")


def test_coco(tmp_path):
    place = tmp_path / "train2017"
    with pytest.raises(MissingDataError, match=r"train2017\.zip"):
        coco(tmp_path)
    place.mkdir()
    Image.fromarray(photo_crops(0, 1)[0]).save(place / "000000000009.jpg")
    [sample] = coco(tmp_path)
    assert sample.name == "000000000009.jpg"
    assert len(JigsawTask().make(sample.read()).pieces) == 9


def test_llava_video(tmp_path):
    part = tmp_path / "30_60_s_academic_v0_1"
    with pytest.raises(MissingDataError, match="lmms-lab"):
        llava_video(tmp_path)
    part.mkdir()
    (part / "30_60_s_academic_v0_1_cap_processed.json").write_text("[]")
    (part / "30_60_s_academic_v0_1_videos_1.tar.gz").write_bytes(b"")
    with pytest.raises(MissingDataError, match="unpack the archives"):
        llava_video(tmp_path)
    (part / "academic_source").mkdir()
    write_video(part / "academic_source" / "split_1.mp4", moving_digits(0, 60, 32))
    [sample] = llava_video(tmp_path)
    assert sample.name == "30_60_s_academic_v0_1/academic_source/split_1.mp4"
    assert len(JigsawTask("video", shortest=10).make(sample.read()).pieces) == 6


def write_scannet(folder, count=2):
    for name in ("color", "depth"):
        (folder / "scene0000_00" / name).mkdir(parents=True)
    for k in range(count):
        image, depth = random_scene(k)
        Image.fromarray(image).resize((640, 480)).save(folder / "scene0000_00" / "color" / f"{k}.jpg")
        depth[:10] = 0  # the sensor knows nothing there
        Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(folder / "scene0000_00" / "depth" / f"{k}.png")


def test_scannet(tmp_path):
    write_scannet(tmp_path)
    first, _ = scannet(tmp_path)
    image, depth = first.read()
    assert image.size == (320, 240)
    np.testing.assert_allclose(depth[10:], random_scene(0).depth[10:], atol=5.1e-4)
    assert all(point.y >= 10 for point in JigsawTask("depth").make((image, depth)).pieces)
    Image.fromarray(COLOURS).save(tmp_path / "scene0000_00" / "depth" / "1.png")
    with pytest.raises(DataError, match="no depth map"):
        scannet(tmp_path)[1].read()
    Image.fromarray(np.ones((50, 320), np.uint16)).save(tmp_path / "scene0000_00" / "depth" / "1.png")
    with pytest.raises(DataError, match="other shapes"):
        scannet(tmp_path)[1].read()
    shutil.rmtree(tmp_path / "scene0000_00" / "depth")
    with pytest.raises(InputError, match="folders 'color'"):
        scannet(tmp_path)
    shutil.rmtree(tmp_path / "scene0000_00")
    (tmp_path / "scene0000_00.sens").write_bytes(b"")
    with pytest.raises(MissingDataError, match="SensReader"):
        scannet(tmp_path)


def test_nyu_depth(tmp_path):
    with pytest.raises(MissingDataError, match="NYU"):
        nyu_depth(tmp_path)
    scenes = [random_scene(seed) for seed in range(2)]
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as stored:  # as MATLAB writes it
        stored["images"] = np.stack([scene.image.transpose(2, 1, 0) for scene in scenes])
        stored["depths"] = np.stack([scene.depth.T for scene in scenes]).astype(np.float32)
    found = samples(tmp_path, "depth")
    assert [sample.name for sample in found] == ["nyu_depth_v2_labeled.mat:0", "nyu_depth_v2_labeled.mat:1"]
    image, depth = found[1].read()
    np.testing.assert_array_equal(image, scenes[1].image)
    np.testing.assert_allclose(depth, scenes[1].depth, rtol=1e-6)
    with h5py.File(tmp_path / "other.mat", "w") as stored:
        stored["depths"] = np.zeros((2, 3, 4))
    with pytest.raises(DataError, match="no images and depths"):
        nyu_depth(tmp_path / "other.mat")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DataError, match="is not NYU"):
        nyu_depth(tmp_path / "old.mat")


def test_the_released_data(tmp_path):
    """Rows as the released parquet files have them, written and read by `datasets`."""
    from datasets import Dataset, load_dataset

    image = photo_crops(0, 1, (120, 160))[0]
    (tmp_path / "train2017").mkdir()
    Image.fromarray(image).save(tmp_path / "train2017" / "1.png")
    write_video(tmp_path / "v.mp4", moving_digits(0, 60, 32))
    prompt = [{"role": "user", "content": "<image>"}]
    kinds = {
        "images": {
            "data_source": "image_jigsaw", "prompt": prompt, "reward_model": {"ground_truth": [1, 2, 3, 4]},
            "images": [{"path": "train2017/1.png", "jigsaw_config": [2, 2], "resize_size": [80, 64], "crop_size": [60, 61]}],
        },
        "depths": {
            "data_source": "depth_jigsaw", "prompt": prompt, "reward_model": {"ground_truth": [1, 2, 3]},
            "images": [{"path": ["train2017/1.png"], "points": [[20, 30], [60, 90], [100, 130]], "resize_size": [-1, -1]}],
        },
        "videos": {
            "data_source": "video_jigsaw", "prompt": prompt, "reward_model": {"ground_truth": [1, 2]},
            "videos": [{"path": "v.mp4", "jigsaw_clip_num": 3, "clip_order": [0, 1, 2], "fps": 2}],
        },
    }  # fmt: skip
    items = {}
    for kind, row in kinds.items():
        Dataset.from_list([row]).to_parquet(tmp_path / f"{kind}.parquet")
        read = load_dataset("parquet", data_files=str(tmp_path / f"{kind}.parquet"), cache_dir=str(tmp_path / "cache"))["train"]
        [items[kind]] = released_items(read, tmp_path, JigsawTask(shortest=10, smallest=28))
    whole = reassemble(items["images"].pieces, items["images"].target, (2, 2))
    wanted = Image.fromarray(image).resize((80, 64)).crop((10, 1, 70, 62))
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(wanted))
    assert [(p.x, p.y) for p in restore(items["depths"].pieces, items["depths"].target)] == [(30, 20), (90, 60), (130, 100)]
    assert len(items["videos"].pieces) == 3
    (tmp_path / "v.mp4").unlink()
    with pytest.raises(MissingDataError, match="row 0"):
        list(released_items([kinds["videos"]], tmp_path, JigsawTask()))
    with pytest.raises(DataError, match="no puzzle"):
        list(released_items([{"text": "a"}], tmp_path, JigsawTask()))


@pytest.fixture
def pictures(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for k, crop in enumerate(photo_crops(0, 7, (100, 101))):
        Image.fromarray(crop).save(place / f"{k}.png")
    Image.new("RGB", (50, 200)).save(place / "small.png")
    (place / "broken.png").write_bytes(b"no")
    return place


def test_a_training_set_is_what_trl_takes(tmp_path, pictures, monkeypatch):
    from datasets import load_from_disk

    monkeypatch.setattr(training_sets, "PART", 3)
    task, parts = JigsawTask(seed=4), tmp_path / "parts"
    parts.mkdir()
    shares = []
    made = write_training_set(
        tmp_path / "set", samples(pictures, "image"), task, parts, epochs=2, report=lambda share, live: shares.append(share)
    )
    assert (made.samples, made.puzzles) == (7, 14)
    assert {why: list(names) for why, names in made.skipped.items()} == {
        "too small": ["small.png"],
        "unreadable": ["broken.png"],
    }
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    data = load_from_disk(str(tmp_path / "set"))
    assert data.column_names == ["prompt", "images", "target", "sample"]
    for row in data:
        whole = np.asarray(reassemble(row["images"], row["target"], (3, 3)))
        np.testing.assert_array_equal(whole, np.asarray(Image.open(pictures / row["sample"])))
        [message] = row["prompt"]
        places = [part for part in message["content"] if part["type"] == "image"]
        assert len(places) == len(row["images"]) == 9
        assert not any("image" in part for part in places)  # else GRPOTrainer would not fill them
    assert data[0]["target"] != data[1]["target"]  # two epochs of the first picture
    said = [f"<think></think><answer>{','.join(map(str, row['target']))}</answer>" for row in data]
    assert as_trl_reward(task)(said, data["target"]) == pytest.approx([1.2] * 14)


def test_an_interrupted_training_set_goes_on(tmp_path, pictures, monkeypatch):
    from datasets import load_from_disk

    monkeypatch.setattr(training_sets, "PART", 2)
    found, task = samples(pictures, "image"), JigsawTask()
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    write_training_set(tmp_path / "a", found, task, tmp_path / "whole")
    read = []

    def stop(share, live):
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_training_set(tmp_path / "b", found, task, tmp_path / "broken", report=stop)
    assert not (tmp_path / "b").exists()
    spied = [type(one)(one.name, one.file, lambda one=one: (read.append(one.name), one.read())[1]) for one in found]
    write_training_set(tmp_path / "b", spied, task, tmp_path / "broken")
    assert read == [sample.name for sample in found][4:]
    first, second = (load_from_disk(str(tmp_path / name)) for name in "ab")
    assert first["target"][:] == second["target"][:]
    assert first["sample"][:] == second["sample"][:]


def test_a_limit_counts_what_makes_puzzles(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(training_sets, "PART", 2)
    (tmp_path / "parts").mkdir()
    made = write_training_set(tmp_path / "set", samples(pictures, "image"), JigsawTask(), tmp_path / "parts", limit=3)
    assert (made.samples, made.puzzles) == (3, 3)


def test_where_nothing_makes_a_puzzle(tmp_path, pictures):
    (tmp_path / "parts").mkdir()
    with pytest.raises(BroadsheetError, match=r"None of 9 samples .* 0\.png, for one, is too small"):
        write_training_set(tmp_path / "set", samples(pictures, "image"), JigsawTask(smallest=500), tmp_path / "parts")
    assert not (tmp_path / "set").exists()
    assert json.loads((tmp_path / "parts" / "0-32.json").read_text())["puzzles"] == 0


def test_a_turned_video_is_turned_back(tmp_path):
    """As phones write it: the picture lies, and the file's matrix says that it is turned by 90 degrees clockwise."""
    frames = np.zeros((20, 32, 48), np.uint8)
    frames[:, :16] = 255  # white above
    file = write_video(tmp_path / "a.mp4", frames)
    data = file.read_bytes()
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # behind version, times, number, duration, layer and volume
    assert int.from_bytes(data[at : at + 4], "big") == 0x10000
    turned = b"".join(value.to_bytes(4, "big", signed=True) for value in (0, 0x10000, 0, -0x10000, 0, 0, 32 << 16, 0, 1 << 30))
    (tmp_path / "turned.mp4").write_bytes(data[:at] + turned + data[at + 36 :])
    frame = read_frames(tmp_path / "turned.mp4", [3], pixels=10**6)[3]
    assert frame.size == (32, 48)
    left, right = np.asarray(frame)[:, :12].mean(), np.asarray(frame)[:, 20:].mean()
    assert left < 20
    assert right > 235
