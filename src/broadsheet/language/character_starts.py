"""Models of characters after fine-tuning on data with errors: where experiments on post-training begin, made once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import fixture
from broadsheet.language.character_tasks import Item, conversations, greetings, sayings, shares_right, sums
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.models import load, one_thread
from broadsheet.language.post_training.settings import SFTSettings
from broadsheet.language.post_training.trainers import fine_tune

BATCH = 64


@dataclass(frozen=True)
class Suite:
    """Items of the three tasks that stages train on, and those held out of every stage."""

    sums: list[Item]
    sayings: list[Item]
    greetings: list[Item]
    held_sums: list[Item]
    held_sayings: list[Item]

    @property
    def trained(self) -> list[Item]:
        """All that is trained on; each task is about as frequent."""
        return [*self.sums * 3, *self.sayings, *self.greetings * 20]


def suite(seed: int) -> Suite:
    """80 sums and 240 sayings to train on, 20 sums and 60 sayings held out, and 8 greetings."""
    rng = np.random.default_rng([seed, 1])
    drawn = [list(item) for item in (rng.permutation(np.array(sums(10, rng), dtype=object)), sayings(300, rng))]
    return Suite(drawn[0][20:], drawn[1][60:], greetings(), drawn[0][:20], drawn[1][:60])


def noisy_sums(seed: int, steps: int = 400, right: float = 0.6) -> tuple[Any, Any, list[Item]]:
    """(model, tokenizer, sums) after fine-tuning on sums of which a share `right` is told right, one sum more often than
    another; the rest are typical errors."""
    items = sums(10, np.random.default_rng([seed, 2]))
    place = fixture(
        "noisy-sums", {"seed": seed, "steps": steps, "right": right, "version": 1}, _told(items, seed, steps, right, 3e-3)
    )
    return *load(str(place)), items


def suite_base(seed: int, steps: int = 1000, right: float = 0.5) -> tuple[Any, Any, Suite]:
    """(model, tokenizer, suite) after training on the suite's tasks, told right by a share `right`."""
    tasks = suite(seed)
    place = fixture(
        "suite-base",
        {"seed": seed, "steps": steps, "right": right, "version": 1},
        _told(tasks.trained, seed, steps, right, 3e-3),
    )
    return *load(str(place)), tasks


def told(items: list[Item], count: int, right: float, seed: int) -> list[dict[str, Any]]:
    """Rows for fine-tuning of which a share `right` is right; a prompt has the same share each time that it is drawn."""
    rng = np.random.default_rng([seed, 3])
    prompts = list(dict.fromkeys(items))
    shares = dict(zip(prompts, shares_right(len(prompts), right, rng), strict=True))
    return conversations(items, np.array([shares[item] for item in items]), count, rng)


def _told(items: list[Item], seed: int, steps: int, right: float, rate: float) -> Any:
    def build(folder: Path) -> None:
        words = character_tokenizer()
        settings = SFTSettings(steps=steps, batch=BATCH, rate=rate, seed=seed)
        with one_thread():
            model = fine_tune(character_model(seed), words, told(items, steps * BATCH, right, seed), settings)
        model.save_pretrained(folder)
        words.save_pretrained(folder)

    return build
