"""A memory beside a model, as an adapter: two files, the weights (safetensors) and what they belong to (JSON)."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from broadsheet.cache import digest, write_atomic
from broadsheet.errors import DataError, InputError
from broadsheet.files import load_arrays, read_json
from broadsheet.language.anatomy import blocks
from broadsheet.language.resonance_adapter import (
    NAME,
    SynapticResonanceConfig,
    add_synaptic_resonance,
    memories,
    remove_synaptic_resonance,
)

WEIGHTS, FACTS = "resonance.safetensors", "resonance.json"


def base_identity(model: Any) -> dict[str, Any]:
    """What a model is without its memory: kind, width, blocks, and a digest of names, shapes and some values of weights.

    Values are compared as bfloat16, so that a model is the same in either precision.
    """
    total = []
    for name, weights in model.named_parameters():
        if f".{NAME}." not in name:
            flat = weights.detach().flatten()
            some = flat[:: max(1, flat.numel() // 16)][:16].to(torch.bfloat16)
            total.append([name, list(weights.shape), some.float().cpu().tolist()])
    sizes = model.config.get_text_config(decoder=True)
    return {
        "kind": model.config.model_type, "width": sizes.hidden_size, "blocks": len(blocks(model)), "weights": digest(total),
    }  # fmt: skip


def save_resonance(model: Any, folder: str | Path) -> Path:
    """Writes the memory of a model, without the model, into a folder.

    **Raises:** `InputError` for a model without a memory.
    """
    found = memories(model)
    if not found:
        raise InputError(f"This {type(model).__name__} has no memory to save.")
    folder = Path(folder)
    weights = {
        f"{layer}.{name}": value.detach().cpu().contiguous()
        for layer, memory in found.items()
        for name, value in memory.state_dict().items()
    }
    config = asdict(next(iter(found.values())).call.config) | {"heads": next(iter(found.values())).heads}
    write_atomic(folder / WEIGHTS, save(weights, {"format": "pt"}))
    facts = {"broadsheet": "synaptic resonance", "config": config, "base": base_identity(model)}
    write_atomic(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    return folder


def load_resonance(model: Any, folder: str | Path, *, same_base: bool = True, train_base: bool = False) -> Any:
    """Adds a memory that was saved to the model that it belongs to, in place, and returns it.

    **Arguments:** `same_base`: refuse any other model; without it one of the same sizes will do; `train_base`: as of
    `add_synaptic_resonance`.

    **Raises:** `InputError` for another model, `DataError` for files that are damaged or do not fit each other.
    """
    folder = Path(folder)
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or not isinstance(facts.get("config"), dict) or not isinstance(facts.get("base"), dict):
        raise DataError(f"{folder / FACTS} is no memory's: config and base are wanted.")
    here, base = base_identity(model), facts["base"]
    for what in ("kind", "width", "blocks", "weights"):
        if base.get(what) != here[what] and (same_base or what != "weights"):
            known = f"its weights are others ({type(model).__name__})"
            other = known if what == "weights" else f"its {what} is {here[what]}, not {base.get(what)}"
            raise InputError(f"The memory in {folder} belongs to another model: {other}.")
    config = _config(folder / FACTS, facts["config"])
    try:
        weights = {name: torch.from_numpy(value.copy()) for name, value in load_arrays(folder / WEIGHTS).items()}
    except TypeError:
        raise DataError(f"{folder / WEIGHTS} holds numbers that are no memory's.") from None
    add_synaptic_resonance(model, config, train_base=train_base)
    found = memories(model)
    own = {f"{layer}.{name}": value for layer, memory in found.items() for name, value in memory.state_dict().items()}
    wrong = sorted(set(own) ^ set(weights)) or [name for name in own if own[name].shape != weights[name].shape]
    broken = [name for name in own if not wrong and not torch.isfinite(weights[name]).all()]
    if wrong or broken:
        remove_synaptic_resonance(model)
        said = f"does not fit its configuration at {wrong[0]!r}" if wrong else f"holds NaN or infinity in {broken[0]!r}"
        raise DataError(f"{folder / WEIGHTS} {said}.")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
    return model


def _config(file: Path, given: dict[str, Any]) -> SynapticResonanceConfig:
    """The configuration in a file; raises `DataError` for settings that are unknown or of the wrong kind."""
    known = {item.name: item for item in fields(SynapticResonanceConfig)}
    if unknown := sorted(set(given) - set(known)):
        raise DataError(f"{file} has the setting {unknown[0]!r}, which is none of a memory.")
    try:
        return SynapticResonanceConfig(**given)
    except (TypeError, InputError) as error:
        raise DataError(f"{file} has a setting of the wrong kind: {str(error).rstrip('.')}.") from None
