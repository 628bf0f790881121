"""Answers of a model to prompts: greedy, or several drawn at a temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.language.models import positions
from broadsheet.language.post_training.trainers import chat_template

try:
    import torch
    from transformers import GenerationConfig
except ImportError:
    raise MissingExtraError("Reading language models", "language") from None

Prompt = str | list[dict[str, str]]
"""A text, or the turns of a conversation."""


def answers(
    model: Any,
    words: Any,
    prompts: Sequence[Prompt],
    *,
    tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    batch: int = 64,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> list[list[str]]:
    """`samples` answers to each prompt, as texts without special tokens.

    **Arguments:** `tokens`: longest answer; `temperature`: 0 takes the likeliest token, whatever the model's own settings of
    generation say; `batch`: answers that are generated at once; `seed`: of the draws, which leave PyTorch's own alone.

    **Raises:** `InputError` for a prompt that with an answer is longer than the model's context.
    """
    chat_template(words)
    limit, device = positions(model), next(model.parameters()).device
    texts = [_text(words, prompt) for prompt in prompts]
    written: list[str] = []
    config = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature > 0 else None,
        top_p=1.0 if temperature > 0 else None,
        eos_token_id=_ends(model, words),
        pad_token_id=words.pad_token_id if words.pad_token_id is not None else words.eos_token_id,
    )
    rows = [number for number in range(len(texts)) for _ in range(samples)]
    side, model_own = words.padding_side, model.generation_config
    words.padding_side, model.generation_config = "left", config  # generate fills what is not given from the model's own
    try:
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type), torch.no_grad():
            torch.manual_seed(seed)
            for start in range(0, len(rows), batch):
                some = rows[start : start + batch]
                given = words([texts[row] for row in some], return_tensors="pt", padding=True, add_special_tokens=False)
                ids, mask = given["input_ids"].to(device), given["attention_mask"].to(device)
                if limit is not None and (longest := int(mask.sum(1).max())) + tokens > limit:
                    row = some[int(mask.sum(1).argmax())]
                    raise InputError(
                        f"Prompt {row + 1} has {longest} tokens; with an answer of {tokens} that is more than the model's "
                        f"context of {limit}."
                    )
                made = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
                written += words.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
                if report:
                    report(min(1.0, (start + batch) / len(rows)))
    finally:
        words.padding_side, model.generation_config = side, model_own
    return [written[start : start + samples] for start in range(0, len(written), samples)]


def _text(words: Any, prompt: Prompt) -> str:
    """A prompt as the model reads it; a text begins as the tokenizer begins texts."""
    if isinstance(prompt, str):
        return (words.bos_token or "") + prompt if _begins(words) else prompt
    return words.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def _begins(words: Any) -> bool:
    return words.bos_token_id is not None and words("a")["input_ids"][:1] == [words.bos_token_id]


def _ends(model: Any, words: Any) -> list[int] | None:
    """Tokens that end an answer: the tokenizer's and the model's."""
    own = model.generation_config.eos_token_id
    own = [own] if isinstance(own, int) else own or []
    return list(dict.fromkeys([*([words.eos_token_id] if words.eos_token_id is not None else []), *own])) or None
