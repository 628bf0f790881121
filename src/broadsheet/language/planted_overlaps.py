"""Training sets in which prompts of an evaluation were planted, and ways to look for them that are simpler than overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORDS = 400


@dataclass(frozen=True)
class Planted:
    """`train`: conversations; `evaluation`: prompts; `contaminated`: numbers of the conversations that share over half of a
    prompt; `shares`: (conversation, prompt) -> share of the prompt's words that a run of 8 words or more in common covers."""

    train: list[list[dict[str, str]]]
    evaluation: list[str]
    contaminated: set[int]
    shares: dict[tuple[int, int], float]


def planted(items: int, planted: int, prompts: int, rng: np.random.Generator) -> Planted:
    """`items` conversations of random words, of which `planted` hold a prompt or more than half of one in a user's turn, and as
    many are decoys: with half of a prompt or less, with its words in another order, or with it in the assistant's answer."""

    def some(count: int, letter: str = "f") -> list[str]:
        return [f"{letter}{k}" for k in rng.integers(WORDS, size=count)]

    evaluation = [some(24, "w") for _ in range(prompts)]  # words of their own: no neighbour lengthens what is planted
    train, contaminated, shares = [], set(), {}
    for number in range(items):
        which = int(rng.integers(prompts))
        prompt, turn, answer = evaluation[which], some(int(rng.integers(10, 40))), some(10)
        at = int(rng.integers(len(turn)))
        kind = number % 4
        if number < planted:
            length = 24 if kind == 0 else int(rng.integers(13, 24))  # whole, or more than half
            start = int(rng.integers(25 - length))
            turn[at:at] = prompt[start : start + length]
            contaminated.add(number)
            shares[number, which] = length / 24
        elif number < 2 * planted:
            if kind == 0:
                turn[at:at] = [str(word) for word in rng.permutation(np.array(prompt))]
            elif kind == 1:
                answer = list(prompt)
            else:
                length = int(rng.integers(8, 13))
                turn[at:at] = prompt[:length]
                shares[number, which] = length / 24
        train.append([{"role": "user", "content": " ".join(turn)}, {"role": "assistant", "content": " ".join(answer)}])
    order = rng.permutation(items)
    place = {int(old): new for new, old in enumerate(order)}
    return Planted(
        [train[old] for old in order],
        [" ".join(prompt) for prompt in evaluation],
        {place[old] for old in contaminated},
        {(place[old], which): share for (old, which), share in shares.items()},
    )


def exact_matches(data: Planted) -> set[int]:
    """Conversations with a whole prompt in a user's turn."""
    return {k for k, chat in enumerate(data.train) if any(prompt in chat[0]["content"] for prompt in data.evaluation)}


def shared_ngrams(data: Planted, n: int = 8) -> set[int]:
    """Conversations with any n words of a prompt in a user's turn."""
    known = {gram for prompt in data.evaluation for gram in _grams(prompt.split(), n)}
    return {k for k, chat in enumerate(data.train) if known & _grams(chat[0]["content"].split(), n)}


def _grams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}
