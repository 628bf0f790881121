"""What a whole post-training is tried on: a base model, the data of each stage, and scores on tasks that no stage saw.

A suite of characters for tiny models, and Tülu 3's data sets for any model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from broadsheet.language.character_starts import suite_base, told
from broadsheet.language.character_tasks import Item, answer_probabilities, courtesy
from broadsheet.language.models import load
from broadsheet.language.post_training.evaluation import Task, evaluate
from broadsheet.language.post_training.grounds import verifiable, word_problems
from broadsheet.language.post_training.on_policy import OnPolicy
from broadsheet.language.post_training.pipeline import PostTrain
from broadsheet.language.post_training.rows import read_rows
from broadsheet.language.post_training.sampling import answers
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings

Scores = dict[str, float]
STAGES = ("sft", "dpo", "rlvr")


class CharacterSuite:
    """Sums, sayings and greetings, from a model that was trained on data of which half is right; fine-tuning has data of which
    0.6 is, pairs are the model's own answers, and verifiable rewards are for sums and sayings."""

    def __init__(self, seed: int, steps: int = 1000) -> None:
        self.seed = seed
        self.base, self.words, self.tasks = suite_base(seed, steps)
        self.verifiable = [item.row() for item in (*self.tasks.sums * 3, *self.tasks.sayings)]

    def chats(self, count: int) -> list[dict[str, Any]]:
        """Rows of fine-tuning."""
        return told(self.tasks.trained, count, 0.6, self.seed + 1)

    def prompts(self, count: int) -> list[dict[str, Any]]:
        """Rows of all tasks, of which the model's own answers become pairs."""
        picked = np.random.default_rng([self.seed, 8]).choice(len(self.tasks.trained), count)
        return [self.tasks.trained[k].row() for k in picked]

    def on_policy(self) -> OnPolicy:
        """What makes pairs of the model's own answers."""
        return OnPolicy(samples=6, answer_tokens=26, batch=512, seed=self.seed)

    def stage(self, chain: PostTrain, name: str, steps: int) -> PostTrain:
        """One of `STAGES`, of so many steps."""
        if name == "sft":
            return chain.sft(self.chats(64 * steps), SFTSettings(steps=steps, batch=64, rate=1e-3, seed=self.seed))
        if name == "dpo":
            pairs = DPOSettings(steps=steps, batch=32, rate=5e-4, seed=self.seed)
            return chain.dpo(self.prompts(32 * steps), pairs, build=self.on_policy())
        settings = RLSettings(
            steps=steps,
            batch=128,
            group=8,
            rate=1e-3,
            warm_up=0.1,
            schedule="linear",
            answer_tokens=8,
            beta=0.05,
            seed=self.seed,
        )
        return chain.rlvr(self.verifiable, None, settings)

    def scores(self, model: Any) -> Scores:
        """Probability of the right answer to sums and sayings that were held out, and the taste of answers to greetings."""
        found = {
            "sums": self._right(model, self.tasks.held_sums),
            "sayings": self._right(model, self.tasks.held_sayings),
            "greetings": float(np.mean([courtesy(text, None) for text in self.replies(model)])),
        }
        return found | {"mean": float(np.mean(list(found.values())))}

    def replies(self, model: Any, samples: int = 16) -> list[str]:
        """Drawn answers to the greetings."""
        asked = [item.asked for item in self.tasks.greetings]
        drawn = answers(model, self.words, asked, tokens=30, samples=samples, temperature=1.0, batch=512, seed=self.seed)
        return [text for texts in drawn for text in texts]

    def evaluation(self) -> list[Task]:
        """All tasks as a suite: what was trained on is `dev`, what was held out `unseen`."""
        parts: dict[tuple[str, str], list[Item]] = {
            ("sums", "dev"): self.tasks.sums,
            ("sayings", "dev"): self.tasks.sayings[:60],
            ("greetings", "dev"): self.tasks.greetings,
            ("sums", "unseen"): self.tasks.held_sums,
            ("sayings", "unseen"): self.tasks.held_sayings,
        }
        return [
            Task(name, tuple(i.asked for i in items), tuple(i.label for i in items), tuple(i.verifier for i in items), split)
            for (name, split), items in parts.items()
        ]

    def _right(self, model: Any, items: Sequence[Item]) -> float:
        return float(answer_probabilities(model, self.words, items).mean())


class TuluData:
    """Tülu 3's data sets for any model; scores on GSM8K's test problems, greedy.

    **Arguments:** names on the Hub, files or folders; `count`: problems that are asked.
    """

    def __init__(self, model: str, chats: str, pairs: str, prompts: str, problems: str, *, count: int = 200) -> None:
        self.base, self.words = load(model)
        self.chats, self.pairs, self.prompts = chats, pairs, verifiable(read_rows(prompts))
        asked = word_problems(problems, count)
        questions, labels, verifiers = (tuple(row[name] for row in asked) for name in ("prompt", "label", "verifier"))
        self.task = Task("gsm8k", questions, labels, verifiers)

    def stage(self, chain: PostTrain, name: str, steps: int) -> PostTrain:
        """One of `STAGES`, of so many steps."""
        if name == "sft":
            return chain.sft(self.chats, SFTSettings(steps=steps, device_batch=4))
        if name == "dpo":
            return chain.dpo(self.pairs, DPOSettings(steps=steps, device_batch=4))
        settings = RLSettings(steps=steps, algorithm="ppo", batch=224, group=1, device_batch=4, updates=4, no_end=-10.0)
        return chain.rlvr(self.prompts, None, settings)

    def scores(self, model: Any) -> Scores:
        """Share of the problems that is right."""
        found = evaluate(model, self.words, [self.task], tokens=1024)
        return {"gsm8k": found["tasks"]["gsm8k"]["greedy"], "mean": found["mean"]["greedy"]}

    def evaluation(self) -> list[Task]:
        """The problems as a suite."""
        return [self.task]


Ground = CharacterSuite | TuluData
"""Where a whole post-training is tried."""


def post_trained(ground: Ground, order: Sequence[str], steps: int, watch: Callable[[float], None]) -> list[Scores]:
    """Scores of the base model, and after each stage."""
    chain = PostTrain(copy.deepcopy(ground.base), ground.words)
    found = [ground.scores(chain.model)]
    for number, name in enumerate(order, 1):
        ground.stage(chain, name, steps)
        found.append(ground.scores(chain.model))
        watch(number / len(order))
    return found
