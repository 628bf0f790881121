"""Losses of post-training where the answer is known, and wrong ways to compute them."""

from __future__ import annotations

from typing import Any

import numpy as np

from broadsheet.errors import MissingExtraError
from broadsheet.language.characters import CHARACTERS, character_model, character_tokenizer
from broadsheet.language.post_training.losses import (
    IGNORED,
    answer_log_probabilities,
    dpo_loss,
    fine_tuning_loss,
    length_normalised_dpo_loss,
)
from broadsheet.language.post_training.parity import Pair, our_pair_losses, padded, trl_pair_loss
from broadsheet.language.post_training.settings import DPOSettings

try:
    import torch
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

Arms = dict[str, dict[str, float]]


def random_pairs(count: int, rng: np.random.Generator) -> list[Pair]:
    """Prompts and answers of 1 to 12 random characters."""

    def text() -> str:
        return "".join(rng.choice(list(CHARACTERS[2:]), rng.integers(1, 13)))

    return [(text(), text(), text()) for _ in range(count)]


def pair_loss_errors(seed: int, count: int) -> Arms:
    """Largest error of the length-normalised loss in float64 against a plain loop over tokens, padded on the left and on the
    right, and against TRL's in float32; so for means that count the prompt or leave the end out, and for sums."""
    rng = np.random.default_rng([seed, 5])
    pairs, words = random_pairs(count, rng), character_tokenizer()
    settings = DPOSettings(batch=count, beta=5.0)
    now, before = (character_model(seed + k).eval() for k in (0, 1))
    peer = trl_pair_loss(now, before, words, pairs, settings)
    ours = our_pair_losses(now, before, words, pairs, settings).mean().item()
    now, before = (model.double() for model in (now, before))
    for model in (now, before):
        model.set_attn_implementation("sdpa")  # the eager one gives no numbers for padding in float64
    exact = np.array([_by_hand(now, before, words, pair) for pair in pairs])
    found = [
        our_pair_losses(now, before, words, pairs, settings, side).detach().numpy() for side in ("left", "right")
    ]  # fmt: skip
    arms = {"system": {"error": max(np.abs(one - exact).max() for one in found), "trl_error": abs(peer - ours)}}
    for name in ("prompt-counted", "end-left-out", "sums"):
        wrong = _wrong(now, before, words, pairs, name)
        arms[name] = {"error": np.abs(wrong - exact).max(), "trl_error": abs(wrong.mean() - peer)}
    return arms


def _by_hand(now: Any, before: Any, words: Any, pair: Pair) -> float:
    """The loss of one pair, from the logits of each text alone."""
    prompt, chosen, rejected = pair

    def mean(model: Any, answer: str) -> float:
        asked = words(prompt, add_special_tokens=False)["input_ids"]
        ids = [*asked, *words(answer, add_special_tokens=False)["input_ids"], words.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].numpy()
        laws = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return float(np.mean([laws[t - 1, ids[t]] for t in range(len(asked), len(ids))]))

    margin = (mean(now, chosen) - mean(before, chosen)) - (mean(now, rejected) - mean(before, rejected))
    return float(np.log1p(np.exp(-5.0 * margin)))


def _wrong(now: Any, before: Any, words: Any, pairs: list[Pair], how: str) -> np.ndarray:
    sides = []
    for answer in (1, 2):
        ids, attention, said = padded(words, [(pair[0], pair[answer]) for pair in pairs], "left")
        if how == "end-left-out":
            said[:, -1] = False
        with torch.no_grad():
            (one, tokens), (other, _) = (answer_log_probabilities(model, ids, attention, said) for model in (now, before))
        counted = attention.sum(-1) if how == "prompt-counted" else tokens
        sides.append((one - other) / (1 if how == "sums" else counted))
    return -torch.nn.functional.logsigmoid(5.0 * (sides[0] - sides[1])).numpy()


def length_bias(seed: int, pairs: int) -> Arms:
    """How much the loss of pairs changes, at most, when each token of the chosen answer, with its log-ratio, is written twice:
    length-normalised, and plain."""
    rng = np.random.default_rng([seed, 6])
    lengths = rng.integers(2, 12, size=(2, pairs))
    ratios = [[rng.normal(0.3 * (side == 0), 0.5, size=n) for n in row] for side, row in enumerate(lengths)]
    chosen, rejected = (torch.tensor([one.sum() for one in row]) for row in ratios)
    none = torch.zeros(pairs, dtype=torch.float64)
    n_chosen, n_rejected = (torch.tensor(row) for row in lengths)
    once = length_normalised_dpo_loss(chosen, rejected, none, none, n_chosen, n_rejected)
    twice = length_normalised_dpo_loss(2 * chosen, rejected, none, none, 2 * n_chosen, n_rejected)
    plain = dpo_loss(chosen, rejected, none, none) - dpo_loss(2 * chosen, rejected, none, none)
    return {
        "system": {"length_bias": float((once - twice).abs().max())},
        "plain-dpo": {"length_bias": float(plain.abs().max())},
    }


def cut_batches(seed: int, texts: int) -> Arms:
    """Relative difference of the gradient of a batch of fine-tuning taken whole and text by text: tokens over those of the
    batch, and the mean of each text's own mean."""
    words, model = character_tokenizer(), character_model(seed).double()
    model.set_attn_implementation("sdpa")
    told = [(prompt, answer) for prompt, answer, _ in random_pairs(texts, np.random.default_rng([seed, 7]))]
    ids, attention, said = padded(words, told, "right")
    labels = ids.where(said, IGNORED)

    def gradient(parts: list[slice], tokens: Any) -> torch.Tensor:
        model.zero_grad()
        for part in parts:
            loss = fine_tuning_loss(model(input_ids=ids[part], attention_mask=attention[part]).logits, labels[part], tokens)
            (loss if tokens is not None else loss / len(parts)).backward()
        return torch.cat([weights.grad.flatten() for weights in model.parameters()])

    one_by_one = [slice(k, k + 1) for k in range(texts)]
    whole = gradient([slice(0, texts)], said.sum())
    apart = {"system": gradient(one_by_one, said.sum()), "mean-of-means": gradient(one_by_one, None)}
    return {name: {"cut_error": float((found - whole).norm() / whole.norm())} for name, found in apart.items()}
