"""Choosing the integers of one block: by reconstruction of its output, or of each linear map's, and by GPTQ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import matrix
from broadsheet.language.block_by_block import TokenStates, Walk
from broadsheet.language.hooks import captured
from broadsheet.language.quantisers import QUANTISERS, Integers, RoundToNearest, Scheme
from broadsheet.numerics.gptq import gptq
from broadsheet.numerics.quantisation import Grid

Weights = dict[str, torch.Tensor]
FirstGrid = tuple[torch.Tensor, torch.Tensor]
"""(step, zero), as of `Scheme.grid`."""
Share = Callable[[float], None]
LEARNING_RATES = {"flexround": 3e-3, "adaround": 0.1, "adaquant": 1e-2}
METHODS = (*QUANTISERS, "gptq")


@dataclass(frozen=True)
class Plan:
    """How integers are chosen; see `broadsheet.language.quantisation.quantise`.

    **Raises:** `InputError` for an unknown method or granularity.
    """

    scheme: Scheme
    method: str = "flexround"
    granularity: str = "block"
    iters: int = 500
    lr: float | None = None
    batch: int = 8
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"The method {self.method!r} is unknown; {', '.join(METHODS)} are there.")
        if self.granularity not in ("block", "layer"):
            raise InputError(f"The granularity is {self.granularity!r}; block or layer is wanted.")

    def quantiser(self, module: torch.nn.Module, grid: FirstGrid) -> RoundToNearest:
        """A quantiser for a linear map."""
        return QUANTISERS[self.method](matrix(module), self.scheme, grid, **self.settings)


def quantise_block(
    walk: Walk, layer: int, grids: Mapping[str, FirstGrid], ours: TokenStates, true: TokenStates, plan: Plan, report: Share
) -> dict[str, Integers]:
    """The integers of a block's linear maps, by their names within it.

    **Arguments:** `grids`: those that each map begins with; `ours`: the inputs of the block behind the blocks quantised before;
    `true`: its inputs in the model as it was, which become its outputs there.
    """
    maps, dtype = walk.maps(layer), next(walk.model.parameters()).dtype
    if plan.granularity == "layer" and plan.method != "gptq":
        found = _layer_by_layer(walk, layer, grids, ours, true, plan, report)
        walk.advance(layer, true)
        return found
    walk.advance(layer, true)
    if plan.method == "gptq":
        return _by_gptq(walk, layer, grids, ours, plan.scheme, report)
    quantisers = {name: plan.quantiser(found, grids[name]) for name, found in maps.items()}

    def run(states: torch.Tensor, weights: Weights) -> torch.Tensor:
        return walk.block(layer, states, as_weights(maps, weights))

    reconstruct(run, quantisers, ours, true, plan, layer, report)
    return {name: quantiser.frozen(dtype) for name, quantiser in quantisers.items()}


def as_weights(maps: Mapping[str, torch.nn.Module], values: Weights) -> Weights:
    """Matrices of a block's linear maps as the parameters that they stand for, which `Conv1D` keeps the other way."""
    found = {}
    for name, value in values.items():
        weight = matrix(maps[name])
        found[f"{name}.weight"] = (value if weight is maps[name].weight else value.T).to(weight.dtype)
    return found


def reconstruct(
    run: Callable[[torch.Tensor, Weights], torch.Tensor],
    quantisers: Mapping[str, RoundToNearest],
    given: TokenStates,
    wanted: TokenStates,
    plan: Plan,
    number: int = 0,
    report: Share = lambda share: None,
) -> list[float]:
    """Learns quantisers together: their weights' output on the inputs `given` is to be what is `wanted`. Returns the losses.

    `given` comes through what is quantised already, `wanted` from the weights as they were, so that errors made before are made
    good. The loss is the squared difference, summed over features, averaged over tokens; Adam, its rate falling to 0 as a
    cosine.

    **Arguments:** `run`: from inputs (rows, tokens, width) and weights, by the names of the quantisers, to outputs;
    `number`: of the block, which decides with the seed in which order rows are taken.
    """
    learned = [part for quantiser in quantisers.values() for part in quantiser.parameters() if part.requires_grad]
    if not learned:
        return []
    rate = LEARNING_RATES[plan.method] if plan.lr is None else plan.lr
    optimiser = torch.optim.Adam(learned, rate, foreach=True)
    dice = torch.Generator().manual_seed(plan.seed * 10_007 + number)
    losses, order = [], torch.empty(0, dtype=torch.long)
    for step in range(plan.iters):
        if len(order) < plan.batch:
            order = torch.cat([order, torch.randperm(len(given), generator=dice)])
        rows, order = order[: plan.batch], order[plan.batch :]
        optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / plan.iters)) / 2
        out = run(given[rows], {name: quantiser() for name, quantiser in quantisers.items()})
        error = (out.float() - wanted[rows].to(out.device).float()).square().sum(-1).mean()
        penalty = sum(quantiser.penalty(step / plan.iters) for quantiser in quantisers.values())
        optimiser.zero_grad()
        (error + penalty).backward()
        optimiser.step()
        losses.append(float(error.detach()))
        report((step + 1) / plan.iters)
    return losses


