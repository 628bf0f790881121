"""Rewards of answers to puzzles: texts a second, here and by the official function.

The official code is not part of this repository: its folder is named by VISUAL_JIGSAW_CODE, and without it that side fails.
"""

import os
import sys
from pathlib import Path

import numpy as np

from harness import Comparison

PIECES = 9


def inputs(case):
    """Texts in the form that the released code wants, and their targets."""
    rng = np.random.default_rng(0)
    texts, targets = [], []
    for _ in range(case["texts"]):
        target = rng.permutation(PIECES) + 1
        answer = target if rng.random() < 0.2 else rng.permutation(PIECES) + 1
        if rng.random() < 0.2:
            answer = rng.integers(1, 12, rng.integers(1, 12))  # no permutation
        if case["thought"] == "words":
            words = [f"tile {rng.integers(1, 10)} may be left of tile {rng.integers(1, 10)}" for _ in range(case["lines"])]
            thought = ".\n".join(words)
        else:
            thought = "</think>" * case["lines"]
        box = f"\\boxed{{{', '.join(map(str, answer))}}}" if case["thought"] == "words" else "\\boxed"
        texts.append(f"<think>{thought}</think>{box}")
        targets.append(target)
    return {"texts": np.array(texts), "targets": np.array(targets)}


comparison = Comparison(
    "Rewards of answers to puzzles: the parser here and the official function",
    {
        "500 characters": {"texts": 2000, "thought": "words", "lines": 18},
        "5000 characters": {"texts": 500, "thought": "words", "lines": 180},
        "3000 tags": {"texts": 10, "thought": "tags", "lines": 3000},
    },
    inputs,
    text="Texts of nine pieces: a line a thought, and an answer that is right, wrong or no permutation; 3000 tags are texts that "
    "repeat `</think>` and hold no answer. One process, a text after the other, the rule of the released code on both sides.",
    agree={"total": 1e-12},
    shown={"total": "mean reward"},
)


@comparison.side("broadsheet")
def ours(case, arrays):
    from broadsheet.language.jigsaw.rewards import jigsaw_reward

    texts, targets = arrays["texts"].tolist(), arrays["targets"].tolist()

    def run():
        pairs = zip(texts, targets, strict=True)
        return {"total": np.mean([jigsaw_reward(text, target, variant="released").total for text, target in pairs])}

    return run


@comparison.side("official function", environment="mathruler", packages=("mathruler", "math-verify"))
def official(case, arrays):
    sys.path.insert(0, str(Path(os.environ["VISUAL_JIGSAW_CODE"]) / "verl" / "utils" / "reward_score"))
    from visual_jigsaw import compute_score

    texts, targets = arrays["texts"].tolist(), arrays["targets"].tolist()

    def run():
        return {"total": np.mean([compute_score(text, target)["score"] for text, target in zip(texts, targets, strict=True)])}

    return run
