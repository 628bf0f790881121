"""Weights on a grid of integers, and the ways to choose which: round to nearest, FlexRound, AdaRound, AdaQuant.

A quantiser holds a matrix (outputs, inputs) and says what it is on its grid, differentiably in what it learns. Grids are those
of `broadsheet.numerics.quantisation`, `step (codes - zero)`; what shares a step is a granule: the whole matrix, a row, or a
group of inputs of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from broadsheet.errors import InputError
from broadsheet.numerics.quantisation import code_range, search_grid, whole_grid

GRANULES = ("tensor", "channel", "group")


@dataclass(frozen=True)
class Scheme:
    """The grids that matrices get.

    **Arguments:** `bits`: 2 to 8; `symmetric`: zero is the middle of the grid; `per`: what has a step of its own, the
    `tensor`, a `channel` (an output) or a `group` of `group_size` inputs of a channel; `clip`: whether the range may be
    smaller than that of the weights, where that changes them less; `norm`: the power of the change that this minimises (2;
    the official code has 2.4).

    **Raises:** `InputError` for anything else.
    """

    bits: int = 4
    symmetric: bool = True
    per: str = "channel"
    group_size: int = 128
    clip: bool = True
    norm: float = 2.0

    def __post_init__(self) -> None:
        code_range(self.bits, self.symmetric)
        if self.per not in GRANULES:
            raise InputError(f"A step per {self.per!r} is unknown; {', '.join(GRANULES)} are there.")
        if self.group_size < 1:
            raise InputError(f"A group has {self.group_size} inputs; 1 or more are wanted.")

    def granules(self, weights: torch.Tensor) -> torch.Tensor:
        """A matrix as (outputs, groups, inputs of a group), a view.

        **Raises:** `InputError` where the inputs are no multiple of the group.
        """
        outputs, inputs = weights.shape
        size = self.group_size if self.per == "group" else inputs
        if inputs % size:
            raise InputError(
                f"{inputs} inputs cannot be divided into groups of {size}; choose a divisor, or a step per channel."
            )
        return weights.reshape(outputs, inputs // size, size)

    def grid(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(step, zero) of a matrix, each (outputs, groups, 1), or (1, 1, 1) where the matrix has one step: those with which
        rounding to nearest changes the weights least."""
        rows = self.granules(weights.detach().float().cpu()).numpy()
        options: dict[str, Any] = {"symmetric": self.symmetric, "per_channel": True}
        flat = rows.reshape(1, -1) if self.per == "tensor" else rows.reshape(-1, rows.shape[-1])
        made = search_grid(flat, self.bits, power=self.norm, **options) if self.clip else whole_grid(flat, self.bits, **options)
        shape = (1, 1, 1) if self.per == "tensor" else (*rows.shape[:2], 1)
        step, zero = (torch.from_numpy(part.astype(np.float32)).reshape(shape) for part in (made.step, made.zero))
        return step.to(weights.device), zero.to(weights.device)


@dataclass(frozen=True)
class Integers:
    """A matrix on a grid, `step (codes - zero)`.

    **Arguments:** `codes`: (outputs, inputs), int8, or uint8 where asymmetric; `step`, of the model's precision, and
    `zero`, like the codes: (outputs, groups), where one group is a whole row.
    """

    codes: torch.Tensor
    step: torch.Tensor
    zero: torch.Tensor

    def values(self) -> torch.Tensor:
        """The matrix, in the precision of the step, by the arithmetic with which compressed-tensors unpacks it."""
        dtype, outputs = self.step.dtype, len(self.step)
        shifted = self.codes.reshape(outputs, self.step.shape[1], -1).to(dtype) - self.zero[..., None].to(dtype)
        return (shifted * self.step[..., None]).reshape(self.codes.shape)


