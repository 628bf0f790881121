"""A window of attention on any Hugging Face causal model, whether it knows of one or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks


@contextmanager
def attending_within(model: Any, window: int) -> Iterator[None]:
    """Each token sees itself and the `window - 1` before it; for whole passes over texts without padding.

    **Raises:** `InputError` for a window below 1, and within for a call with a cache that is filled or with padding.
    """
    if window < 1:
        raise InputError(f"The window is {window}; a token sees itself at least.")
    layers = blocks(model)
    decoder = next(found for found in model.modules() if any(child is layers for child in found.children()))

    def change(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        held = [found for found in (*given, *named.values()) if hasattr(found, "get_seq_length")]
        mask = named.get("attention_mask")
        if any(int(found.get_seq_length()) for found in held) or (mask is not None and not bool(mask.all())):
            raise InputError("A window is laid over whole passes without padding; this call goes on, or has padding.")
        read = next(found for found in (*given, named.get("input_ids"), named.get("inputs_embeds")) if found is not None)
        here = torch.arange(read.shape[1], device=read.device)
        since = here[:, None] - here
        kind = next(module.parameters()).dtype
        seen = torch.where((since >= 0) & (since < window), 0.0, torch.finfo(kind).min).to(kind)
        return given, named | {"attention_mask": seen[None, None].expand(len(read), 1, -1, -1)}

    handle = decoder.register_forward_pre_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
