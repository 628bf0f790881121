"""How much better each token was than expected: generalised advantage estimation (arXiv 1506.02438) over answers."""

from __future__ import annotations

from broadsheet.errors import MissingExtraError

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("Training language models", "language") from None


def token_rewards(score: Tensor, log_ratio: Tensor, valid: Tensor, beta: float) -> Tensor:
    """Reward of each token: `-beta (log pi - log reference)`, and the answer's score at its last token; (answers, tokens).

    **Arguments:** `score`: (answers,); `log_ratio`: (answers, tokens), of the model that answered to the reference; `valid`:
    true up to each answer's last token.
    """
    rewards = -beta * log_ratio.where(valid, 0.0)
    last = valid.long().sum(-1) - 1
    return rewards.index_put((torch.arange(len(score), device=score.device), last), score.to(rewards.dtype), accumulate=True)


def generalised_advantages(
    rewards: Tensor, values: Tensor, valid: Tensor, discount: float = 1.0, trace: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both (answers, tokens); 0 after an answer's last token.

    With delta_t = r_t + discount V_{t+1} - V_t: A_t = delta_t + discount trace A_{t+1}, and returns are A + V. A `trace` of 1
    gives the sum of what follows less V_t, a trace of 0 delta_t alone.

    **Arguments:** `values`: of the state before each token, (answers, tokens); `valid`: true up to each answer's last token.
    """
    values = values.where(valid, 0.0)
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    delta = (rewards + discount * after - values).where(valid, 0.0)
    advantages = torch.zeros_like(delta)
    following = torch.zeros_like(delta[:, 0])
    for t in range(delta.shape[1] - 1, -1, -1):
        following = delta[:, t] + discount * trace * following
        advantages[:, t] = following
    return advantages, advantages + values


def whitened(values: Tensor, valid: Tensor) -> Tensor:
    """Shifted and scaled to mean 0 and variance 1 over the valid tokens, 0 elsewhere."""
    held = values[valid]
    return ((values - held.mean()) / (held.var(unbiased=False) + 1e-8).sqrt()).where(valid, 0.0)
