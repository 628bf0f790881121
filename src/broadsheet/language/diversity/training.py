"""Trainings of a problem by a reward, with looks on the way; a classifier of pairs before and after its training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from broadsheet.language.diversity.classifier import ClassifierPartitioner, pair_classifier, pair_tokenizer, train_pairs
from broadsheet.language.diversity.partitions import Pair
from broadsheet.language.diversity.problems import Look, Problem
from broadsheet.language.models import one_thread
from broadsheet.language.post_training.rewards import Reward
from broadsheet.language.post_training.settings import RLSettings
from broadsheet.language.post_training.trainers import Run, reinforce


def reinforced(
    problem: Problem,
    reward: Reward,
    settings: dict[str, Any],
    looks: int = 1,
    watch: Callable[[float], None] | None = None,
    parts: int = 1,
) -> list[Look]:
    """`looks` looks at a model on its way from the problem's start, the last at the end of `settings["steps"]`.

    By TRL's GRPO; advantages are divided by nothing where the settings do not say otherwise.

    **Arguments:** `settings`: those of `RLSettings`; `parts`: answers of so many updates are drawn at once, as the authors do
    in mathematics with four.
    """
    from transformers import TrainerCallback

    model, found = problem.model(), []
    steps = settings["steps"]
    marks = {round(steps * (k + 1) / looks) for k in range(looks - 1)} - {steps}

    class OnTheWay(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step in marks:
                found.append(problem.look(copy.deepcopy(model).eval()))

    chosen = RLSettings(**{"scale": "none", "answer_tokens": problem.tokens, "log_every": steps} | settings)
    run = Run(watch=(lambda share, _: watch(share)) if watch else None, callbacks=[OnTheWay()])
    with one_thread():
        at_once = {"steps_per_generation": parts * chosen.batch // chosen.at_once} if parts > 1 else {}
        trained = reinforce(model, problem.words, problem.rows, reward, chosen, run, **at_once)
        return [*found, problem.look(trained)]


class Judged:
    """How well probabilities of "same" agree with the truth.

    **Arguments:** `scores` (pairs); `truth` (pairs), 0 or 1; `threshold`: above which a pair is called the same.
    """

    def __init__(self, scores: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> None:
        self.scores, self.truth, self.threshold = scores, truth, threshold

    @cached_property
    def f1(self) -> float:
        """F1 of "same"."""
        return float(f1_score(self.truth, self.scores > self.threshold, zero_division=0.0))

    @cached_property
    def auc(self) -> float:
        """Area under the ROC curve."""
        return float(roc_auc_score(self.truth, self.scores))

    @cached_property
    def roc(self) -> np.ndarray:
        """(2, 101): the share of same pairs found, at shares of different ones called the same from 0 to 1."""
        false, true, _ = roc_curve(self.truth, self.scores)
        shares = np.linspace(0, 1, 101)
        return np.stack([shares, np.interp(shares, false, true)])


def trained_classifier(
    pairs: Sequence[Pair], labels: Sequence[int], *, steps: int, seed: int = 0, name: str = ""
) -> tuple[ClassifierPartitioner, ClassifierPartitioner]:
    """The tiny classifier of pairs before its training and after; in place of the latter one by name, where that is given.

    Neither decides short answers by the words that they share.
    """
    words = pair_tokenizer()
    before = ClassifierPartitioner(pair_classifier(words, seed), words, short_rule=False)
    if name:
        return before, ClassifierPartitioner.load(name, short_rule=False)
    with one_thread():
        after = train_pairs(pair_classifier(words, seed), words, pairs, labels, steps=steps, seed=seed)
    return before, ClassifierPartitioner(after, words, short_rule=False)
