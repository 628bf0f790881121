"""The start of a closed task: a tiny model fine-tuned on demonstrations of which a part is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from broadsheet.language.chain import Context
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.closed_tasks import task_named
from broadsheet.language.models import log_probabilities, padded
from broadsheet.language.registry import stage


@stage("closed_task_sft", one_thread=True)
def closed_task_sft(
    model: Any,
    words: Any,
    context: Context,
    *,
    task: str = "make number",
    steps: int = 900,
    rate: float = 3e-3,
    batch: int = 64,
    right: float = 0.6,
) -> Any:
    """AdamW on the answers of demonstrations, by default of a new model; the mean loss of the last tenth is kept."""
    if model is None:
        words, model = character_tokenizer(), character_model(context.seed)
    shown = task_named(task).demonstrations(steps * batch, context.seed, right)
    asked = words([prompt for prompt, _ in shown])["input_ids"]
    told = [[*ids, words.eos_token_id] for ids in words([answer for _, answer in shown])["input_ids"]]
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        part = slice(step * batch, (step + 1) * batch)
        ids, _ = padded([[*one, *other] for one, other in zip(asked[part], told[part], strict=True)])
        said, _ = padded([[0] * len(one) + [1] * len(other) for one, other in zip(asked[part], told[part], strict=True)])
        log_p = log_probabilities(model, ids)
        loss = -(log_p * said[:, 1:]).sum() / said.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        context.report((step + 1) / steps, {"loss": losses[-1]})
    context.record["loss"] = float(np.mean(losses[-max(1, steps // 10) :]))
    return model, words
