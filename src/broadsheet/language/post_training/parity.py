"""What TRL's trainers say of one batch, beside our own losses."""

from __future__ import annotations

import copy
from typing import Any

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.language.post_training.losses import (
    answer_log_probabilities,
    dpo_loss,
    length_normalised_dpo_loss,
    simpo_loss,
)
from broadsheet.language.post_training.settings import DPOSettings
from broadsheet.language.post_training.trainers import Run, dataset, training_arguments

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

Pair = tuple[str, str, str]
"""Prompt, chosen and rejected answer, as texts without their ends."""


def padded(words: Any, texts: list[tuple[str, str]], side: str, end: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Token numbers, attention, and which tokens are of the answers; of (prompt, answer), padded on a side; `end`: with the
    token that ends an answer."""
    asked = [words(prompt, add_special_tokens=False)["input_ids"] for prompt, _ in texts]
    said = [words(text, add_special_tokens=False)["input_ids"] + [words.eos_token_id] * end for _, text in texts]
    width = max(len(a) + len(b) for a, b in zip(asked, said, strict=True))
    ids = torch.full((len(texts), width), words.pad_token_id)
    attention, answer = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (a, b) in enumerate(zip(asked, said, strict=True)):
        start = width - len(a) - len(b) if side == "left" else 0
        ids[row, start : start + len(a) + len(b)] = torch.tensor(a + b)
        attention[row, start : start + len(a) + len(b)] = 1
        answer[row, start + len(a) : start + len(a) + len(b)] = True
    return ids, attention, answer


def our_pair_losses(
    model: Any, reference: Any, words: Any, pairs: list[Pair], settings: DPOSettings, side: str = "left"
) -> Tensor:
    """Our loss of each pair; (pairs,)."""
    texts = [(prompt, chosen) for prompt, chosen, _ in pairs] + [(prompt, rejected) for prompt, _, rejected in pairs]
    batch = padded(words, texts, side)
    (now, tokens), (before, _) = (answer_log_probabilities(one, *batch) for one in (model, reference))
    half = len(pairs)
    chosen, rejected, chosen_before, rejected_before = now[:half], now[half:], before[:half], before[half:]
    if settings.loss == "sigmoid":
        return dpo_loss(chosen, rejected, chosen_before, rejected_before, settings.beta)
    if settings.loss == "simpo":
        return simpo_loss(chosen, rejected, tokens[:half], tokens[half:], settings.beta, settings.margin)
    return length_normalised_dpo_loss(
        chosen, rejected, chosen_before, rejected_before, tokens[:half], tokens[half:], settings.beta
    )


def trl_pair_loss(model: Any, reference: Any, words: Any, pairs: list[Pair], settings: DPOSettings) -> float:
    """The loss that TRL's trainer has of all pairs as one batch.

    **Raises:** `InputError` where the settings' batch is not the number of pairs.
    """
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    if settings.batch != len(pairs):
        raise InputError(f"The batch is {settings.batch}; that of {len(pairs)} pairs is wanted.")
    rows = dataset([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs])
    own: dict[str, Any] = {"beta": settings.beta, "loss_type": settings.loss, "max_length": settings.max_tokens}
    kind: tuple[Any, Any] = (DPOConfig, DPOTrainer)
    more: dict[str, Any] = {"ref_model": copy.deepcopy(reference)}
    if settings.loss == "simpo":
        kind, more, own = (CPOConfig, CPOTrainer), {}, own | {"cpo_alpha": 0.0, "simpo_gamma": settings.margin}
    with training_arguments(Run(), settings, kind[0], model, **own) as arguments:
        trainer = kind[1](model=model, args=arguments, train_dataset=rows, processing_class=words, **more)
        batch = next(iter(trainer.get_train_dataloader()))
        with torch.no_grad():
            return float(trainer.compute_loss(model, batch))
