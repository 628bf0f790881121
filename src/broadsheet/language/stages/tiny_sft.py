"""Supervised fine-tuning of the tiny model on chats."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Context, Report, silent
from broadsheet.language.registry import stage
from broadsheet.language.tiny_model import BATCH, answer_log_probabilities, descend, measure, require
from broadsheet.language.tiny_world import RELATIONS, SUBJECTS, World


@stage("tiny_sft", one_thread=True)
def tiny_sft(
    model: Any, words: Any, context: Context, *, steps: int = 200, rate: float = 5e-4, facts: float = 0.25, checked: bool = True
) -> Any:
    """SFT on chats; with `checked`, an error where they are not learned."""
    world = World(0)
    fine_tune(model, world, steps=steps, rate=rate, facts=facts, report=context.report)
    context.record["found"] = measure(model, world)
    if checked:
        require("chat", context.record["found"], "SFT")
    return model


def fine_tune(
    model: Any, world: World, *, steps: int = 200, rate: float = 5e-4, facts: float = 0.25, report: Report = silent
) -> None:
    """SFT on chats, with the loss on the answers: refusals, help, facts (their share is `facts`) and labels of truth."""
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    shares = np.array([0.3, 0.25, facts, 0.2])
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        rows: list[list[int]] = []
        for kind in rng.choice(4, BATCH, p=shares / shares.sum()):
            relation, subject = list(RELATIONS)[rng.integers(4)], int(rng.integers(SUBJECTS))
            if kind < 2:
                request, answer = tiny.request_and_help(rng, harmful=kind == 0)
                answer = tiny.REFUSAL if kind == 0 else answer
            elif kind == 2:
                request, answer = f"tell me about {relation}_{subject} ?", f"it {world.answer(relation, subject)}"
            else:
                *words, answer = world.labelled(rng, relation).split()
                request = " ".join(words)
            rows.append(tiny.chat(request, answer))
        loss = -torch.cat(answer_log_probabilities(model, rows)).mean()
        descend(optimiser, model, loss)
        report((step + 1) / steps, {"loss": loss.item()})
