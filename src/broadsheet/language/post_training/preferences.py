"""Preference pairs from rated answers: a prompt's best answer is chosen, a random lower one rejected (arXiv 2411.15124)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from broadsheet.errors import InputError

Answer = str | list[dict[str, Any]]
"""A text, or the messages of a conversation."""
Score = float | Sequence[float]
"""A rating, or one an aspect (helpfulness, honesty, …), whose mean counts."""


def build_pairs(
    responses: Sequence[Sequence[Answer]],
    scores: Sequence[Sequence[Score]],
    seed: int,
    prompts: Sequence[Answer] | None = None,
) -> list[dict[str, Any]]:
    """A pair for each prompt that has answers of different ratings, in the columns that TRL's DPO trainer reads.

    Of several best answers one is drawn; the rejected answer is drawn from all that are rated lower and differ in their text
    from the chosen one. A prompt without such a pair is left out. A prompt's draw depends on the seed and its number alone.

    **Arguments:** `responses`: the answers to each prompt; `scores`: their ratings, in the same form; `prompts`: where given, a
    column of the pairs; without, each answer has to hold its prompt.

    **Returns:** rows with `prompt` (where given), `chosen`, `rejected`, their ratings `score_chosen` and `score_rejected`, and
    `index`, the prompt's number.

    **Raises:** `InputError` where answers, ratings and prompts are not as many as each other, and for a rating that is not
    finite.
    """
    wanted = len(responses)
    if len(scores) != wanted or (prompts is not None and len(prompts) != wanted):
        raise InputError(
            f"There are answers to {wanted} prompts, ratings for {len(scores)}"
            + (f" and {len(prompts)} prompts" if prompts is not None else "")
            + "; as many of each are wanted."
        )
    pairs = []
    for index, (answers, given) in enumerate(zip(responses, scores, strict=True)):
        if len(answers) != len(given):
            raise InputError(f"Prompt {index} has {len(answers)} answers and {len(given)} ratings; as many of each are wanted.")
        ratings = [_mean(score, index) for score in given]
        pair = _draw(answers, ratings, np.random.default_rng([seed, index]))
        if pair is not None:
            chosen, rejected = pair
            row = {} if prompts is None else {"prompt": prompts[index]}
            row |= {"chosen": answers[chosen], "rejected": answers[rejected]}
            pairs.append(row | {"score_chosen": ratings[chosen], "score_rejected": ratings[rejected], "index": index})
    return pairs


def _mean(score: Score, index: int) -> float:
    values = list(score) if isinstance(score, Sequence | np.ndarray) and not isinstance(score, str) else [score]
    try:
        mean = math.fsum(map(float, values)) / len(values)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        mean = math.nan
    if not math.isfinite(mean):
        raise InputError(f"Prompt {index} has the rating {score!r}; a finite number, or some, is wanted.")
    return mean


def _draw(answers: Sequence[Answer], ratings: Sequence[float], rng: np.random.Generator) -> tuple[int, int] | None:
    """Numbers of the chosen and the rejected answer; None where no two differ in rating and text."""
    best = max(ratings, default=0.0)
    chosen = int(rng.choice([k for k, rating in enumerate(ratings) if rating == best])) if len(ratings) else -1
    lower = [k for k, rating in enumerate(ratings) if rating < best and answers[k] != answers[chosen]]
    return (chosen, int(rng.choice(lower))) if lower else None
