"""What a model answers to prompts, from draws: pass@k and distinct@k by their unbiased estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from broadsheet.language.diversity.partitions import Partitioner
from broadsheet.language.diversity.rewards import Quality
from broadsheet.language.diversity.scores import distinct_at_k, pass_at_k
from broadsheet.language.post_training.sampling import answers

TEMPERATURES = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


class DrawnAnswers:
    """Draws to several prompts: their quality, and the classes of those that are good.

    **Arguments:** `quality` (prompts, draws); `classes`: for each prompt the class of each draw, None where it is not good.
    """

    def __init__(self, quality: np.ndarray, classes: Sequence[Sequence[int | None]]) -> None:
        self.quality, self.classes = float(np.mean(quality)), classes

    def pass_at(self, k: int) -> float:
        """Chance that one of k draws is good; of all where there are fewer."""
        good = [(len(row), sum(one is not None for one in row)) for row in self.classes]
        return float(np.mean([pass_at_k(n, c, min(k, n)) for n, c in good]))

    def distinct(self, k: int) -> float:
        """Different meanings of good answers among k draws."""
        return float(np.mean([distinct_at_k(row, min(k, len(row))) for row in self.classes]))

    def share(self, k: int) -> float:
        """These over the good answers of k draws."""
        return self.distinct(k) / max(1e-12, k * self.pass_at(1))


class Drawn:
    """Draws from a model at any temperature.

    **Arguments:** `rows`: with `prompt` and the columns that the quality asks for; `good`: the quality above which an answer is
    good, None where all are; `draws`: to each prompt; `tokens`: longest answer.
    """

    def __init__(
        self, model: Any, words: Any, rows: Sequence[dict[str, Any]], quality: Quality, partitioner: Partitioner, *,
        good: float | None = 0.0, draws: int = 16, tokens: int = 256, batch: int = 64, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.words, self.rows, self.quality, self.partitioner = model, words, rows, quality, partitioner
        self.good, self.draws = good, draws
        self.how: dict[str, Any] = {"tokens": tokens, "batch": batch, "seed": seed}

    def at(self, temperature: float = 1.0) -> DrawnAnswers:
        """What is answered when it is sampled at a temperature."""
        prompts = [row["prompt"] for row in self.rows]
        texts = answers(self.model, self.words, prompts, samples=self.draws, temperature=temperature, **self.how)
        columns = {
            name: [row[name] for row in self.rows for _ in range(self.draws)] for name in self.rows[0] if name != "prompt"
        }
        asked = [prompt for prompt in prompts for _ in range(self.draws)]
        quality = np.reshape(
            self.quality([text for group in texts for text in group], prompts=asked, **columns), (len(texts), -1)
        )
        fine = np.ones_like(quality, bool) if self.good is None else quality > self.good
        kept = [[text for text, one in zip(group, good, strict=True) if one] for group, good in zip(texts, fine, strict=True)]
        classes = []
        for ids, good in zip(self.partitioner.partition_groups(kept), fine, strict=True):
            left = iter(ids)
            classes.append([next(left) if one else None for one in good])
        return DrawnAnswers(quality, classes)

    def at_pass(self, wanted: float) -> DrawnAnswers:
        """What is answered at the hottest of seven temperatures at which pass@1 is `wanted`; at the coldest where none is."""
        found = None
        for temperature in reversed(TEMPERATURES):
            found = self.at(temperature)
            if found.pass_at(1) >= wanted:
                break
        assert found is not None
        return found
