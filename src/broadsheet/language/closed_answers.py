"""What a model answers to a closed task, exactly: the probability of each answer, at any temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from broadsheet.language.chain import Chain, Link, Report
from broadsheet.language.closed_tasks import ClosedTask
from broadsheet.language.models import padded
from broadsheet.language.stages.closed_task_sft import closed_task_sft

COLDEST, HOTTEST = 0.2, 5.0
"""Temperatures between which `Sampler.at_pass` looks."""


def start(seed: int, task: str, *, steps: int = 900, report: Report | None = None) -> Chain:
    """The chain whose `sft` all trainings of a seed on a task start from; built once (ten seconds) and kept."""
    return Chain([Link("sft", closed_task_sft, {"steps": steps, "task": task})], seed=seed).build(report)


class Answers:
    """What is answered, as exact expectations, means over the prompts.

    **Arguments:** `probabilities` (prompts, answers): of each of the task's answers.
    """

    def __init__(self, task: ClosedTask, probabilities: np.ndarray) -> None:
        of = np.eye(task.classes.max() + 1)[task.classes]  # (answers, classes)
        self.quality = float((probabilities * task.scores).sum(1).mean())
        self.classes = (probabilities * (task.scores > 0)) @ of
        """Probability (prompts, meanings) of good answers of each meaning."""

    def pass_at(self, k: int) -> float:
        """Chance that one of k answers is good."""
        return float((1 - (1 - self.classes.sum(1)) ** k).mean())

    def distinct(self, k: int) -> float:
        """Different meanings of good answers that k draws are expected to show."""
        return float((1 - (1 - self.classes) ** k).sum(1).mean())

    def share(self, k: int) -> float:
        """These over the good answers that k draws are expected to have."""
        return self.distinct(k) / max(1e-12, k * self.pass_at(1))


class Sampler:
    """A model's answers at every temperature: one pass over all answers, then arithmetic.

    Any special token behind an answer ends it, as it does for who decodes without them. An answer with a special token inside
    is left out; models give next to none.
    """

    def __init__(self, model: Any, words: Any, task: ClosedTask, batch: int = 300) -> None:
        self.task, self.ends = task, torch.tensor(sorted(set(words.all_special_ids)))
        tokens = words(list(task.answers))["input_ids"]
        self.ids, self.mask = padded(tokens)  # (answers, longest)
        self.lengths = self.mask.sum(1)
        found = []
        with torch.no_grad():
            for prompt in task.prompts:
                asked = words(prompt)["input_ids"]
                ids, mask = padded([[*asked, *answer] for answer in tokens])
                parts = zip(ids.split(batch), mask.split(batch), strict=True)
                found.append(torch.cat([model(input_ids=i, attention_mask=m).logits[:, len(asked) - 1 :] for i, m in parts]))
        logits = torch.stack(found).double()  # (prompts, answers, longest + 1, tokens)
        self.places = []
        """For each token of an answer and the one behind it: logits (prompts, beginnings, tokens), each answer's beginning."""
        for place in range(logits.shape[2]):
            _, of = (
                np.unique(self.ids[:, :place].numpy(), axis=0, return_inverse=True)
                if place
                else (0, np.zeros(len(tokens), int))
            )
            _, first = np.unique(of, return_index=True)
            self.places.append((logits[:, first, place], torch.from_numpy(of.reshape(-1))))

    def at(self, temperature: float = 1.0) -> Answers:
        """What is answered when it is sampled at a temperature."""
        total = torch.zeros(len(self.task.prompts), len(self.ids), dtype=torch.double)
        for place, (logits, of) in enumerate(self.places):
            log_p = torch.log_softmax(logits / temperature, -1)
            ended = log_p[..., self.ends].logsumexp(-1)[:, of]
            said = log_p[:, of, self.ids[:, place]] if place < self.ids.shape[1] else ended
            total += torch.where(self.lengths > place, said, torch.where(self.lengths == place, ended, 0.0))
        return Answers(self.task, torch.exp(total).numpy())

    def at_pass(self, wanted: float) -> Answers:
        """What is answered at the temperature at which pass@1 falls to `wanted`; at the coldest where it is never that high."""
        low, high = np.log(COLDEST), np.log(HOTTEST)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(float(np.exp(middle))).pass_at(1) >= wanted else (low, middle)
        return self.at(float(np.exp(low)))
