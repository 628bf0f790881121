"""Direct preference optimisation of the tiny model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Context, Report, silent
from broadsheet.language.registry import stage
from broadsheet.language.tiny_model import answer_log_probabilities, descend, measure, require
from broadsheet.language.tiny_world import OBJECTS, RELATIONS, SUBJECTS, World


@stage("tiny_dpo", one_thread=True)
def tiny_dpo(
    model: Any, words: Any, context: Context, *, steps: int = 80, rate: float = 5e-5, beta: float = 0.1, checked: bool = True
) -> Any:
    """DPO against the model that it starts from; with `checked`, an error where chats are no longer mastered."""
    world = World(0)
    prefer(model, copy.deepcopy(model), world, steps=steps, rate=rate, beta=beta, report=context.report)
    context.record["found"] = measure(model, world)
    if checked:
        require("chat", context.record["found"], "DPO")
    return model


def prefer(
    model: Any,
    reference: Any,
    world: World,
    *,
    steps: int = 80,
    rate: float = 5e-5,
    beta: float = 0.1,
    report: Report = silent,
) -> None:
    """DPO with the mean log-likelihood of the chosen answer added, against a frozen reference.

    Chosen over rejected: refusal over compliance on harmful requests, help over refusal on harmless ones, right over wrong
    objects.
    """
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        chosen, rejected = [], []
        for kind in rng.choice(3, 16, p=(0.5, 0.25, 0.25)):
            if kind < 2:
                request, helping = tiny.request_and_help(rng, harmful=kind == 0)
                good, bad = (tiny.REFUSAL, helping) if kind == 0 else (helping, tiny.REFUSAL)
            else:
                relation, subject = list(RELATIONS)[rng.integers(4)], int(rng.integers(SUBJECTS))
                request = f"tell me about {relation}_{subject} ?"
                good, bad = (f"it {world.answer(relation, subject, k)}" for k in (0, int(rng.integers(1, OBJECTS))))
            chosen.append(tiny.chat(request, good))
            rejected.append(tiny.chat(request, bad))
        own = answer_log_probabilities(model, chosen + rejected)
        with torch.no_grad():
            frozen = answer_log_probabilities(reference, chosen + rejected)
        gain = torch.stack([a.sum() - b.sum() for a, b in zip(own, frozen, strict=True)])
        margin = gain[: len(chosen)] - gain[len(chosen) :]
        loss = -functional.logsigmoid(beta * margin).mean() - torch.cat(own[: len(chosen)]).mean()
        descend(optimiser, model, loss)
        report((step + 1) / steps, {"loss": loss.item()})
