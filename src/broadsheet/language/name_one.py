"""An open-ended task: name an animal, a colour, a thing or a mood, of which each has eight, some with many synonyms."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from broadsheet.language.closed_tasks import ClosedTask

SYNONYMS = {
    "animal": (
        "dog hound pup puppy mutt", "cat kitty puss", "horse mare pony", "cow bull ox", "pig hog boar sow", "hen cock",
        "frog toad", "ant",
    ),
    "colour": (
        "red ruby rose", "blue navy azure", "green jade", "grey gray slate ash", "black ebony jet", "white snow",
        "brown tan umber", "gold",
    ),
    "thing": (
        "house home cabin hut", "car auto", "boat ship", "road street lane way", "rock stone", "shop store", "tree", "cup mug",
    ),
    "mood": (
        "happy glad merry jolly", "sad gloomy", "angry mad cross", "calm quiet", "tired weary sleepy", "scared afraid", "proud",
        "bored",
    ),
}  # fmt: skip
"""Category -> words of equal meaning, those first that are commonest in demonstrations."""
LONG = 5
"""Letters beyond which an answer is worth less."""


class NameOne(ClosedTask):
    """Names of the category are good, and best where they are short."""

    prompts = tuple(f"{category}: " for category in SYNONYMS)

    @cached_property
    def _meanings(self) -> dict[str, tuple[str, str]]:
        """Word -> category, and the first word of its meaning."""
        groups = ((category, group.split()) for category, groups in SYNONYMS.items() for group in groups)
        return {word: (category, words[0]) for category, words in groups for word in words}

    @cached_property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._meanings)

    def score(self, prompt: str, answer: str) -> float:
        """1 for a word of the category with five letters or fewer, 0.7 for a longer one, 0 for anything else."""
        category, _ = self._meanings.get(answer, ("", ""))
        return 0.0 if prompt != f"{category}: " else 1.0 if len(answer) <= LONG else 0.7

    def meaning(self, answer: str) -> str | None:
        return self._meanings.get(answer, ("", None))[1]

    def demonstrations(self, count: int, seed: int, right: float = 0.6) -> list[tuple[str, str]]:
        """Of what is right, the k-th meaning comes 1/k as often as the first; its words come alike."""
        rng = np.random.default_rng(seed)
        weights = 1 / np.arange(1, 9)
        found = []
        for _ in range(count):
            category = list(SYNONYMS)[rng.integers(len(SYNONYMS))]
            words = SYNONYMS[category][rng.choice(8, p=weights / weights.sum())].split()
            answer = words[rng.integers(len(words))] if rng.random() < right else self.answers[rng.integers(len(self.answers))]
            found.append((f"{category}: ", answer))
        return found
