"""Potentials as files: safetensors with a header that people can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.atoms.potential import ScaledPotential
from broadsheet.atoms.registry import kind, kind_of_class
from broadsheet.cache import write_atomic
from broadsheet.errors import DataError, InputError
from broadsheet.files import existing, load_arrays

NOTE = "broadsheet"
FORMAT = 1


def save_potential(potential: ScaledPotential, path: str | Path, note: Mapping[str, Any] | None = None) -> Path:
    """Writes a trained network: weights by their place in the model, settings as JSON in the header, whole or not at all.

    **Arguments:** `note`: JSON values to keep with it (data, seed, errors).

    **Raises:** `InputError` where the network is not registered (`broadsheet.atoms.registry`).
    """
    from safetensors.numpy import save

    network: Any = potential.network
    name = kind(network).network.__name__
    arrays = {place: np.ascontiguousarray(leaf) for place, leaf in leaves(network).items()}
    arrays["references"] = potential.references
    header = {
        "format": FORMAT, "kind": name, "config": asdict(network.config), "scale": float(potential.scale),
        "units": "eV, eV/Å", "elements": potential.elements, "note": dict(note or {}),
    }  # fmt: skip
    return write_atomic(Path(path), save(arrays, metadata={NOTE: json.dumps(header)}))


def load_potential(path: str | Path) -> ScaledPotential:
    """The potential of such a file.

    **Raises:** `DataError` where the file is damaged, another format, or its weights do not fit its settings or are not finite.
    """
    path = existing(path)
    arrays, header = load_arrays(path), read_header(path)
    try:
        found = kind_of_class(header["kind"])
        skeleton = found.network(_config(found.settings, header["config"]), 0)
        references, scale = arrays.pop("references"), float(header["scale"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise DataError(f"{path}: its settings cannot be used ({str(error)[:120]}).") from None
    if references.shape != ScaledPotential(skeleton).references.shape or not 0 < scale < float("inf"):
        raise DataError(f"{path}: its element references or its scale cannot be used.")
    return ScaledPotential(filled(skeleton, arrays, str(path)), references, scale)


def read_header(path: str | Path) -> dict[str, Any]:
    """Settings, units, elements and notes of a saved potential."""
    from safetensors import SafetensorError, safe_open

    path = existing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[NOTE])
        made, version = header["kind"], header["format"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError):
        raise DataError(f"{path} is not a saved potential.") from None
    if version != FORMAT:
        raise DataError(f"{path} holds {made!r}, format {version!r}; format {FORMAT} is read.")
    try:
        kind_of_class(made)
    except InputError as error:
        raise DataError(f"{path} holds {made!r}: {error}") from None
    return header


def _config(kind: type, given: Mapping[str, Any]) -> Any:
    """Settings with the types of the defaults; sizes within what a file may ask for."""
    defaults = kind()
    values: dict[str, Any] = {}
    for field in fields(kind):
        default, value = getattr(defaults, field.name), given[field.name]
        if isinstance(default, tuple):
            value = tuple(int(part) for part in value)
        elif not isinstance(value, type(default)) or isinstance(value, bool) != isinstance(default, bool):
            value = type(default)(value)
        if isinstance(value, int) and not 0 <= value <= 16_384:
            raise ValueError(f"{field.name} = {value}")
        values[field.name] = value
    return kind(**values).check()


def leaves(model: Any) -> dict[str, Any]:
    """The arrays of a model by their place in it, `blocks.node_hidden.weight`."""
    found, _ = jax.tree_util.tree_flatten_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in found}


def filled(skeleton: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """The model with these arrays in its places; raises `DataError` naming one that is missing, unknown or unfit."""
    wanted = leaves(skeleton)
    missing, unknown = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or unknown:
        listed = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which the model has not"
        raise DataError(f"{name} {listed}; {len(missing)} are missing and {len(unknown)} too many.")
    for place, leaf in wanted.items():
        if arrays[place].shape != leaf.shape:
            raise DataError(f"{name}: {place} has the shape {arrays[place].shape}; {leaf.shape} is wanted.")
        if not np.isfinite(arrays[place]).all():
            raise DataError(f"{name}: {place} has numbers that are not finite.")
    paths, tree = jax.tree_util.tree_flatten_with_path(skeleton)
    found = [jnp.asarray(arrays[jax.tree_util.keystr(path, simple=True, separator=".")], leaf.dtype) for path, leaf in paths]
    return jax.tree.unflatten(tree, found)