class _Round(torch.autograd.Function):
    """To the nearest integer, halves to even; its derivative is taken for 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class RoundToNearest(torch.nn.Module):
    """The nearest level; nothing is learned. Other quantisers differ in `steps_from_zero`, and in what they learn for it.

    **Arguments:** `weights`: (outputs, inputs); `scheme`: its grids; `grid`: (step, zero) where they are known already.
    """

    rows: torch.Tensor
    first_step: torch.Tensor
    zero: torch.Tensor
    ends: torch.Tensor

    def __init__(self, weights: torch.Tensor, scheme: Scheme, grid: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__()
        step, zero = scheme.grid(weights) if grid is None else grid
        low, high = code_range(scheme.bits, scheme.symmetric)
        self.symmetric, self.shape = scheme.symmetric, weights.shape
        self.register_buffer("rows", scheme.granules(weights.detach().float()))
        self.register_buffer("first_step", step)
        self.register_buffer("zero", zero)
        self.register_buffer("ends", torch.stack([low - zero, high - zero]))

    def step(self) -> torch.Tensor:
        """The step of each granule."""
        return self.first_step

    def steps_from_zero(self) -> torch.Tensor:
        """Codes less zero, (outputs, groups, inputs of a group): integers, but for what AdaRound has not decided yet."""
        return self.clipped((self.rows / self.step()).round())

    def clipped(self, steps: torch.Tensor) -> torch.Tensor:
        """What the grid has room for; the derivative is 1 on its two ends, and 0 outside."""
        return torch.clamp(steps, self.ends[0], self.ends[1])

    def forward(self) -> torch.Tensor:
        """The matrix (outputs, inputs) on its grid."""
        return (self.step() * self.steps_from_zero()).reshape(self.shape)

    def penalty(self, share: float) -> torch.Tensor | float:
        """What the loss has besides, at this share of the training."""
        return 0.0

    def decide(self) -> None:
        """Leaves nothing between two levels; called when the training ends."""

    @torch.no_grad()
    def frozen(self, dtype: torch.dtype = torch.float32) -> Integers:
        """What is kept of the matrix, with its steps in a precision."""
        self.decide()
        kind = torch.int8 if self.symmetric else torch.uint8
        groups = self.rows.shape[:2]
        codes = (self.steps_from_zero() + self.zero).to(kind).reshape(self.shape)
        step, zero = (part.detach()[..., 0].expand(groups).contiguous() for part in (self.step(), self.zero))
        return Integers(codes, step.to(dtype), zero.to(kind))


class FlexRound(RoundToNearest):
    """Rounds W / (s1 S2 s3) and multiplies by s1 alone (arXiv 2306.00317).

    The step s1, a number S2 for each weight and s3 for each output are learned as logarithms, S2 and s3 from 1 on. The
    derivative by S2 is in proportion to the weight, so that large weights move further, several levels where that helps.

    **Arguments:** `learn_step`, `elementwise`, `row_scale`: whether s1, S2 and s3 are learned.
    """

    def __init__(
        self,
        weights: torch.Tensor,
        scheme: Scheme,
        grid: tuple[torch.Tensor, torch.Tensor] | None = None,
        *,
        learn_step: bool = True,
        elementwise: bool = True,
        row_scale: bool = True,
    ) -> None:
        super().__init__(weights, scheme, grid)
        self.log_step = torch.nn.Parameter(self.first_step.log(), requires_grad=learn_step)
        self.log_weights = torch.nn.Parameter(
            torch.zeros_like(self.rows[..., :1] if not elementwise else self.rows), elementwise
        )
        self.log_rows = torch.nn.Parameter(torch.zeros_like(self.rows[:, :1, :1]), row_scale)

    def step(self) -> torch.Tensor:
        return self.log_step.exp()

    def steps_from_zero(self) -> torch.Tensor:
        return self.clipped(_Round.apply(self.rows / (self.log_step + self.log_weights + self.log_rows).exp()))


class AdaRound(RoundToNearest):
    """Learns of each weight whether it is rounded up or down, on a fixed grid (arXiv 2004.10568).

    What is added to the level below is h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1). A penalty, weight * sum(1 - |2 h - 1|^beta),
    drives h to 0 or 1: beta falls from 20 to 2 after a fifth of the training, in which there is none.
    """

    below: torch.Tensor
    weight, warm_up, betas = 0.01, 0.2, (20.0, 2.0)

    def __init__(self, weights: torch.Tensor, scheme: Scheme, grid: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__(weights, scheme, grid)
        x = self.rows / self.first_step
        self.register_buffer("below", x.floor())
        self.logits = torch.nn.Parameter(torch.logit((x - self.below + 0.1) / 1.2))
        self.decided = False

    def up(self) -> torch.Tensor:
        """h, from 0 to 1; at the end 0 or 1."""
        return (self.logits >= 0).float() if self.decided else (1.2 * self.logits.sigmoid() - 0.1).clamp(0, 1)

    def steps_from_zero(self) -> torch.Tensor:
        return self.clipped(self.below + self.up())

    def penalty(self, share: float) -> torch.Tensor | float:
        if share < self.warm_up:
            return 0.0
        first, last = self.betas
        beta = first + (last - first) * (share - self.warm_up) / (1 - self.warm_up)
        return self.weight * (1 - (2 * self.up() - 1).abs().pow(beta)).sum()

    def decide(self) -> None:
        self.decided = True


class AdaQuant(RoundToNearest):
    """Adds a learned number V to each weight before it is rounded, and learns the step (arXiv 2006.10518).

    V is counted in steps of the grid that it starts with, so that a rate of learning means the same for all matrices.
    """

    def __init__(self, weights: torch.Tensor, scheme: Scheme, grid: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__(weights, scheme, grid)
        self.log_step = torch.nn.Parameter(self.first_step.log())
        self.added = torch.nn.Parameter(torch.zeros_like(self.rows))

    def step(self) -> torch.Tensor:
        return self.log_step.exp()

    def steps_from_zero(self) -> torch.Tensor:
        return self.clipped(_Round.apply((self.rows + self.first_step * self.added) / self.step()))


QUANTISERS: dict[str, type[RoundToNearest]] = {
    "rtn": RoundToNearest,
    "flexround": FlexRound,
    "adaround": AdaRound,
    "adaquant": AdaQuant,
}
