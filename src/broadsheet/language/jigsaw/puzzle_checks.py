"""What puzzles and their reward are checked by: answers with values by hand, wrong rules, and re-assembly of what was cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from broadsheet.language.jigsaw.depth_puzzles import Constraints, Point
from broadsheet.language.jigsaw.parsing import answer_in_tags, labels
from broadsheet.language.jigsaw.permutations import dice, right_places
from broadsheet.language.jigsaw.puzzles import JigsawItem, JigsawTask, reassemble
from broadsheet.language.jigsaw.rewards import jigsaw_reward

NINE = [3, 1, 2, 5, 4, 6, 9, 7, 8]
FORM = "<think> a thought </think> <answer>{}</answer>"

REWARD_TABLE: tuple[tuple[str, list[int], float], ...] = (
    (FORM.format("3, 1, 2, 5, 4, 6, 9, 7, 8"), NINE, 1.2),
    (FORM.format("3,1,2,5,4,6,9,7,8"), NINE, 1.2),
    (FORM.format("1, 3, 2, 5, 4, 6, 9, 7, 8"), NINE, 0.2 + 0.2 * 7 / 9),  # two are swapped
    (FORM.format("1, 2, 3, 4, 5, 7, 6, 8, 9"), NINE, 0.2),  # none is in its place
    (FORM.format("2, 3, 1, 4, 5, 6, 8, 9, 7"), NINE, 0.2 + 0.2 / 9),  # the inverse
    (FORM.format("3, 1, 2, 5, 4, 6, 9, 7, 7"), NINE, 0.2),  # a repeat
    (FORM.format("3, 1, 2, 5, 4, 6, 9, 7, 10"), NINE, 0.2),  # out of range
    (FORM.format("3, 1, 2, 5, 4, 6, 100, 7, 8"), NINE, 0.2),
    (FORM.format("3, 1, 2, 5, 4, 6, 9, 7"), NINE, 0.2),  # short
    (FORM.format("3, 1, 2, 5, 4, 6, 9, 7, 8, 8"), NINE, 0.2),  # long
    (FORM.format("three, one, two"), NINE, 0.2),
    (FORM.format(""), NINE, 0.2),
    ("<answer>3, 1, 2, 5, 4, 6, 9, 7, 8</answer>", NINE, 0.0),  # no thought
    ("<think> a thought </think> 3, 1, 2, 5, 4, 6, 9, 7, 8", NINE, 0.0),
    ("<answer>3, 1, 2, 5, 4, 6, 9, 7, 8</answer> <think> later </think>", NINE, 0.0),
    ("", NINE, 0.0),
    (FORM.format("2, 1, 3, 4"), [1, 2, 3, 4], 0.2 + 0.2 * 2 / 4),  # four pieces earn in part as well
    (FORM.format("1, 2, 3, 4"), [1, 2, 3, 4], 1.2),
)
"""Texts, targets, and what they earn by the paper's rule."""


def ungated(text: str, target: Sequence[int]) -> float:
    """A wrong rule: an answer earns whether the form is kept or not."""
    return jigsaw_reward(text if answer_in_tags(text) is not None else f"<think></think>{text}", target).total


def distinct_alone(text: str, target: Sequence[int]) -> float:
    """A wrong rule: any K different numbers are taken for a permutation, as in the released code."""
    right = jigsaw_reward(text, target)
    inside = answer_in_tags(text)
    given = [] if inside is None else labels(inside, 2 * len(target))
    if right.exact or len(set(given)) != len(target):
        return right.total
    return right.format + 0.2 * right_places(given, target) / len(target)


def restored(number: int, seed: int, answer: Callable[[Sequence[int]], list[int]]) -> bool:
    """Whether a picture whose sides the grid need not divide, a video and points come back bit for bit when their puzzles are
    answered by `answer(order)`; sizes and grids change with `number`."""
    numbers = dice(seed, number)
    rows, columns = ((1, 3), (2, 2), (3, 3), (2, 3))[number % 4]
    picture = numbers.integers(0, 256, (*numbers.integers(28, 64, 2), 3), np.uint8)
    tiles = JigsawTask(grid=(rows, columns), smallest=1, seed=seed).make(picture, index=number)
    clips = 3 + number % 4
    frames = numbers.integers(0, 256, (clips * int(numbers.integers(2, 6)), 6, 8, 3), np.uint8)
    video = JigsawTask(kind="video", clips=clips, trim=0.0, frames=len(frames), seed=seed).make(frames, index=number)
    limits = Constraints(apart=2.0, step=0.1, margin=0)
    room = (numbers.integers(0, 256, (40, 50, 3), np.uint8), numbers.uniform(0.5, 9.0, (40, 50)))
    points = JigsawTask(kind="depth", points=3, constraints=limits, seed=seed).make(room, index=number)
    depths = [point.depth for point in reassemble(points.pieces, answer(points.order))]
    return (
        np.array_equal(np.asarray(reassemble(tiles.pieces, answer(tiles.order), (rows, columns))), picture)
        and np.array_equal([np.asarray(frame) for frame in reassemble(video.pieces, answer(video.order))], frames)
        and depths == sorted(depths)
    )


def pairs_in_order(
    puzzles: Sequence[JigsawItem], answers: Sequence[Sequence[int]]
) -> tuple[Float[np.ndarray, "pairs"], Bool[np.ndarray, "pairs"]]:
    """Of each two points of depth puzzles, how far apart their depths are (m), and whether the answer has the nearer one first;
    one that leaves either out has not."""
    gaps, right = [], []
    for puzzle, answer in zip(puzzles, answers, strict=True):
        points: list[Point] = puzzle.pieces
        place = {label: -k for k, label in enumerate(reversed(answer))}
        for near, label in enumerate(puzzle.target):
            for other in puzzle.target[near + 1 :]:
                gaps.append(points[other - 1].depth - points[label - 1].depth)
                right.append({label, other} <= set(place) and place[label] < place[other])
    return np.array(gaps), np.array(right)


def violations(points: Sequence[Point], limits: Constraints) -> int:
    """How many pairs of points are too near each other, in the picture or in depth, or points out of the range of depths."""
    found = sum(not limits.nearest <= point.depth <= limits.farthest for point in points)
    for k, one in enumerate(points):
        for other in points[k + 1 :]:
            near = np.hypot(one.x - other.x, one.y - other.y) < limits.apart
            found += bool(near or abs(one.depth - other.depth) <= limits.step)
    return found