def _layer_by_layer(
    walk: Walk, layer: int, grids: Mapping[str, FirstGrid], ours: TokenStates, true: TokenStates, plan: Plan, report: Share
) -> dict[str, Integers]:
    """Each linear map by itself, in order, its inputs behind those quantised before; the block's weights stay as they were."""
    maps, dtype = walk.maps(layer), next(walk.model.parameters()).dtype
    found: dict[str, Integers] = {}
    for k, (name, module) in enumerate(maps.items()):
        done = as_weights(maps, {other: made.values() for other, made in found.items()})
        given = _watched(walk, layer, ours, module, done, inputs=True)
        wanted = _watched(walk, layer, true, module, {}, inputs=False)
        quantiser = plan.quantiser(module, grids[name])

        def run(states: torch.Tensor, weights: Weights, module: Any = module) -> torch.Tensor:
            own = as_weights({"": module}, weights)[".weight"]
            return torch.func.functional_call(module, {"weight": own}, (states.to(walk.device),))

        reconstruct(
            run, {"": quantiser}, given, wanted, plan, 100 * layer + k, lambda part, k=k: report((k + part) / len(maps))
        )  # fmt: skip
        found[name] = quantiser.frozen(dtype)
        given.close()
        wanted.close()
    return found


def _watched(
    walk: Walk, layer: int, states: TokenStates, module: torch.nn.Module, weights: Weights, *, inputs: bool
) -> TokenStates:
    """The inputs or outputs of a linear map in a block with these weights."""
    found: TokenStates | None = None
    with captured(walk.model, [module], inputs=inputs) as seen:
        for rows, _ in walk.outputs(layer, states, weights):
            here = seen.pop(module, None)
            if here is None or here.shape[:2] != states[rows].shape[:2]:
                raise InputError(
                    f"Block {layer} of a {type(walk.model).__name__} does not give every token to each of its linear maps: "
                    "reconstruct it as a whole (granularity block)."
                )
            found = found or walk.states(here.shape[-1])
            found[rows] = here
    assert found is not None
    return found


@contextmanager
def _second_moments(maps: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """X^T X (inputs, inputs) of the inputs of linear maps in all passes made within."""
    found: dict[str, torch.Tensor] = {}

    def add(name: str) -> Callable[..., None]:
        def look(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            x = given[0].flatten(0, -2).float()
            found[name] = found.get(name, 0) + x.T @ x

        return look

    handles = [module.register_forward_pre_hook(add(name)) for name, module in maps.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _by_gptq(
    walk: Walk, layer: int, grids: Mapping[str, FirstGrid], ours: TokenStates, scheme: Scheme, report: Share
) -> dict[str, Integers]:
    """The columns of each map in the order of the size of their inputs; a map that no token reaches is rounded to nearest."""
    maps, dtype = walk.maps(layer), next(walk.model.parameters()).dtype
    with _second_moments(maps) as moments:
        for _ in walk.outputs(layer, ours):
            pass
    found = {}
    for k, (name, module) in enumerate(maps.items()):
        nearest = RoundToNearest(matrix(module), scheme, grids[name])
        made = nearest.frozen(dtype)
        if name in moments:
            step, zero = (part[..., 0].cpu().numpy() for part in (nearest.step(), nearest.zero))
            grid = Grid(step, zero, scheme.bits, scheme.symmetric)
            codes = gptq(matrix(module).float().cpu().numpy(), moments[name].cpu().numpy(), grid, by_size=True)
            made = Integers(torch.from_numpy(codes).to(made.codes.device), made.step, made.zero)
        found[name] = made
        report((k + 1) / len(maps))
    return found
