"""Reading and changing what flows through a Hugging Face transformer while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import block, blocks, part

Change = Callable[[torch.Tensor], torch.Tensor]
Place = int | str | torch.nn.Module
"""Where to look: a block by its number, a part by its path, or the part itself (see `broadsheet.language.anatomy`)."""
AnyPlace = TypeVar("AnyPlace", bound=Place)


@contextmanager
def hooked(model: Any, changes: Mapping[AnyPlace, Change], *, inputs: bool = False) -> Iterator[None]:
    """Passes the output of each place, or with `inputs` its input, (batch, tokens, width), through its function.

    Blocks count from 0; block l's output is `hidden_states[l + 1]`, before the final norm. Of several outputs or inputs the
    first is changed.

    **Raises:** `InputError` for a block or part that does not exist.
    """
    handles = []
    try:
        for place, change in changes.items():
            module = _module(model, place)
            if inputs:
                handles.append(module.register_forward_pre_hook(_changing_input(change), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(_changing_output(change)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured(
    model: Any, places: Iterable[AnyPlace] | None = None, *, inputs: bool = False
) -> Iterator[dict[AnyPlace, torch.Tensor]]:
    """The outputs (or inputs) of places, all blocks by default, in the last forward pass made within, by place."""
    found: dict[Any, torch.Tensor] = {}

    def keep(place: Any) -> Change:
        def look(states: torch.Tensor) -> torch.Tensor:
            found[place] = states
            return states

        return look

    chosen: Iterable[Any] = range(len(blocks(model))) if places is None else places
    with hooked(model, {place: keep(place) for place in chosen}, inputs=inputs):
        yield found


@contextmanager
def skipping(model: Any, count: int, states: torch.Tensor, *, several: bool = False) -> Iterator[None]:
    """Leaves the first blocks of a model out: `states` (batch, tokens, width) stand for the output of the last of them.

    Nothing of them is computed, and they keep no keys and values. `several`: whether the blocks of this model give their
    states as the first of several outputs.

    **Raises:** `InputError` where the model has fewer blocks.
    """
    given = (states, None) if several else states
    left_out = [block(model, layer) for layer in range(count)]
    before = [module.__dict__.get("forward") for module in left_out]
    try:
        for module in left_out:
            module.forward = lambda *_, **__: given
        yield
    finally:
        for module, own in zip(left_out, before, strict=True):
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = own


def _module(model: Any, place: Place) -> torch.nn.Module:
    if isinstance(place, torch.nn.Module):
        return place
    return part(model, place) if isinstance(place, str) else block(model, place)


def _changing_output(change: Change) -> Callable[..., Any]:
    def run(module: Any, given: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    return run


def _changing_input(change: Change) -> Callable[..., Any]:
    def run(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if given:
            return (change(given[0]), *given[1:]), named
        if "hidden_states" not in named:
            raise InputError(f"A {type(module).__name__} is called without hidden states; its input cannot be reached.")
        return given, named | {"hidden_states": change(named["hidden_states"])}

    return run


def adding(direction: torch.Tensor, positions: Any = slice(None)) -> Change:
    """Adds a vector (width,), or one a row (batch, width), at token positions."""

    def change(states: torch.Tensor) -> torch.Tensor:
        moved = states.clone()
        moved[:, positions] += direction if direction.ndim == 1 else direction[:, None]
        return moved

    return change


def clamping(neuron: int, value: float, positions: Any = slice(None)) -> Change:
    """Holds one neuron, an index of the last axis, at a value at token positions."""

    def change(states: torch.Tensor) -> torch.Tensor:
        clamped = states.clone()
        clamped[:, positions, neuron] = value
        return clamped

    return change


def ablating(direction: torch.Tensor) -> Change:
    """Removes the component along a vector (width,), at every token."""
    unit = direction / direction.norm()
    return lambda states: states - (states @ unit)[..., None] * unit


def patching(source: torch.Tensor, positions: Any = slice(None)) -> Change:
    """Puts another pass's states (batch, tokens, width) at token positions."""

    def change(states: torch.Tensor) -> torch.Tensor:
        patched = states.clone()
        patched[:, positions] = source[:, positions]
        return patched

    return change


def placing(vectors: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> Change:
    """Puts vectors (n, width) at n places: in row `rows[k]` at the token `positions[k]`, which may count from the end (-1).

    Each row of a batch can have positions of its own, or none.
    """

    def change(states: torch.Tensor) -> torch.Tensor:
        patched = states.clone()
        patched[rows, positions] = vectors.to(states)
        return patched

    return change
