"""Preference pairs from a model's own answers, rated by a verifier: the on-policy part of Tülu 3's pairs (arXiv 2411.15124)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broadsheet.errors import InputError
from broadsheet.language.post_training.preferences import build_pairs
from broadsheet.language.post_training.rewards import verified
from broadsheet.language.post_training.rows import for_reinforcement
from broadsheet.language.post_training.sampling import answers
from broadsheet.language.verifiers import registry


@dataclass(frozen=True)
class OnPolicy:
    """Called with a model, its tokenizer and rows with `prompt` and `label`, gives pairs: of several answers to each prompt one
    that the verifier rates highest, and a random one that it rates lower. Prompts with equal ratings are left out.

    **Arguments:** `verifier`: its name or itself, None for the one that each row's column `verifier` names; `samples`: answers
    to a prompt; `answer_tokens`, `temperature`, `batch`, `seed`: of their generation.
    """

    verifier: str | registry.Verifier | None = None
    samples: int = 8
    answer_tokens: int = 256
    temperature: float = 1.0
    batch: int = 64
    seed: int = 0

    def __call__(self, model: Any, words: Any, rows: Any) -> list[dict[str, Any]]:
        """**Raises:** `InputError` where no prompt has a right and a wrong answer."""
        rows = for_reinforcement(rows)
        prompts = rows["prompt"][:]
        said = answers(
            model, words, prompts, tokens=self.answer_tokens, samples=self.samples, temperature=self.temperature,
            batch=self.batch, seed=self.seed,
        )  # fmt: skip
        columns = {name: [value for value in rows[name] for _ in range(self.samples)] for name in rows.column_names}
        flat = verified(self.verifier, 1.0)(
            completions=[text for texts in said for text in texts], prompts=columns.pop("prompt"), **columns
        )
        scores: list[Any] = [flat[start : start + self.samples] for start in range(0, len(flat), self.samples)]
        chat = not isinstance(prompts[0], str)
        found = [[[{"role": "assistant", "content": text}] if chat else text for text in texts] for texts in said]
        pairs = build_pairs(found, scores, self.seed, prompts)
        if not pairs:
            raise InputError(f"Of {len(prompts)} prompts none has answers of different ratings: there are no pairs.")
        return [{name: pair[name] for name in ("prompt", "chosen", "rejected")} for pair in pairs]
