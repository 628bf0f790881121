"""Reinforcement learning of the tiny model with a verifiable reward."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Context, Report, silent
from broadsheet.language.models import generate, log_probabilities
from broadsheet.language.registry import stage
from broadsheet.language.tiny_model import descend, measure, require
from broadsheet.language.tiny_world import END, IDS, RELATIONS, SUBJECTS, World


@stage("tiny_grpo", one_thread=True)
def tiny_grpo(model: Any, words: Any, context: Context, *, steps: int = 60, rate: float = 2e-4, checked: bool = True) -> Any:
    """GRPO against the model that it starts from; with `checked`, an error where chats are no longer mastered."""
    world = World(0)
    before = copy.deepcopy(model)
    context.record["rewards"] = reinforce(model, before, world, steps=steps, rate=rate, report=context.report)
    context.record["found"] = measure(model, world)
    if checked:
        require("chat", context.record["found"], "reinforcement learning")
    return model


def reinforce(
    model: Any, reference: Any, world: World, *, steps: int = 60, rate: float = 2e-4, report: Report = silent
) -> list[float]:
    """GRPO on facts: 8 answers to each of 8 questions, reward 1 for the right object and an end; the mean reward a step."""
    rng, dice = np.random.default_rng(0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    rewards = []
    for step in range(steps):
        questions = [(list(RELATIONS)[rng.integers(4)], int(rng.integers(SUBJECTS))) for _ in range(8)]
        asked = [question for question in questions for _ in range(8)]
        prompts = [tiny.chat(f"tell me about {relation}_{subject} ?") for relation, subject in asked]
        answers = generate(model, prompts, 6, temperature=1.0, generator=dice)
        right = torch.tensor([[IDS[world.object(relation, subject)]] for relation, subject in asked])
        ended = answers == END
        reward = ((answers == right).any(1) & ended.any(1)).float()
        rewards.append(float(reward.mean()))
        groups = reward.reshape(8, 8)
        advantage = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
        ids = torch.cat([torch.tensor(prompts), answers], 1)
        before_end = (ended.cumsum(1) - ended.int()) == 0  # up to the end token, that one included
        own = log_probabilities(model, ids)[:, -6:]
        with torch.no_grad():
            frozen = log_probabilities(reference, ids)[:, -6:]
        penalty = torch.exp(frozen - own) - (frozen - own) - 1  # the k3 estimator of the KL divergence
        per_token = torch.exp(own - own.detach()) * advantage[:, None] - 0.02 * penalty
        descend(optimiser, model, -(per_token * before_end).sum() / before_end.sum())
        report((step + 1) / steps, {"reward": rewards[-1]})
    return rewards
