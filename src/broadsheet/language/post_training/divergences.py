"""How far a model's answers have gone from those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadsheet.errors import MissingExtraError
from broadsheet.language.post_training.losses import places
from broadsheet.language.post_training.sampling import Prompt, answers

try:
    import torch
except ImportError:
    raise MissingExtraError("Reading language models", "language") from None


@torch.no_grad()
def divergence(
    model: Any, reference: Any, words: Any, prompts: Sequence[Prompt], *, tokens: int, samples: int = 4, batch: int = 512
) -> float:
    """KL divergence of a model's answers from a reference's, nats an answer: of `samples` drawn answers to each prompt summed
    over their tokens, at each over all words, so that drawing adds little noise."""
    drawn = answers(model, words, prompts, tokens=tokens, samples=samples, temperature=1.0, batch=batch)
    asked = [_asked(words, prompt) for prompt in prompts for _ in range(samples)]
    said = [words(text, add_special_tokens=False)["input_ids"] for texts in drawn for text in texts]
    device, total = next(model.parameters()).device, 0.0
    for start in range(0, len(asked), batch):
        texts = list(zip(asked[start : start + batch], said[start : start + batch], strict=True))
        width = max(len(prompt) + len(answer) for prompt, answer in texts)
        ids = torch.full((len(texts), width), words.pad_token_id or 0)
        attention, counted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(texts):
            held = [*prompt, *answer]
            ids[row, : len(held)] = torch.tensor(held)
            attention[row, : len(held)] = 1
            ends = len(held) - (len(answer) == tokens)  # what decides whether it ends counts, where there was room for more
            counted[row, len(prompt) - 1 : ends] = True
        given = {"input_ids": ids.to(device), "attention_mask": attention.to(device)}
        own, other = (one(**given, position_ids=places(given["attention_mask"])).logits.float().log_softmax(-1)
                      for one in (model, reference))  # fmt: skip
        apart = (own.exp() * (own - other)).sum(-1)
        total += float(apart.where(counted.to(device), 0.0).sum())
    return total / len(asked)


def _asked(words: Any, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return list(words(prompt)["input_ids"])
    return list(words.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
