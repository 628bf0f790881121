"""Visual Jigsaw: what its experiments count, and its real size's path on small files in the real formats."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image
from test_smoke import Quiet

from broadsheet.errors import MissingDataError
from broadsheet.language.jigsaw.rewards import jigsaw_reward
from broadsheet.language.jigsaw.vision_models import vision_model, vision_processor, written
from broadsheet.papers import visual_jigsaw
from broadsheet.papers.visual_jigsaw import paper

SMALL = {
    "device": "cpu", "precision": "float32", "steps": 1, "prompts": 2, "group": 2, "at_once": 4, "tokens": 4, "train": 3,
    "test": 2, "probes": 64,
}  # fmt: skip


def test_answers_are_counted_as_the_reward_counts_them():
    rng = np.random.default_rng(0)
    answers = np.concatenate([np.argsort(rng.random((200, 4)), 1), rng.integers(4, size=(200, 4))])
    by_text = [jigsaw_reward(written((answer + 1).tolist()), [1, 2, 3, 4]).accuracy for answer in answers]
    assert visual_jigsaw._accuracy(answers) == pytest.approx(by_text)


def test_agreement_is_the_mean_correlation_in_groups():
    rng = np.random.default_rng(1)
    rewards, right = rng.random((20, 16)), rng.integers(0, 4, (20, 16))
    by_numpy = np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(rewards, right, strict=True)])
    assert visual_jigsaw._agreement(rewards, right) == pytest.approx(by_numpy)
    assert visual_jigsaw._agreement(np.ones((3, 16)), right[:3]) == 0


@pytest.fixture
def coco(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(2)
    (tmp_path / "train2017").mkdir()
    for number in range(5):
        picture = Image.fromarray(rng.integers(0, 256, (84, 87, 3), np.uint8))
        picture.save(tmp_path / "train2017" / f"{number:012d}.jpg")
    model = tmp_path / "model"
    vision_model(0).save_pretrained(model)
    vision_processor().save_pretrained(model)
    return {"data": str(tmp_path), "model": str(model)}


def test_the_papers_size_reads_pictures_and_a_model_from_folders(coco):
    experiment = paper.experiments["ablations"]
    config = replace(experiment.configure("paper"), **SMALL, **coco)
    report = experiment.function(config, jax.random.key(0), Quiet())
    assert set(report.arms) == {"start", "system", "binary", "random-reward", "imitation", "guess"}
    assert report.arms["guess"]["pieces"] == pytest.approx(1 / 9)
    assert report.arrays["curve_system"].shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "wanted"), [("image_jigsaw", "COCO 2017"), ("video_jigsaw", "LLaVA-Video"), ("depth_jigsaw", "ScanNet")]
)
def test_the_papers_size_names_the_data_that_it_wants(name, wanted):
    experiment = paper.experiments[name]
    with pytest.raises(MissingDataError, match=f"{wanted}.*--data"):
        experiment.function(experiment.configure("paper"), jax.random.key(0), Quiet())
