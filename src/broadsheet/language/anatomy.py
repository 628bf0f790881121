"""Where any Hugging Face transformer keeps its parts: found by their structure and by what they do, not by a list of models.

Parts are modules of the model itself, so that they can be hooked, read, changed and replaced; `path_of` says where one is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from broadsheet.errors import InputError

Module = torch.nn.Module


def path_of(model: Any, module: Module) -> str:
    """The path of a part, as in `model.named_modules()`: what adapters and quantisers call it by.

    **Raises:** `InputError` for a module of something else.
    """
    for name, found in model.named_modules():
        if found is module:
            return name
    raise InputError(f"This {type(module).__name__} is no part of the {type(model).__name__}.")


def part(model: Any, path: str) -> Module:
    """The part at a path.

    **Raises:** `InputError` where there is none.
    """
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise InputError(f"A {type(model).__name__} has no part {path!r}.") from None


def blocks(model: Any) -> torch.nn.ModuleList:
    """The transformer blocks of a model, in order; the decoder's where it has others too.

    They are the list of as many modules as the configuration has layers; of several such lists, the one with most weights.

    **Raises:** `InputError` for a model without such a list.
    """
    config = getattr(model, "config", None)
    count = None if config is None else getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    where = model.get_decoder() if hasattr(model, "get_decoder") else model
    lists = [found for found in where.modules() if isinstance(found, torch.nn.ModuleList) and len(found) == count]
    if not lists:
        said = "its configuration has no number of layers" if count is None else f"it has no list of {count} modules"
        raise InputError(f"The blocks of a {type(model).__name__} cannot be found: {said}.")
    return max(lists, key=lambda found: sum(weights.numel() for weights in found.parameters()))


def block(model: Any, layer: int) -> Module:
    """A block, counted from 0.

    **Raises:** `InputError` for one that does not exist.
    """
    layers = blocks(model)
    if not 0 <= layer < len(layers):
        raise InputError(f"Block {layer} does not exist; the model has {len(layers)}, counted from 0.")
    return layers[layer]


def embedding(model: Any) -> Module:
    """The embedding of tokens; its output is `hidden_states[0]` where positions are not added to it."""
    return model.get_input_embeddings()


def unembedding(model: Any) -> Module:
    """The map from the final norm's output to logits; `matrix` of it is (words, width).

    **Raises:** `InputError` for a model without one, such as an encoder.
    """
    found = model.get_output_embeddings()
    if found is None:
        raise InputError(f"A {type(model).__name__} has no unembedding; a causal language model has one.")
    return found


def final_norm(model: Any) -> Module:
    """The norm between the last block and the unembedding: of the norms that stand beside the blocks, the last.

    **Raises:** `InputError` for a model without one.
    """
    layers = blocks(model)
    owner = next(found for found in model.modules() if any(child is layers for child in found.children()))
    norms = [child for child in owner.children() if "norm" in type(child).__name__.lower()]
    if not norms:
        raise InputError(f"A {type(model).__name__} has no norm after its blocks.")
    return norms[-1]


def attention(model: Any, layer: int) -> Module:
    """The attention of a block, with its maps of queries, keys, values and output.

    **Raises:** `InputError` where the block has none, or does not exist.
    """
    for name, child in block(model, layer).named_children():
        if re.search("attn|attention", name.lower()) and _maps(child):
            return child
    raise InputError(f"Block {layer} of a {type(model).__name__} has no attention.")


@dataclass(frozen=True)
class MLP:
    """The maps of a block's MLP, `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` where `gate` is None.

    `up` and `gate` go from the width to the neurons, `down` back. An output of `up` can be clamped, as an input of `down` can:
    see `broadsheet.language.hooks`.
    """

    up: Module
    down: Module
    gate: Module | None = None

    @property
    def neurons(self) -> int:
        """Their number."""
        return matrix(self.up).shape[0]


def mlp(model: Any, layer: int) -> MLP:
    """The MLP of a block.

    Of the two maps into a gated MLP, `up` is the one in whose output it is linear: that is tried, on a random input.

    **Raises:** `InputError` where the block has no MLP of two or three maps (a mixture of experts, gate and up in one map), or
    does not exist.
    """
    here = block(model, layer)
    children = [child for name, child in here.named_children() if not re.search("attn|attention", name.lower())]
    owner = next((child for child in children if not _is_map(child) and _maps(child)), here)
    maps = _maps(owner) if owner is not here else [child for child in children if _is_map(child)]
    shapes = [tuple(matrix(found).shape) for found in maps]
    if len(maps) == 2 and shapes[0] == shapes[1][::-1]:
        return MLP(*maps)
    if len(maps) == 3 and owner is not here:
        found = _gated(owner, maps, model.config.get_text_config(decoder=True).hidden_size)
        if found is not None:
            return found
    raise InputError(
        f"Block {layer} of a {type(model).__name__} has no MLP with separate maps up and down: "
        f"the shapes of its maps are {', '.join(map(str, shapes)) or 'none'}."
    )


def norm_before(model: Any, layer: int, module: Module) -> Module | None:
    """The norm of a block whose output a map of it reads; None where that reads the residual stream itself, as in OLMo 2.

    Found by running the model on one token, or on none at all where its weights are on the device `meta`.

    **Raises:** `InputError` for a model that does not run so, or a block that does not exist.
    """
    norms = [child for child in block(model, layer).children() if "norm" in type(child).__name__.lower()]
    made: dict[Module, Any] = {}
    read: list[Any] = []
    handles = [norm.register_forward_hook(lambda norm, given, out: made.update({norm: out})) for norm in norms]
    handles.append(module.register_forward_pre_hook(lambda module, given: read.append(given[0])))
    device = next(model.parameters()).device
    # without data nothing can be asked of a mask, so that one is given
    mask = {"attention_mask": torch.zeros(1, 1, 1, 1, device=device)} if device.type == "meta" else {}
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False, **mask)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"The norms of a {type(model).__name__} cannot be told apart: {str(error).splitlines()[0]}") from None
    finally:
        for handle in handles:
            handle.remove()
    return next((norm for norm, out in made.items() if read and out is read[0]), None)


def linear_maps(model: Any, layer: int) -> dict[str, Module]:
    """All linear maps of a block, by their paths within the model: what is quantised or adapted.

    **Raises:** `InputError` for a block that does not exist.
    """
    here = block(model, layer)
    start = path_of(model, here)
    return {f"{start}.{name}": found for name, found in here.named_modules() if _is_map(found)}


def matrix(module: Module) -> torch.Tensor:
    """The weights of a linear map as (outputs, inputs), a view: `Conv1D`, which GPT-2 is made of, keeps them the other way.

    **Raises:** `InputError` for a module that is no linear map.
    """
    if not _is_map(module):
        raise InputError(f"A {type(module).__name__} has no matrix; a linear map is wanted.")
    weight = module.weight
    return weight.T if hasattr(module, "nf") else weight  # type: ignore[return-value]


def _is_map(module: Module) -> bool:
    return isinstance(module, torch.nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def _maps(module: Module) -> list[Module]:
    return [found for found in module.modules() if _is_map(found)]


def _run(owner: Module, width: int) -> torch.Tensor:
    """What a module makes of a fixed random input (1, 1, width)."""
    like = next(owner.parameters())
    given = torch.randn(1, 1, width, generator=torch.Generator().manual_seed(0)).to(like)
    training = owner.training
    try:
        with torch.no_grad():
            out = owner.eval()(given)
    finally:
        owner.train(training)
    return out[0] if isinstance(out, tuple) else out


def _gated(owner: Module, maps: list[Module], width: int) -> MLP | None:
    """Which of three maps is which: `down` is called last, and the output is linear in that of `up`. None for anything else."""
    called = _in_order(owner, maps, width)
    if len(called) != 3:
        return None
    linear = [_is_linear_in(owner, found, width) for found in called[:2]]
    if sum(linear) != 1:
        return None
    up, gate = called[:2] if linear[0] else (called[1], called[0])
    shapes = [matrix(found).shape for found in (up, gate, called[2])]
    return MLP(up, called[2], gate) if shapes[0] == shapes[1] == shapes[2][::-1] else None


def _in_order(owner: Module, maps: list[Module], width: int) -> list[Module]:
    """The maps as they are called."""
    called: list[Module] = []
    handles = [found.register_forward_hook(lambda module, given, out: called.append(module)) for found in maps]
    try:
        _run(owner, width)
    finally:
        for handle in handles:
            handle.remove()
    return called


def _is_linear_in(owner: Module, module: Module, width: int) -> bool:
    """Whether the output changes its sign, and nothing else, with that of a part."""
    plain = _run(owner, width)
    handle = module.register_forward_hook(lambda module, given, out: -out)
    try:
        turned = _run(owner, width)
    finally:
        handle.remove()
    return torch.allclose(plain, -turned, rtol=1e-3, atol=float(plain.abs().max()) * 1e-3)
