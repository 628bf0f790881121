"""Training a model that sees on puzzles, and asking how many it solves."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.parsing import answer_in_box, answer_in_tags, labels, python_integers
from broadsheet.language.jigsaw.permutations import dice, is_permutation
from broadsheet.language.jigsaw.puzzles import JigsawItem, JigsawTask
from broadsheet.language.jigsaw.rewards import as_trl_reward
from broadsheet.language.jigsaw.vision_models import answers, vision_tokens, written
from broadsheet.language.post_training.rewards import Reward
from broadsheet.language.post_training.settings import RLSettings
from broadsheet.language.post_training.trainers import Run, reinforce


def post_train(
    model: Any, processor: Any, task: JigsawTask, puzzles: Any, settings: RLSettings, run: Run | None = None,
    reward: Reward | None = None,
) -> Any:  # fmt: skip
    """The model after reinforcement learning on puzzles, by GRPO or RLOO as the settings say (section 3.4).

    **Arguments:** `task`: by which answers are rewarded; `puzzles`: those that `task` made, or a `datasets.Dataset` of them, as
    `broadsheet language jigsaw` writes it; `reward`: another one in place of the task's.

    **Raises:** beside what `reinforce` does, `InputError` for a puzzle that leaves no room for an answer.
    """
    check_room(model, processor, puzzles, settings.answer_tokens)
    rows = puzzles if hasattr(puzzles, "column_names") else [puzzle.row for puzzle in puzzles]
    kept = {"generation_kwargs": {"suppress_tokens": vision_tokens(model)}}
    return reinforce(model, processor, rows, reward or as_trl_reward(task), settings, run, **kept)


def check_room(model: Any, processor: Any, puzzles: Any, answer: int) -> None:
    """**Raises:** `InputError` for the first puzzle that with an answer is longer than the model's context.

    Pictures are not looked at: their sizes say how many tokens they make.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    counted = getattr(processor.image_processor, "get_number_of_image_patches", None)
    if limit is None or counted is None:
        return
    merged, words = processor.image_processor.merge_size**2, {}
    for number, (prompt, sizes) in enumerate(_sizes(puzzles), start=1):
        text = processor.apply_chat_template(prompt, add_generation_prompt=True)
        if text not in words:
            words[text] = len(processor.tokenizer(text)["input_ids"])
        tokens = words[text] + sum(counted(height, width) // merged - 1 for width, height in sizes)
        if tokens + answer > limit:
            raise InputError(
                f"Puzzle {number} has {tokens} tokens; with an answer of {answer} that is more than the model's context of "
                f"{limit}: take smaller pictures or fewer frames, or ask for shorter answers."
            )


def _sizes(puzzles: Any) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
    """Prompts, and the widths and heights of their pictures; of a data set on disk from the files' heads."""
    if not hasattr(puzzles, "column_names"):
        yield from ((puzzle.prompt, [image.size for image in puzzle.images]) for puzzle in puzzles)
        return
    from datasets import Image as Stored
    from datasets import List
    from PIL import Image

    for row in puzzles.select_columns(["prompt", "images"]).cast_column("images", List(Stored(decode=False))):
        yield row["prompt"], [Image.open(io.BytesIO(image["bytes"])).size for image in row["images"]]


def demonstrations(puzzles: Any, right: float = 1.0, seed: int = 0, write: Callable[[Sequence[int]], str] = written) -> Any:
    """Rows for `fine_tune`: the share `right` of the answers is right, and the rest are permutations drawn at random.

    **Arguments:** `puzzles`: as of `post_train`; of a data set on disk the rows stay there.
    """
    numbers = dice(seed)

    def completion(target: Sequence[int]) -> list[dict[str, Any]]:
        said = target if numbers.random() < right else (numbers.permutation(len(target)) + 1).tolist()
        return [{"role": "assistant", "content": [{"type": "text", "text": write(said)}]}]

    if hasattr(puzzles, "column_names"):
        shown = puzzles.map(lambda target: {"completion": completion(target)}, input_columns=["target"])
        return shown.remove_columns("target")
    return [{"prompt": one.prompt, "images": one.images, "completion": completion(one.target)} for one in puzzles]


@dataclass(frozen=True)
class Solved:
    """What came out of puzzles: means over them of the `reward`, of answers that are `exact`ly right, and of right `places`,
    for each true place; the `texts` as they were given."""

    reward: float
    exact: float
    places: Float[np.ndarray, "pieces"]
    texts: list[str]

    @property
    def pieces(self) -> float:
        """The share of pieces in their places."""
        return float(self.places.mean())


def labels_in(text: str, task: JigsawTask) -> list[int]:
    """The labels that a text answers with, whatever their number; none where it has not the form."""
    paper = task.variant == "paper"
    inside = answer_in_tags(text) if paper else answer_in_box(text)
    if inside is None:
        return []
    return labels(inside, task.size) if paper else python_integers(inside)


def permutation_in(text: str, task: JigsawTask) -> list[int] | None:
    """The permutation that a text answers with, or None where it is none."""
    given = labels_in(text, task)
    return given if is_permutation(given, task.size) else None


def judged(
    texts: Sequence[str], targets: Sequence[Sequence[int]], task: JigsawTask
) -> tuple[Float[np.ndarray, "texts"], Float[np.ndarray, "texts pieces"]]:
    """Which texts are exactly right, and which places in each; of an answer with more or fewer labels than pieces no place is
    right."""
    right = np.zeros((len(texts), task.size))
    for k, (text, target) in enumerate(zip(texts, targets, strict=True)):
        given = labels_in(text, task)
        if len(given) == task.size:
            right[k] = np.equal(given, target)
    return right.all(1).astype(float), right


def solved(puzzles: Sequence[JigsawItem], texts: Sequence[str], task: JigsawTask) -> Solved:
    """How well the texts answer the puzzles."""
    targets = [puzzle.target for puzzle in puzzles]
    exact, right = judged(texts, targets, task)
    rewards = as_trl_reward(task)(completions=texts, target=targets)
    return Solved(float(np.mean(rewards)), float(exact.mean()), right.mean(0), list(texts))


def solve(
    model: Any, processor: Any, puzzles: Sequence[JigsawItem], task: JigsawTask, *, tokens: int, seed: int = 0,
    temperature: float = 1.0, batch: int = 128,
) -> Solved:  # fmt: skip
    """What a model makes of puzzles, one answer to each, drawn at a temperature."""
    prompts, images = [puzzle.prompt for puzzle in puzzles], [puzzle.images for puzzle in puzzles]
    texts = answers(model, processor, prompts, images, tokens=tokens, temperature=temperature, seed=seed, batch=batch)
    return solved(puzzles, texts, task)


def blinded(puzzles: Any, level: int = 128) -> Any:
    """The same puzzles, or the data set of them, with grey in place of all that is to be seen."""
    from PIL import Image

    def grey(images: Sequence[Any]) -> list[Any]:
        return [Image.new("RGB", image.size, (level, level, level)) for image in images]

    if hasattr(puzzles, "column_names"):
        return puzzles.map(lambda images: {"images": grey(images)}, input_columns=["images"])
    return [replace(puzzle, images=grey(puzzle.images)) for puzzle in puzzles]
