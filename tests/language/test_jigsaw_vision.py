"""The tiny model that sees, its processor, and trainings on puzzles."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from broadsheet.errors import InputError, MissingDataError
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.jigsaw import vision_models
from broadsheet.language.jigsaw.depth_puzzles import Constraints, Point
from broadsheet.language.jigsaw.learners import binary, random_reward, recording
from broadsheet.language.jigsaw.probes import digits_in_quadrants, linear_probe, tower_features
from broadsheet.language.jigsaw.puzzle_checks import pairs_in_order, violations
from broadsheet.language.jigsaw.puzzle_sets import PuzzleSet
from broadsheet.language.jigsaw.puzzles import JigsawItem
from broadsheet.language.jigsaw.rewards import as_trl_reward, chance_accuracy
from broadsheet.language.jigsaw.tiny_puzzles import tiny_puzzles, tiny_task
from broadsheet.language.jigsaw.training import blinded, demonstrations, judged, permutation_in, post_train, solve
from broadsheet.language.jigsaw.vision_models import (
    IMAGE,
    SmallProcessor,
    answers,
    inputs,
    load_vision,
    vision_model,
    vision_processor,
    vision_tokens,
    written,
)
from broadsheet.language.post_training.settings import RLSettings
from broadsheet.language.post_training.trainers import Run

TASK = tiny_task("strips")


@pytest.fixture(scope="module")
def puzzles():
    return tiny_puzzles("strips", 8)


@pytest.fixture(scope="module")
def processor():
    return vision_processor()


def picture(seed, height=28, width=28):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def given(processor, puzzles):
    return inputs(processor, [puzzle.prompt for puzzle in puzzles], [puzzle.images for puzzle in puzzles])


def test_the_model_has_the_published_shape_and_is_drawn_from_its_seed():
    model = vision_model(3)
    assert sum(weights.numel() for weights in model.parameters()) == 159_840
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), vision_model(3).parameters(), strict=True))
    assert not torch.equal(model.lm_head.weight, vision_model(4).lm_head.weight)


def test_patches_are_those_of_a_plain_loop(processor):
    shown = picture(0, 56, 28)
    found = processor.image_processor(shown, return_tensors="np")
    plain = (np.asarray(shown) / 255 - processor.image_processor.image_mean) / processor.image_processor.image_std
    patches = []
    for merged in range(2):  # 28 x 28 pixels each
        for row in range(2):
            for column in range(2):
                top, left = 28 * merged + 14 * row, 14 * column
                patch = plain[top : top + 14, left : left + 14].transpose(2, 0, 1)
                patches.append(np.repeat(patch[:, None], 2, axis=1).ravel())
    assert np.allclose(found["pixel_values"], patches, atol=1e-5)
    assert found["image_grid_thw"].tolist() == [[1, 4, 2]]


def test_remembered_pictures_are_the_same_and_large_ones_are_forgotten(processor):
    shown = [picture(1), picture(2, 56, 84), picture(1)]
    direct = processor.image_processor(shown, return_tensors="pt")
    for _ in range(2):
        found = processor(images=[shown], text=[f"{IMAGE} " * 3], return_tensors="pt")
        assert torch.equal(found["pixel_values"], direct["pixel_values"])
        assert torch.equal(found["image_grid_thw"], direct["image_grid_thw"])
        assert (found["input_ids"] == processor.image_token_id).sum() == 1 + 6 + 1
        assert torch.equal(found["mm_token_type_ids"], (found["input_ids"] == processor.image_token_id).long())
    assert len(processor._seen) >= 2
    processor._seen.forget(most=0)
    assert not processor._seen


def test_model_and_processor_are_saved_and_loaded(tmp_path, processor, puzzles):
    model = vision_model(0)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, words = load_vision(str(tmp_path))
    assert type(words) is SmallProcessor
    one, two = given(processor, puzzles), given(words, puzzles)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with torch.no_grad():
        assert torch.equal(model(**one).logits, loaded(**two).logits)
    assert set(json.loads((tmp_path / "processor_config.json").read_text())) == {"image_processor", "processor_class"}


def test_a_template_in_a_file_of_its_own_is_read(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert SmallProcessor.from_pretrained(str(tmp_path)).chat_template == "{{ messages }}"


def test_what_is_no_model_that_sees_is_refused(tmp_path):
    character_model(0).save_pretrained(tmp_path / "chat")
    character_tokenizer().save_pretrained(tmp_path / "chat")
    with pytest.raises(InputError, match="no model that sees"):
        load_vision(str(tmp_path / "chat"))
    with pytest.raises(MissingDataError, match="no such folder"):
        load_vision(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no device 'none'"):
        load_vision(str(tmp_path / "chat"), device="none")
    with pytest.raises(InputError, match="no vision tower"):
        tower_features(character_model(0), None, [picture(0)])


def test_the_order_of_the_tiles_reaches_the_answer(processor, puzzles):
    model = vision_model(0)
    turned = [JigsawItem(p.pieces, p.images[::-1], p.prompt, p.target, p.order) for p in puzzles]
    with torch.no_grad():
        assert not torch.allclose(
            model(**given(processor, puzzles)).logits[:, -1], model(**given(processor, turned)).logits[:, -1]
        )


def test_no_token_of_pictures_is_ever_drawn(processor, puzzles):
    model = vision_model(0)
    assert vision_tokens(model) == [3, 4, 5, 6]
    prompts, images = [puzzle.prompt for puzzle in puzzles], [puzzle.images for puzzle in puzzles]
    drawn = answers(model, processor, prompts, images, tokens=12, temperature=1e4, seed=1)  # any token, as likely as others
    assert drawn == answers(model, processor, prompts, images, tokens=12, temperature=1e4, seed=1)
    assert drawn != answers(model, processor, prompts, images, tokens=12, temperature=1e4, seed=2)
    likeliest = answers(model, processor, prompts, images, tokens=3, temperature=0.0)
    with torch.no_grad():
        logits = model(**given(processor, puzzles)).logits[:, -1]
    logits[:, vision_tokens(model)] = -torch.inf
    first = processor.tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())
    assert all(text.startswith(token) or token.startswith("<|") for text, token in zip(likeliest, first, strict=True))


def test_an_adapter_is_trained_on_puzzles_and_merged(processor, puzzles):
    settings = RLSettings(steps=1, batch=8, group=4, answer_tokens=11, rate=1e-2, beta=0.0, adapter=2, log_every=1)
    run = Run()

    def longest(completions, **columns):
        return [float(len(str(answer))) for answer in completions]

    model = post_train(vision_model(0), processor, TASK, puzzles, settings, run, longest)
    before = vision_model(0)
    changed = [name for name, weights in model.named_parameters() if not torch.equal(weights, before.get_parameter(name))]
    assert type(model) is type(before)
    assert any("visual" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert run.records[0]["reward"] > 0


def test_a_puzzle_longer_than_the_context_is_refused_before_training(processor, puzzles, coco, monkeypatch, tmp_path):
    model, settings = vision_model(0), RLSettings(steps=1, batch=4, group=2, answer_tokens=500, beta=0.0)
    tokens = given(processor, puzzles)["input_ids"].shape[1]
    with pytest.raises(InputError, match=f"Puzzle 1 has {tokens} tokens; with an answer of 500 .* context of 512"):
        post_train(model, processor, TASK, puzzles, settings)
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    there = PuzzleSet("coco", coco)
    rows = there.training(1, held_out=0)
    tokens = inputs(processor, rows["prompt"][:1], rows["images"][:1])["input_ids"].shape[1]
    with pytest.raises(InputError, match=f"Puzzle 1 has {tokens} tokens"):
        post_train(model, processor, there.task, rows, settings)


def test_demonstrations_are_right_as_often_as_they_should_be(puzzles):
    many = tiny_puzzles("strips", 400)
    targets = [puzzle.target for puzzle in many]

    def texts(rows):
        return [row["completion"][0]["content"][0]["text"] for row in rows]

    assert judged(texts(demonstrations(many)), targets, TASK)[0].all()
    assert judged(texts(demonstrations(many, right=0.4, seed=1)), targets, TASK)[0].mean() == pytest.approx(0.5, abs=0.08)
    assert written([2, 1, 3]) == "<think> </think> <answer> 2 , 1 , 3 </answer>"


def test_texts_are_judged_by_hand():
    texts = [written([2, 1, 3]), written([1, 2, 3]), written([2, 2, 3]), "2 , 1 , 3", written([2, 1])]
    exact, right = judged(texts, [[2, 1, 3]] * 5, TASK)
    assert exact.tolist() == [1, 0, 0, 0, 0]
    assert right.tolist() == [[1, 1, 1], [0, 0, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert permutation_in(texts[0], TASK) == [2, 1, 3]
    assert permutation_in(texts[2], TASK) is None


def test_solve_gives_what_the_model_says(processor, puzzles):
    found = solve(vision_model(0), processor, puzzles, TASK, tokens=4)
    assert (found.exact, found.pieces, found.reward) == (0.0, 0.0, 0.0)
    assert len(found.texts) == len(puzzles)


def test_blind_puzzles_show_grey_of_the_same_size(puzzles):
    blind = blinded(puzzles)
    assert {(image.size, image.getextrema()) for puzzle in blind for image in puzzle.images} == {((28, 28), ((128, 128),) * 3)}
    assert [puzzle.target for puzzle in blind] == [puzzle.target for puzzle in puzzles]


def test_a_random_reward_pays_what_guessing_does_and_a_binary_one_nothing_in_part():
    right = [written([2, 1, 3])] * 20_000
    targets = [[2, 1, 3]] * len(right)
    drawn = random_reward(TASK, 0)(completions=right, target=targets)
    assert np.mean(drawn) == pytest.approx(0.2 + chance_accuracy(3), abs=0.01)
    assert as_trl_reward(binary(TASK))(completions=[written([1, 2, 3])], target=[[2, 1, 3]]) == [0.2]


def test_rewards_are_recorded_as_they_are_given():
    records = []
    reward = recording(TASK, as_trl_reward(TASK), records)
    said = [[{"role": "assistant", "content": written(order)}] for order in ([2, 1, 3], [2, 3, 1])]
    values = reward(prompts=["", ""], completions=said, target=[[2, 1, 3]] * 2)
    assert values == pytest.approx([1.2, 0.2 + 0.2 / 3])
    assert records == [pytest.approx((np.mean(values), 0.5, (3 + 1) / 6))]


def test_a_probe_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    assert linear_probe(np.eye(4)[labels] + rng.normal(0, 0.05, (400, 4)), labels) == 1.0
    assert linear_probe(rng.normal(size=(400, 6)), labels) == pytest.approx(0.25, abs=0.1)
    with pytest.raises(InputError, match="too few"):
        linear_probe(np.zeros((9, 2)), np.zeros(9, int))


def test_tower_features_are_what_the_language_model_is_given(processor):
    model, shown = vision_model(0), [picture(k, 56, 56) for k in range(3)]
    whole = tower_features(model, processor, shown, "all", batch=2)
    given = processor.image_processor(shown, return_tensors="pt")
    with torch.no_grad():
        tokens = model.model.visual(given["pixel_values"], given["image_grid_thw"]).pooler_output
    assert np.allclose(whole, tokens.reshape(3, -1).numpy(), atol=1e-6)
    assert np.allclose(tower_features(model, processor, shown), tokens.reshape(3, 4, -1).mean(1).numpy(), atol=1e-6)
    with pytest.raises(InputError, match="several sizes"):
        tower_features(model, processor, [picture(0), picture(0, 56, 56)], "all")
    with pytest.raises(InputError, match="mean or all"):
        tower_features(model, processor, shown, "some")


def test_digits_lie_in_their_quadrants():
    pictures, quadrants = digits_in_quadrants(0, 200)
    bright = pictures.astype(float).mean(-1)
    bright -= bright.mean((1, 2), keepdims=True)
    peaks = [
        [(np.clip(part, 0, None) ** 4).sum() for half in np.split(one, 2) for part in np.split(half, 2, 1)] for one in bright
    ]
    assert (np.argmax(peaks, 1) == quadrants).mean() > 0.9


def test_pairs_of_points_and_their_constraints():
    points = [Point(0, 0, 3.0), Point(50, 0, 1.0), Point(0, 50, 2.0)]
    puzzle = JigsawItem(points, [], [], [2, 3, 1], [2, 0, 1])
    gaps, right = pairs_in_order([puzzle], [[2, 3, 1]])
    assert sorted(gaps) == [1, 1, 2]
    assert right.all()
    assert pairs_in_order([puzzle], [[1, 3, 2]])[1].sum() == 0
    assert pairs_in_order([puzzle], [[2, 1, 3]])[1].sum() == 2
    assert pairs_in_order([puzzle], [[]])[1].sum() == 0
    assert pairs_in_order([puzzle], [[2, 3, 3]])[1].sum() == 1
    assert pairs_in_order([puzzle], [[2, 1, 2, 3]])[1].sum() == 2
    assert violations(points, Constraints(apart=40, step=0.5)) == 0
    assert violations(points, Constraints(apart=60, step=0.5)) == 2
    assert violations(points, Constraints(apart=40, step=1.0, farthest=2.5)) == 3


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "train2017").mkdir()
    for number in range(6):
        picture(number, 90 + number, 120).save(tmp_path / "train2017" / f"{number:012d}.jpg")
    picture(9, 20, 20).save(tmp_path / "train2017" / "000000000009.jpg")
    return str(tmp_path)


def test_puzzles_of_the_papers_data_are_written_once_and_split(coco, monkeypatch, tmp_path):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    there = PuzzleSet("coco", coco, grid=(2, 2), seed=1)
    rows = there.training(7, held_out=3)
    tested = there.held_out(3)
    assert len(rows) >= 6
    assert all(len(row["images"]) == 4 for row in rows)
    assert 2 <= len(tested) <= 3
    colours = {np.asarray(puzzle.images[puzzle.target[0] - 1]).tobytes() for puzzle in tested}
    assert not colours & {np.asarray(row["images"][row["target"][0] - 1]).tobytes() for row in rows}
    shown = blinded(rows)
    assert shown[0]["images"][0].getextrema() == ((128, 128),) * 3
    assert shown[0]["target"] == rows[0]["target"]
    taught = demonstrations(rows)
    assert judged([row["completion"][0]["content"][0]["text"] for row in taught], rows["target"], there.task)[0].all()
    assert "images" in taught.column_names
    assert "target" not in taught.column_names


def test_data_that_are_not_there_are_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"COCO 2017.*--data"):
        PuzzleSet("coco")
    with pytest.raises(MissingDataError, match="train2017"):
        PuzzleSet("coco", str(tmp_path)).held_out(1)
    with pytest.raises(InputError, match="no puzzles 'cats'"):
        PuzzleSet("cats")


def test_a_model_of_another_kind_needs_torchvision(tmp_path, monkeypatch):
    model = vision_model(0)
    model.save_pretrained(tmp_path)
    vision_processor().save_pretrained(tmp_path)
    monkeypatch.setattr(vision_models, "LIKE_QWEN", ())
    with pytest.raises(InputError, match="needs torchvision"):
        load_vision(str(tmp_path))
