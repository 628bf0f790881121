"""Reading and changing the residual stream of a Hugging Face transformer while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from broadsheet.errors import InputError

Change = Callable[[torch.Tensor], torch.Tensor]
PLACES = ("model.layers", "gpt_neox.layers", "transformer.h", "encoder.layer", "layers", "h")
"""Where Llama, OLMo, Qwen and Mistral, GPT-NeoX, GPT-2, BERT and the bare models of these keep their blocks."""


def blocks(model: Any) -> torch.nn.ModuleList:
    """The transformer blocks of a model, in order.

    **Raises:** `InputError` for an architecture whose blocks are not where they are known to be.
    """
    for place in PLACES:
        try:
            found = model.get_submodule(place)
        except AttributeError:
            continue
        if isinstance(found, torch.nn.ModuleList):
            return found
    raise InputError(f"{type(model).__name__} keeps its blocks in none of {', '.join(PLACES)}.")


@contextmanager
def hooked(model: Any, changes: Mapping[int, Change]) -> Iterator[None]:
    """Passes the output of each named block, (batch, tokens, width), through its function.

    Blocks count from 0; block l's output is `hidden_states[l + 1]`, before the final norm.

    **Raises:** `InputError` for a block that does not exist.
    """
    layers = blocks(model)
    if bad := [layer for layer in changes if not 0 <= layer < len(layers)]:
        raise InputError(f"Block {bad[0]} does not exist; the model has {len(layers)}, counted from 0.")

    def hook(change: Change) -> Callable[..., Any]:
        def run(module: Any, given: Any, out: Any) -> Any:
            return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

        return run

    handles = [layers[layer].register_forward_hook(hook(change)) for layer, change in changes.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured(model: Any, layers: Iterable[int] | None = None) -> Iterator[dict[int, torch.Tensor]]:
    """The outputs of blocks (all by default) in the last forward pass made within, by block."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Change:
        def look(states: torch.Tensor) -> torch.Tensor:
            found[layer] = states
            return states

        return look

    chosen = range(len(blocks(model))) if layers is None else layers
    with hooked(model, {layer: keep(layer) for layer in chosen}):
        yield found


def adding(direction: torch.Tensor, positions: Any = slice(None)) -> Change:
    """Adds a vector (width,), or one a row (batch, width), at token positions."""

    def change(states: torch.Tensor) -> torch.Tensor:
        moved = states.clone()
        moved[:, positions] += direction if direction.ndim == 1 else direction[:, None]
        return moved

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
