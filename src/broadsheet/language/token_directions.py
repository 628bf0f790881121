"""Which tokens a vector of the residual stream points to: exact scores and ranks against a large vocabulary, in blocks.

Where the processor multiplies bfloat16 faster than float32, all scores are made in bfloat16 and the first few of each vector
again in float32; a bound on what rounding can have done says for which vectors this is proof, and the others are done whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from broadsheet.errors import InputError

NORMS = ("raw", "final_norm", "cosine")
"""How a vector is compared with the tokens' directions E: `raw`, E w; `final_norm`, E norm(w), as if the residual stream were
w; `cosine`, of w with each."""
BLOCK = 8192
"""Tokens that are compared at a time in float32."""
SPARE = (22, 500)
"""Candidates beyond the first k of a vector whose scores are made again in float32, and as many where those do not suffice."""
GROUP = 64
"""Tokens of which the best is looked for first."""
CANDIDATES = 2**17
"""Numbers of directions that are gathered at a time: few enough to stay in the processor's cache."""
ROUNDING = 2.0**-8
"""Twice the relative error of a number rounded to bfloat16."""


class TokenDirections:
    """The directions of tokens that vectors are compared with.

    **Arguments:** `unembedding`: (tokens, width), finite, any precision; `final_norm`: the norm before it; `norm`: see `NORMS`;
    `coarse`: whether scores are made in bfloat16 first, by default where the processor is made for it.

    **Raises:** `InputError` for an unknown norm.
    """

    def __init__(self, unembedding: torch.Tensor, final_norm: Any, norm: str = "raw", *, coarse: bool | None = None) -> None:
        if norm not in NORMS:
            raise InputError(f"The norm is {norm!r}; {', '.join(NORMS)} are there.")
        self.norm, self._matrix, self._final_norm = norm, unembedding, final_norm
        self.tokens, self.width = unembedding.shape
        self.unproved = 0
        """Vectors whose first tokens the bound could not prove, so that all scores were made in float32."""
        self._known_spread: tuple[torch.Tensor, torch.Tensor] | None = None
        fast = unembedding.device.type == "cpu" and self.tokens > BLOCK and _multiplies_bfloat16()
        self._coarse = self._rounded() if (fast if coarse is None else coarse) else None

    def readers(self, vectors: torch.Tensor) -> torch.Tensor:
        """What the tokens' directions are multiplied with: vectors (n, width), normed as the comparison asks, float32."""
        vectors = vectors.to(self._matrix.device, torch.float32)
        if self.norm == "final_norm":
            with torch.no_grad():
                return self._final_norm(vectors)
        return normalize(vectors, dim=1) if self.norm == "cosine" else vectors

    def directions(self, tokens: Any = slice(None)) -> torch.Tensor:
        """The directions of some tokens, (…, width), float32."""
        found = self._matrix[tokens].float()
        return normalize(found, dim=-1) if self.norm == "cosine" else found

    def scores(self, vectors: torch.Tensor) -> torch.Tensor:
        """All scores (n, tokens) of a few vectors (n, width)."""
        return self.readers(vectors) @ self.directions().T

    def moments(self, readers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation over all tokens of the scores of readers (n, width), without making them."""
        mean, covariance = self._spread()
        return readers @ mean, ((readers @ covariance) * readers).sum(1).clamp(min=0).sqrt()

    def top(self, readers: torch.Tensor, k: int, signs: Sequence[int] = (1,)) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """For each sign the k best scores of each reader (n, width), best first, and their tokens, (n, k) each: the highest for
        1, the lowest for -1."""
        if self._coarse is None or k + SPARE[0] >= self.tokens:
            found = [self._whole_top(sign * readers, k) for sign in signs]
        else:
            rounded = readers.bfloat16()
            scores = self._coarse[0] @ rounded.T
            error = self._error(readers, rounded)
            found = []
            for sign in signs:
                best, tokens, unsure = self._sure_top(readers, *_candidates(scores, k + SPARE[0], sign), error, sign, k)
                if len(unsure):
                    best[unsure], tokens[unsure] = self._next_top(readers[unsure], scores[:, unsure].T, error[unsure], sign, k)
                found.append((best, tokens))
        return tuple((sign * best, tokens) for sign, (best, tokens) in zip(signs, found, strict=True))

    def _next_top(
        self, readers: torch.Tensor, scores: torch.Tensor, error: torch.Tensor, sign: int, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_sure_top`, by more candidates of scores (n, tokens), or by all."""
        values, tokens = scores.topk(min(k + SPARE[1], self.tokens), dim=1, largest=sign > 0)
        best, found, unsure = self._sure_top(readers, values, tokens, error, sign, k)
        if len(unsure):
            self.unproved += len(unsure)
            best[unsure], found[unsure] = self._whole_top(sign * readers[unsure], k)
        return best, found

    def _whole_top(self, readers: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """By all scores in float32, a block of tokens at a time."""
        best: Any = None
        for start in range(0, self.tokens, BLOCK):
            scores = readers @ self.directions(slice(start, start + BLOCK)).T
            values, tokens = scores.topk(min(k, scores.shape[1]), dim=1)
            tokens = tokens + start
            if best is not None:
                values, tokens = torch.cat([best[0], values], 1), torch.cat([best[1], tokens], 1)
            values, order = values.topk(min(k, values.shape[1]), dim=1)
            best = values, tokens.gather(1, order)
        return best

    def _sure_top(
        self, readers: torch.Tensor, values: torch.Tensor, tokens: torch.Tensor, error: torch.Tensor, sign: int, k: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The first k by exact scores of candidates (n, …), best first in bfloat16; for which readers others may be better."""
        best, order = (sign * self._exact(readers, tokens)).topk(k, dim=1)
        last = sign * values[:, -1].float()
        unsure = torch.nonzero(best[:, -1] < last + ROUNDING * last.abs() + error)[:, 0]
        return best, tokens.gather(1, order), unsure

    def _exact(self, readers: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Scores (n, candidates) in float32 of each reader's own candidates, a few readers at a time."""
        made = torch.empty(tokens.shape, device=readers.device)
        step = max(1, CANDIDATES // (tokens.shape[1] * self.width))
        for start in range(0, len(tokens), step):
            part = slice(start, start + step)
            torch.bmm(self.directions(tokens[part]), readers[part, :, None], out=made[part, :, None])
        return made

    def _error(self, readers: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """How far a score of rounded readers can be from the exact one, before it is itself rounded; by Cauchy and Schwarz, and
        for the sum in float32 by its number of terms."""
        assert self._coarse is not None
        _, longest, farthest = self._coarse
        length = torch.linalg.vector_norm(rounded, dim=1, dtype=torch.float32)
        moved = torch.linalg.vector_norm(readers - rounded.float(), dim=1)
        summing = self.width * 2.0**-23
        return moved * longest + length * farthest + summing * length * longest

    def _rounded(self) -> tuple[torch.Tensor, float, float]:
        """The directions in bfloat16, the length of the longest, and the farthest that rounding moved one."""
        plain = self.norm != "cosine" and self._matrix.dtype == torch.bfloat16
        made = self._matrix.contiguous() if plain else torch.empty(self._matrix.shape, dtype=torch.bfloat16)
        longest = farthest = 0.0
        for start in range(0, self.tokens, BLOCK):
            part = slice(start, start + BLOCK)
            exact = self.directions(part)
            if not plain:
                made[part] = exact
            longest = max(longest, float(torch.linalg.vector_norm(exact, dim=1).max()))
            farthest = max(farthest, float(torch.linalg.vector_norm(exact - made[part].float(), dim=1).max()))
        return made, longest, farthest

    def _spread(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (width,) and covariance (width, width) of the tokens' directions."""
        if self._known_spread is None:
            total = torch.zeros(self.width, dtype=torch.float64)
            square = torch.zeros(self.width, self.width, dtype=torch.float64)
            for start in range(0, self.tokens, BLOCK):
                part = self.directions(slice(start, start + BLOCK))
                total += part.sum(0, dtype=torch.float64).cpu()
                square += (part.T @ part).cpu()
            mean = total / self.tokens
            covariance = square / self.tokens - torch.outer(mean, mean)
            self._known_spread = mean.float().to(self._matrix.device), covariance.float().to(self._matrix.device)
        return self._known_spread


def _candidates(scores: torch.Tensor, count: int, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest (or lowest) of scores (tokens, n) by column, (n, count) each, best first, with their tokens.

    They are in those groups of tokens that have the best of their own, and so in as many groups; these are found faster than a
    column can be sorted.
    """
    tokens, n = scores.shape
    whole = tokens // GROUP * GROUP
    parts = [scores[:whole].view(-1, GROUP, n), scores[whole:].view(1, -1, n)]
    extreme = torch.amax if sign > 0 else torch.amin
    best = torch.cat([extreme(part, dim=1) for part in parts if part.shape[1]]).T.contiguous()
    groups = best.topk(min(count, best.shape[1]), dim=1, largest=sign > 0).indices
    within = (groups[..., None] * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)
    outside = within >= tokens
    values = scores.T.gather(1, within.clamp(max=tokens - 1)).masked_fill_(outside, -sign * torch.inf)
    values, order = values.topk(count, dim=1, largest=sign > 0)
    return values, within.gather(1, order)


def _multiplies_bfloat16() -> bool:
    """Whether the processor has instructions that multiply and add bfloat16."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("amx_tile"))
