"""The reward of DARLING (arXiv 2509.02534) as one function that TRL's trainers call.

TRL adds the values of several reward functions and never multiplies them, so that quality and diversity come in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from broadsheet.errors import BroadsheetError, InputError, JobError
from broadsheet.language.diversity.ngrams import NGramDiversity
from broadsheet.language.diversity.partitions import Partitioner, group_rows
from broadsheet.language.diversity.scores import FLOOR, FUSIONS, Fusion, diversity, diversity_of_correct, fuse
from broadsheet.language.post_training.rewards import said

Quality = Callable[..., Sequence[float]]


class DarlingReward:
    """Quality times diversity, as a reward function of TRL: `GRPOTrainer(reward_funcs=DarlingReward(quality, partitioner))`.

    Rows that stand side by side with equal prompts are one group, cut into groups of `group` where that is given (a prompt
    may come twice in a batch). All groups of a call are partitioned at once.

    **Arguments:** `quality(completions, prompts=…, **columns)`: a number for each completion, given as plain texts, with the
    columns of the data set by name; `partitioner`: a `Partitioner`, or an `NGramDiversity`; `fusion`, `bias`, `weights`: as of
    `fuse`, and a reward model, whose values may be negative, needs `bias=True` with a product; `only_correct`: Div among the
    answers of positive quality alone; `group`: TRL's `num_generations`.

    The class count and the means of Div and quality are logged to the trainer's tracker.

    **Raises:** (when called) `JobError` where the quality raises, is not finite or has a wrong number of values; `InputError`
    for a group that is not whole, and a product with a negative quality.
    """

    def __init__(
        self,
        quality: Quality,
        partitioner: Partitioner | NGramDiversity,
        *,
        fusion: Fusion = "multiply",
        bias: bool = False,
        weights: tuple[float, float] = (1.0, 1.0),
        floor: float = FLOOR,
        only_correct: bool = False,
        group: int | None = None,
    ) -> None:
        if fusion not in FUSIONS:
            raise InputError(f"fusion is {fusion!r}; {', '.join(FUSIONS)} are there.")
        if only_correct and isinstance(partitioner, NGramDiversity):
            raise InputError("only_correct needs classes; n-grams make none.")
        self.quality, self.partitioner = quality, partitioner
        self.fusion, self.bias, self.weights = fusion, bias, weights
        self.floor, self.only_correct, self.group = floor, only_correct, group
        self.__name__ = "darling"  # the name under which TRL logs it

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """The reward of each completion, which TRL gives as texts or as lists of messages."""
        log = columns.pop("log_metric", None)
        texts = [said(one) for one in completions]
        quality = self._quality(texts, prompts, columns)
        rows = group_rows(prompts, self.group)
        divs, classes = self.divs([[texts[k] for k in one] for one in rows], [quality[one] for one in rows])
        rewards = np.empty(len(texts))
        for one, div in zip(rows, divs, strict=True):
            rewards[one] = fuse(quality[one], div, self.fusion, self.bias, weights=self.weights)
        if log is not None:
            log("darling/quality", float(quality.mean()))
            log("darling/diversity", float(np.concatenate(divs).mean()))
            if classes:
                log("darling/classes", float(np.mean(classes)))
        return rewards.tolist()

    def divs(self, groups: Sequence[Sequence[str]], quality: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
        """Div of each answer of each group, and the number of classes of each; of n-grams none."""
        if isinstance(self.partitioner, NGramDiversity):
            return [self.partitioner.scores(group) for group in groups], []
        if not self.only_correct:
            found = self.partitioner.partition_groups(groups)
            return [diversity(ids, self.floor) for ids in found], [len(set(ids)) for ids in found]
        right = [values > 0 for values in quality]
        kept = [[text for text, one in zip(group, good, strict=True) if one] for group, good in zip(groups, right, strict=True)]
        found = self.partitioner.partition_groups(kept)
        divs = []
        for ids, good in zip(found, right, strict=True):
            spread = np.zeros(len(good), int)
            spread[good] = ids
            divs.append(diversity_of_correct(spread.tolist(), good.tolist(), self.floor))
        return divs, [len(set(ids)) for ids in found]

    def _quality(self, texts: list[str], prompts: Sequence[Any], columns: dict[str, Any]) -> np.ndarray:
        try:
            found = np.asarray(self.quality(texts, prompts=prompts, **columns), float)
        except BroadsheetError:
            raise
        except Exception as error:  # of a user's function
            raise JobError(f"The quality failed: {type(error).__name__}: {error}.") from error
        if found.shape != (len(texts),):
            raise JobError(f"The quality gave {found.size} values for {len(texts)} completions; one each is wanted.")
        if not np.isfinite(found).all():
            raise JobError(f"The quality of {texts[int(np.flatnonzero(~np.isfinite(found))[0])]!r} is no finite number.")
        return found
