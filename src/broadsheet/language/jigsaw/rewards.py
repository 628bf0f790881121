"""The reward of a puzzle's answer, and what guessing earns (arXiv 2509.25190, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb, factorial
from typing import Any, Literal, NamedTuple

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.parsing import answer_in_box, answer_in_tags, labels, python_integers, repeats_itself
from broadsheet.language.jigsaw.permutations import checked_target, is_permutation, right_places

Variant = Literal["paper", "released"]
REPETITION = -0.5
"""The released reward's penalty for lines that repeat themselves."""
SMALL = 4
"""The released reward gives no partial credit to puzzles of so many pieces or fewer."""


class Reward(NamedTuple):
    """Of one answer: `total` is accuracy and format together (with the released variant's penalty); is it `exact`ly right?"""

    total: float
    accuracy: float
    format: float
    exact: bool


NOTHING = Reward(0.0, 0.0, 0.0, False)


def jigsaw_reward(
    text: Any, target: Sequence[int], gamma: float = 0.2, format_score: float = 0.2, variant: Variant = "paper"
) -> Reward:
    r"""The reward of a model's text for a puzzle with this target.

    Without the form <think>…</think> <answer>…</answer> nothing is earned. With it `format_score`, and 1 for the right answer,
    or `gamma` times the share of right places for another permutation of 1 to K; repeats, labels out of range, answers too
    short or too long earn the format alone. A text that is no string has no form; nothing in it raises.

    `variant="released"` is the rule of the released code: the answer in `\boxed{…}`, numbers as `int` reads them, partial
    credit for K > 4 only and for any list with K distinct numbers, -0.5 where a line of 7 words or more is there more than 3
    times in a row.

    **Raises:** `InputError` for a target that is no permutation, or an unknown variant.
    """
    target = checked_target(target)
    pieces = len(target)
    if variant not in ("paper", "released"):
        raise InputError(f"variant={variant!r}: 'paper' or 'released' is wanted.")
    released = variant == "released"
    answer = answer_in_box(text) if released else answer_in_tags(text)
    if answer is None:
        return NOTHING
    given = python_integers(answer) if released else labels(answer, pieces)
    penalty = REPETITION if released and repeats_itself(text) else 0.0
    exact = given == target
    if exact:
        accuracy = 1.0
    elif pieces > SMALL and len(set(given)) == pieces if released else is_permutation(given, pieces):
        accuracy = gamma * right_places(given, target) / pieces
    else:
        accuracy = 0.0
    return Reward(format_score + accuracy + penalty, accuracy, format_score, exact)


def as_trl_reward(
    task: Any = None,
    gamma: float = 0.2,
    format_score: float = 0.2,
    variant: Variant = "paper",
    part: Literal["total", "accuracy", "format", "exact"] = "total",
) -> Callable[..., list[float]]:
    """The reward as TRL calls it: of completions and the data's column `target`, one number each.

    **Arguments:** `task`: a `JigsawTask`, whose `gamma`, `format_score` and `variant` are then taken; `part`: which of a
    `Reward`'s numbers, for functions that only report (with the weight 0).
    """
    if task is not None:
        gamma, format_score, variant = task.gamma, task.format_score, task.variant

    def reward(completions: Sequence[Any], target: Sequence[Sequence[int]] | None = None, **_: Any) -> list[float]:
        if target is None:
            raise InputError("The data have no column 'target', which holds a puzzle's answer.")
        return [
            float(getattr(jigsaw_reward(completion_text(said), wanted, gamma, format_score, variant), part))
            for said, wanted in zip(completions, target, strict=True)
        ]

    reward.__name__ = "jigsaw_reward" if part == "total" else f"jigsaw_{part}"
    return reward


def completion_text(completion: Any) -> Any:
    """The text of a completion as TRL has it: a string, or messages, whose contents may be lists of parts."""
    if not isinstance(completion, list):
        return completion
    said = [message.get("content") for message in completion if isinstance(message, dict)]
    parts = [part for content in said for part in (content if isinstance(content, list) else [content])]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def chance_exact(pieces: int) -> float:
    """The share of uniformly drawn permutations that are right."""
    return 1 / factorial(pieces)


def chance_accuracy(pieces: int, gamma: float = 0.2) -> float:
    """Mean accuracy of a uniformly drawn permutation: 1/K! + gamma (1/K - 1/K!), since one place in K is right on average."""
    return chance_exact(pieces) + gamma * (1 / pieces - chance_exact(pieces))


def chance_places(pieces: int) -> list[float]:
    """The probability of 0, 1, …, K right places in a uniformly drawn permutation."""
    without: list[int] = [1, 0]  # derangements of 0, 1, … things
    for k in range(2, pieces + 1):
        without.append((k - 1) * (without[k - 1] + without[k - 2]))
    return [comb(pieces, k) * without[pieces - k] / factorial(pieces) for k in range(pieces + 1)]


def chance_of_signal(pieces: int, group: int, partial: bool = True) -> float:
    """The share of groups of uniformly drawn permutations whose rewards differ, with partial credit or without it."""
    right = chance_exact(pieces)
    levels = chance_places(pieces) if partial else [right, 1 - right]
    return 1 - sum(level**group for level in levels)
