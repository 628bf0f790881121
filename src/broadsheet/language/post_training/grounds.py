"""What reinforcement learning with verifiable rewards is tried on: prompts with labels, a model to begin from, its accuracy.

Sums of characters, where accuracy is computed from probabilities, and word problems for any model, where answers are drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import InputError
from broadsheet.language.character_starts import noisy_sums, told
from broadsheet.language.character_tasks import answer_probabilities
from broadsheet.language.models import load
from broadsheet.language.post_training.divergences import divergence
from broadsheet.language.post_training.rewards import verified
from broadsheet.language.post_training.rows import for_reinforcement, read_rows
from broadsheet.language.post_training.sampling import answers

VERIFIERS = {"gsm8k": "gsm8k", "math": "math", "ifeval": "ifeval"}
"""Names in the column `dataset` of Tülu 3's prompts, in lower case -> verifier."""


class CharacterSums:
    """Sums of two digits, from a model that was fine-tuned on data of which 60 % is right.

    `start`, `words`: model and tokenizer; `rows`: prompts with labels and verifiers; `tokens`: longest answer.
    """

    tokens = 4

    def __init__(self, seed: int, steps: int = 400) -> None:
        self.seed = seed
        self.start, self.words, self.items = noisy_sums(seed, steps)
        self.rows = [item.row() for item in self.items]

    def chances(self, model: Any, temperature: float = 1.0) -> np.ndarray:
        """Of each prompt, the probability that an answer is right; temperature 0 is greedy."""
        return answer_probabilities(model, self.words, self.items, temperature=temperature)

    def divergence(self, model: Any) -> float:
        """KL divergence from the start, nats an answer."""
        return divergence(model, self.start, self.words, [item.asked for item in self.items], tokens=self.tokens)

    def more_of_the_same(self, count: int) -> list[dict[str, Any]]:
        """So many rows of what the start was fine-tuned on."""
        return told(self.items, count, 0.6, self.seed)


class WordProblems:
    """Tülu 3's prompts with verifiers for any model, its accuracy on GSM8K's test problems.

    **Arguments:** `model`, `prompts`, `problems`, `chats`: names on the Hub, files or folders; `samples` answers are drawn
    to each of the first `count` of `problems`.
    """

    def __init__(
        self, model: str, prompts: str, problems: str, chats: str, *, count: int = 200, samples: int = 8, tokens: int = 1024
    ) -> None:
        self.start, self.words = load(model)
        self.rows = verifiable(read_rows(prompts))
        self.asked = word_problems(problems, count)
        self.chats, self.samples, self.tokens = chats, samples, tokens

    def chances(self, model: Any, temperature: float = 1.0) -> np.ndarray:
        """Of each problem, the share of drawn answers that is right; temperature 0 is greedy."""
        each = self.samples if temperature else 1
        drawn = answers(
            model, self.words, [row["prompt"] for row in self.asked], tokens=self.tokens, samples=each, temperature=temperature
        )
        judge = verified(None, 1.0)
        scores = [
            judge(prompts=texts, completions=texts, label=[row["label"]] * each, verifier=[row["verifier"]] * each)
            for row, texts in zip(self.asked, drawn, strict=True)
        ]
        return np.array(scores, dtype=float).mean(axis=1)

    def divergence(self, model: Any) -> float:
        """KL divergence from the start, nats an answer."""
        asked = [row["prompt"] for row in self.asked]
        return divergence(model, self.start, self.words, asked, tokens=self.tokens, samples=1, batch=8)

    def more_of_the_same(self, count: int) -> Any:
        """So many conversations."""
        rows = read_rows(self.chats)
        return rows.select_columns(["messages"]).select(range(min(count, len(rows))))


Ground = CharacterSums | WordProblems
"""Where a training is tried."""


def verifiable(rows: Any) -> list[dict[str, Any]]:
    """Rows with `prompt`, `label` and `verifier` from Tülu 3's prompts (`messages`, `ground_truth`, `dataset`), or as they are.

    **Raises:** `InputError` for a data set of the column `dataset` that no verifier is known for.
    """
    rows = for_reinforcement(rows)
    if "ground_truth" not in rows.column_names:
        return list(rows)
    made = []
    for number, row in enumerate(rows, 1):
        name = str(row.get("dataset", "")).lower()
        if name not in VERIFIERS:
            raise InputError(
                f"Row {number} is of the data set {row.get('dataset')!r}; one of {', '.join(VERIFIERS)} is wanted."
            )
        made.append({"prompt": row["prompt"], "label": row["ground_truth"], "verifier": VERIFIERS[name]})
    return made


def word_problems(data: str, count: int) -> list[dict[str, Any]]:
    """Rows with `prompt`, `label` and `verifier` of the first test problems of GSM8K, by name, or of a file in its form:
    `question`, and `answer` with a last line `#### 72`.

    **Raises:** `InputError` where an answer has no such line.
    """
    rows = read_rows(data, None if Path(data).is_file() else "test")
    made = []
    for number, row in enumerate(rows.select(range(min(count, len(rows)))), 1):
        _, mark, last = str(row.get("answer", "")).rpartition("####")
        if not mark or "question" not in row:
            raise InputError(
                f"Row {number} is no problem of GSM8K: question, and answer with #### before the number, are wanted."
            )
        asked = [{"role": "user", "content": row["question"]}]
        made.append({"prompt": asked, "label": last.strip().replace(",", ""), "verifier": "gsm8k"})
    return made
