"""Pretraining of the tiny model on the texts of the tiny world."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from broadsheet.errors import JobError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Context
from broadsheet.language.registry import stage
from broadsheet.language.tiny_model import BATCH, measure, require, tiny_model, truth_accuracy
from broadsheet.language.tiny_world import IDS, World

CONTEXT, LESSONS = 48, 600


@stage("tiny_pretraining", one_thread=True)
def tiny_pretraining(
    model: Any, words: Any, context: Context, *, steps: int = 1500, until_learned: bool = True, kind: str = "llama"
) -> tuple[Any, Any]:
    """A new model of any architecture, pretrained on the tiny world.

    **Arguments:** `until_learned`: go on, up to twice as long, until true and false are told apart.

    **Raises:** `JobError` where they are not by then.
    """
    world, model, words = World(0), tiny_model(context.seed, kind), tiny.tokenizer()
    losses = context.record["losses"] = []
    context.keep(0, model, words)
    wanted = set(checkpoint_steps(2 * steps))
    for step, loss in pretrain(model, world_batches(world, context.seed), steps):
        losses.append(loss)
        if step in wanted:
            context.keep(step, model, words)
            context.report(min(1.0, step / steps), {"loss": loss})
        if step >= steps and (not until_learned or (step % 150 == 0 and truth_accuracy(model, world) >= 0.95)):
            break
        if step >= 2 * steps:
            raise JobError(
                f"The tiny model of seed {context.seed} has not learned to tell true from false in {step} steps; "
                "for fewer steps, until_learned=False."
            )
    context.record["found"] = measure(model, world)
    if until_learned:
        require("base", context.record["found"], f"the pretraining of seed {context.seed}")
    return model, words


def rate_factor(step: int, steps: int) -> float:
    """Warm-up over 50 steps, then a cosine down to 5 %."""
    return min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2)


def checkpoint_steps(last: int) -> list[int]:
    """Steps at which pretraining is recorded: dense at the start, then every 50."""
    return [step for step in (0, 1, 2, 5, 10, 20, 35, *range(50, last + 1, 50)) if step <= last]


def world_batches(world: World, seed: int) -> Iterator[torch.Tensor]:
    """Batches (32, 49) of packed documents; the first 600 are lessons (see `World.windows`)."""
    windows = world.windows(np.random.default_rng(seed), CONTEXT + 1, lessons=LESSONS * BATCH)
    while True:
        yield torch.tensor([next(windows) for _ in range(BATCH)])


def pretrain(model: Any, batches: Iterator[torch.Tensor], steps: int = 1500) -> Iterator[tuple[int, float]]:
    """(step, loss) of each step made, for as long as it is asked; `steps` is the length of the cosine.

    A model that is trained further goes on with a cosine of twice the length. Labels of truth count five times.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    weight = torch.ones(len(tiny.WORDS))
    weight[[IDS["TRUE"], IDS["FALSE"]]] = 5.0
    for step, ids in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * rate_factor(step, steps if step < steps else 2 * steps)
        logits = model(input_ids=ids[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), weight=weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        yield step + 1, loss.item()
