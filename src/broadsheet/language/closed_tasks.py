"""Tasks with a closed list of answers, whose quality and meaning are known: what a tiny model does with them is exact."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from broadsheet.errors import InputError


class ClosedTask(abc.ABC):
    """Prompts, every answer that means something, how good each is and what it means."""

    prompts: tuple[str, ...]

    @property
    @abc.abstractmethod
    def answers(self) -> tuple[str, ...]:
        """All answers, good and bad, to whatever prompt."""

    @abc.abstractmethod
    def score(self, prompt: str, answer: str) -> float:
        """Quality in [0, 1] of any text as an answer."""

    @abc.abstractmethod
    def meaning(self, answer: str) -> str | None:
        """The class of an answer, whatever the prompt; None where a text is no answer."""

    @abc.abstractmethod
    def demonstrations(self, count: int, seed: int, right: float = 0.6) -> list[tuple[str, str]]:
        """(prompt, answer) pairs, of which the share `right` is good and the rest is anything."""

    def rows(self) -> list[dict[str, Any]]:
        """The prompts as TRL's trainers take them."""
        return [{"prompt": prompt} for prompt in self.prompts]

    def quality(self, completions: Sequence[str], *, prompts: Sequence[str], **_: Any) -> list[float]:
        """The quality of completions, as `DarlingReward` asks for it."""
        return [self.score(prompt, answer) for prompt, answer in zip(prompts, completions, strict=True)]

    @cached_property
    def scores(self) -> np.ndarray:
        """Quality (prompts, answers)."""
        return np.array([[self.score(prompt, answer) for answer in self.answers] for prompt in self.prompts])

    @cached_property
    def classes(self) -> np.ndarray:
        """Class of each answer (answers), 0, 1, …."""
        names = [self.meaning(answer) for answer in self.answers]
        numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names])

    def good_classes(self) -> list[int]:
        """How many meanings good answers to each prompt have."""
        return [len(set(self.classes[row > 0])) for row in self.scores]


def task_named(name: str) -> ClosedTask:
    """`make number`, `make number in many words` (a plus is written in eight ways), `name one`.

    **Raises:** `InputError` for another name.
    """
    from broadsheet.language.make_number import MANY_WORDS, MakeNumber
    from broadsheet.language.name_one import NameOne

    tasks = {"make number": MakeNumber, "make number in many words": lambda: MakeNumber(MANY_WORDS), "name one": NameOne}
    if name not in tasks:
        raise InputError(f"There is no task {name!r}; there are {', '.join(tasks)}.")
    return tasks[name]()
