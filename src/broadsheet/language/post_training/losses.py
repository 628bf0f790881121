"""Losses of post-training: of what the assistant says, and of pairs of answers (arXiv 2411.15124, sections 4 and 5).

All work on log-probabilities summed over an answer, with the number of its tokens: the end counts, the prompt does not.
"""

from __future__ import annotations

from typing import Any

from broadsheet.errors import MissingExtraError

try:
    from torch import Tensor
    from torch.nn.functional import cross_entropy, logsigmoid
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

IGNORED = -100
"""The label of a token that nothing is learned from."""


def token_log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token but the first, given those before: (texts, tokens - 1) of (texts, tokens, words)."""
    return logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


def places(attention: Tensor) -> Tensor:
    """Positions of tokens that count from the first one that is no padding, on whichever side that is; (texts, tokens)."""
    return (attention.long().cumsum(-1) - 1).clamp(min=0)


def answer_log_probabilities(model: Any, ids: Tensor, attention: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Summed log-probability of each answer, and the number of its tokens; both (texts,).

    **Arguments:** `ids`, `attention`: (texts, tokens), padded on either side; `answer`: true at the answer's tokens, its end
    among them.
    """
    logits = model(input_ids=ids, attention_mask=attention, position_ids=places(attention)).logits
    counted = answer[:, 1:].bool()
    return token_log_probabilities(logits, ids).where(counted, 0.0).sum(-1), counted.sum(-1)


def fine_tuning_loss(logits: Tensor, labels: Tensor, tokens: int | Tensor | None = None) -> Tensor:
    """Cross-entropy summed over what the assistant says, over the number of its tokens.

    **Arguments:** `logits`: (texts, tokens, words); `labels`: (texts, tokens), `IGNORED` where nothing is learned; `tokens`:
    how many are learned from in the whole batch, of which this may be a part: then the sum over parts is the loss of the
    batch, however it is cut. None: of this part.
    """
    targets = labels[:, 1:]
    total = cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / ((targets != IGNORED).sum() if tokens is None else tokens)


def dpo_loss(chosen: Tensor, rejected: Tensor, chosen_before: Tensor, rejected_before: Tensor, beta: float = 0.1) -> Tensor:
    """Loss of each pair: the margin is of summed log-ratios, so that a longer answer weighs more."""
    return -logsigmoid(beta * ((chosen - chosen_before) - (rejected - rejected_before)))


def length_normalised_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_before: Tensor,
    rejected_before: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float = 5.0,
) -> Tensor:
    """Loss of each pair, `-log sigmoid(beta m)`: the margin m is of mean log-ratios a token.

    **Arguments:** summed log-probabilities of the chosen and the rejected answers, from the model and from the one before
    training, and the numbers of their tokens; all (pairs,). `beta`: 5 belongs to means, 0.1 to sums.
    """
    return -logsigmoid(beta * ((chosen - chosen_before) / chosen_tokens - (rejected - rejected_before) / rejected_tokens))


def simpo_loss(
    chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, beta: float = 2.0, margin: float = 0.0
) -> Tensor:
    """Loss of each pair by mean log-probabilities a token, without a reference; `margin`: the lead that is wanted of the chosen
    answer (arXiv 2405.14734)."""
    return -logsigmoid(beta * (chosen / chosen_tokens - rejected / rejected_tokens) - margin)
