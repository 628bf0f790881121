"""One start and what different trainings make of it: the same puzzles, the same number of steps, the same questions after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from broadsheet.language.chain import Chain, Link
from broadsheet.language.jigsaw.permutations import dice
from broadsheet.language.jigsaw.puzzle_sets import PuzzleSet
from broadsheet.language.jigsaw.puzzles import JigsawItem, JigsawTask
from broadsheet.language.jigsaw.rewards import as_trl_reward, completion_text
from broadsheet.language.jigsaw.training import Solved, blinded, demonstrations, judged, post_train, solve
from broadsheet.language.jigsaw.vision_models import load_vision
from broadsheet.language.post_training.rewards import Reward
from broadsheet.language.post_training.settings import RLSettings, SFTSettings
from broadsheet.language.post_training.trainers import Run, fine_tune
from broadsheet.language.stages.jigsaw_sft import jigsaw_sft

PROMPT = 8192
"""Tokens of a puzzle with its answer, at most, in fine-tuning: a cut among its pictures would fail."""


@dataclass(frozen=True)
class Start:
    """What all trainings begin from: a model by its name, on the Hub or in a folder; without one the tiny model after so many
    steps on answers of which the share `right` is right.
    """

    model: str = ""
    steps: int = 350
    right: float = 0.6
    precision: str = "float32"
    device: str = "cpu"

    def load(self, puzzles: str, seed: int, report: Callable[[float, dict[str, float]], None] | None = None) -> tuple[Any, Any]:
        """(model, processor); the tiny start of a seed is trained once, and kept."""
        if self.model:
            return load_vision(self.model, precision=self.precision, device=self.device)
        settings = {"puzzles": puzzles, "steps": self.steps, "right": self.right}
        return load_vision(str(Chain([Link("sft", jigsaw_sft, settings)], seed=seed).build(report).folder("sft")))


@dataclass
class Learners:
    """Trainings of one start on one set of puzzles.

    **Arguments:** `train`, `test`: puzzles to train on and held out; `settings`: of reinforcement; the same number of steps and
    answers is what fine-tuning has.
    """

    start: Start
    puzzles: PuzzleSet
    settings: RLSettings
    train: int = 600
    test: int = 256
    seed: int = 0
    watch: Callable[[float, dict[str, float]], None] | None = None
    curves: dict[str, Float[np.ndarray, "steps 3"]] = field(default_factory=dict)
    """Reward, exact and pieces of the answers of each step, by the names of trainings by reinforcement."""

    @property
    def task(self) -> JigsawTask:
        return self.puzzles.task

    @cached_property
    def training(self) -> Any:
        return self.puzzles.training(self.train, self.test)

    @cached_property
    def held_out(self) -> list[JigsawItem]:
        return self.puzzles.held_out(self.test)

    @cached_property
    def processor(self) -> Any:
        return self.begin()[1]

    def begin(self) -> tuple[Any, Any]:
        """The start, anew."""
        return self.start.load(self.puzzles.name, self.seed, self.watch)

    def reinforced(self, name: str, reward: Reward | None = None, *, blind: bool = False) -> Any:
        """The model after reinforcement by the task's reward or another; `blind`: with grey pictures."""
        model, processor = self.begin()
        records: list[Any] = []
        puzzles = blinded(self.training) if blind else self.training
        seen = recording(self.task, reward or as_trl_reward(self.task), records)
        model = post_train(model, processor, self.task, puzzles, self.settings, Run(watch=self.watch, name=name), seen)
        self.curves[name] = np.array(records)
        return model

    def imitating(self) -> Any:
        """The model after fine-tuning on right answers: as many steps, and as many answers a step."""
        model, processor = self.begin()
        shared = ("steps", "batch", "device_batch", "rate", "schedule", "adapter", "precision", "seed")
        settings = SFTSettings(max_tokens=PROMPT, **{name: getattr(self.settings, name) for name in shared})
        return fine_tune(model, processor, demonstrations(self.training), settings, Run(watch=self.watch))

    def score(self, model: Any, *, blind: bool = False) -> Solved:
        """What a model makes of the puzzles held out, one answer to each at the temperature of the training."""
        shown = blinded(self.held_out) if blind else self.held_out
        return solve(
            model, self.processor, shown, self.task, tokens=self.settings.answer_tokens, seed=self.seed,
            temperature=self.settings.temperature,
        )  # fmt: skip


def recording(task: JigsawTask, reward: Reward, records: list[Any]) -> Reward:
    """The same reward, which adds the means of (its values, exact, pieces) of each call to `records`."""

    def seen(completions: Sequence[Any], target: Sequence[Sequence[int]], **columns: Any) -> Sequence[float | None]:
        values = reward(completions=completions, target=target, **columns)
        exact, right = judged([completion_text(one) for one in completions], target, task)
        records.append((float(np.mean(np.array(values, float))), exact.mean(), right.mean()))
        return values

    return seen


def random_reward(task: JigsawTask, seed: int = 0) -> Reward:
    """A reward that says nothing of the picture: each answer is compared with a permutation drawn for it."""
    plain, numbers = as_trl_reward(task), dice(seed)

    def drawn(completions: Sequence[Any], target: Sequence[Sequence[int]], **columns: Any) -> Sequence[float | None]:
        return plain(completions=completions, target=[(numbers.permutation(task.size) + 1).tolist() for _ in target])

    return drawn


def binary(task: JigsawTask) -> JigsawTask:
    """The same task without credit for answers that are right in part."""
    return replace(task, gamma=0.0)
