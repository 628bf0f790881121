"""Potentials as files: safetensors with a header that people can read, and the authors' weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.atoms.escaip import EScAIP, EScAIPConfig
from broadsheet.atoms.potential import ScaledPotential
from broadsheet.cache import write_atomic
from broadsheet.errors import DataError, InputError
from broadsheet.files import existing, load_arrays

NOTE = "broadsheet"
FORMAT = 1
KINDS = ("EScAIP", "SchNet", "PaiNN", "AtomTransformer")
"""Networks of `broadsheet.atoms` that have a file format: made as `kind(config, seed)`, the type of `config` in `settings`."""


def save_potential(potential: ScaledPotential, path: str | Path, note: Mapping[str, Any] | None = None) -> Path:
    """Writes a trained network: weights by their place in the model, settings as JSON in the header, whole or not at all.

    **Arguments:** `note`: JSON values to keep with it (data, seed, errors).
    """
    from safetensors.numpy import save

    network: Any = potential.network
    kind = type(network).__name__
    if kind not in KINDS:
        raise InputError(f"{kind} has no file format; {', '.join(KINDS)} have.")
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in _leaves(potential.network).items()}
    arrays["references"] = potential.references
    header = {
        "format": FORMAT, "kind": kind, "config": asdict(network.config), "scale": float(potential.scale),
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
        kind = getattr(import_module("broadsheet.atoms"), header["kind"])
        skeleton = kind(_config(kind.settings, header["config"]), 0)
        references, scale = arrays.pop("references"), float(header["scale"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise DataError(f"{path}: its settings cannot be used ({str(error)[:120]}).") from None
    if references.shape != ScaledPotential(skeleton).references.shape or not 0 < scale < float("inf"):
        raise DataError(f"{path}: its element references or its scale cannot be used.")
    return ScaledPotential(_filled(skeleton, arrays, str(path)), references, scale)


def read_header(path: str | Path) -> dict[str, Any]:
    """Settings, units, elements and notes of a saved potential."""
    from safetensors import SafetensorError, safe_open

    path = existing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[NOTE])
        if header["kind"] not in KINDS or header["format"] != FORMAT:
            raise DataError(
                f"{path} holds {header['kind']!r}, format {header['format']!r}; {', '.join(KINDS)}, format {FORMAT}, are read."
            )
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError):
        raise DataError(f"{path} is not a saved potential.") from None
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


def _leaves(model: Any) -> dict[str, Any]:
    found, _ = jax.tree_util.tree_flatten_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in found}


def _filled(skeleton: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    wanted = _leaves(skeleton)
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
    filled = [jnp.asarray(arrays[jax.tree_util.keystr(path, simple=True, separator=".")], leaf.dtype) for path, leaf in paths]
    return jax.tree.unflatten(tree, filled)


def from_fairchem(arrays: Mapping[str, np.ndarray], config: EScAIPConfig, name: str = "the state") -> EScAIP:
    """The potential with the authors' weights, from the state of fairchem's modules (name -> array).

    Names start with `backbone.`, `energy.` (the energy head) and, with `config.direct`, `forces.`; a prefix `module.` and names
    of other heads are left out. Where a gradient model's last block has no edge feed-forward, its own is of no effect.

    **Raises:** `DataError` naming what is missing or has another shape.
    """
    skeleton = EScAIP(config, 0)
    given = {key.removeprefix("module."): np.asarray(value) for key, value in arrays.items()}
    last_edges = {
        f"backbone.transformer_blocks.{config.blocks - 1}.{part}" for part in ("feedforward.mlp_edge", "norm_ffn_edge")
    }
    found = {}
    for place, leaf in _leaves(skeleton).items():
        stages = leaf.shape[0] if place.startswith(("blocks.", "node_readouts.", "edge_readouts.")) else None
        parts = []
        for k in range(stages or 1):
            source, shape = _fairchem_name(place, k), leaf.shape[1:] if stages else leaf.shape
            if source in given:
                value = given[source]
            elif any(source.startswith(part) for part in last_edges):
                value = np.zeros(shape)
            else:
                raise DataError(f"{name} lacks {source}.")
            if place.endswith(("atom_from", "atom_to")) and len(value) < shape[0]:
                value = np.concatenate([value, np.zeros((shape[0] - len(value), *value.shape[1:]))])
            parts.append(value[: shape[0]] if value.ndim else value)
        found[place] = np.stack(parts) if stages else parts[0]
    return _filled(skeleton, found, name)


def to_fairchem(net: EScAIP) -> dict[str, np.ndarray]:
    """The weights by the names of fairchem's modules, as `from_fairchem` takes them."""
    found = {}  # type: ignore[var-annotated]
    for place, leaf in _leaves(net).items():
        if place.startswith(("blocks.", "node_readouts.", "edge_readouts.")):
            found |= {_fairchem_name(place, k): np.asarray(part) for k, part in enumerate(leaf)}
        else:
            found[_fairchem_name(place, 0)] = np.asarray(leaf)
    return found


RENAMED = {
    "input_ffn.": "input_block.input_layer.edge_ffn.", "input_norms.0.": "input_block.norm_node.",
    "input_norms.1.": "input_block.norm_edge.", "input.": "input_block.input_layer.",
    "node_projection.join.": "output_projection.node_projection.0.",
    "node_projection.norm.": "output_projection.output_norm_node.",
    "edge_projection.join.": "output_projection.edge_projection.0.",
    "edge_projection.norm.": "output_projection.output_norm_edge.",
}  # fmt: skip
EMBEDDING = {
    "atom_from": "source_atomic_embedding.weight", "atom_to": "target_atomic_embedding.weight",
    "order_from.": "source_direction_embedding.0.", "order_to.": "target_direction_embedding.0.",
    "length.": "edge_distance_embedding.0.", "join.": "edge_attr_linear.0.", "norm.": "edge_attr_norm.",
}  # fmt: skip
BLOCK = {
    "embedding.": "graph_attention.", "node_hidden.": "graph_attention.node_hidden_linear.0.",
    "edge_hidden.": "graph_attention.edge_hidden_linear.0.", "message.": "graph_attention.message_linear.0.",
    "message_norm.": "graph_attention.message_norm.", "attention.query.": "graph_attention.attn_in_proj_q.",
    "attention.key.": "graph_attention.attn_in_proj_k.", "attention.value.": "graph_attention.attn_in_proj_v.",
    "attention.out.": "graph_attention.attn_out_proj.", "node_ffn.": "feedforward.mlp_node.",
    "edge_ffn.": "feedforward.mlp_edge.", "norms.0.": "norm_attn_node.", "norms.1.": "norm_attn_edge.",
    "norms.2.": "norm_ffn_node.", "norms.3.": "norm_ffn_edge.",
}  # fmt: skip
HEADS = {"head": ("energy", "energy_layer", "node_norm"), "force_direction": ("forces", "force_direction_layer", "edge_norm"),
         "force_size": ("forces", "force_magnitude_layer", "node_norm")}  # fmt: skip


def _fairchem_name(place: str, stage: int) -> str:
    """fairchem's name of a place in our model, for one of its blocks or readouts."""
    first, _, rest = place.partition(".")
    if first in HEADS:
        module, layer, norm = HEADS[first]
        if rest == "answer":
            return f"{module}.{layer}.final_output.0.weight"
        return f"{module}.{norm}.weight" if rest.startswith("norm") else f"{module}.{layer}.ffn.{_dense(rest)}"
    if first == "blocks":
        outer = next(key for key in BLOCK if rest.startswith(key))
        tail = rest.removeprefix(outer)
        tail = _embedding(tail) if outer == "embedding." else _dense(tail)
        return f"backbone.transformer_blocks.{stage}.{BLOCK[outer]}{tail}"
    if first in ("node_readouts", "edge_readouts"):
        kind = first.split("_")[0]
        return f"backbone.readout_layers.{stage}." + (
            f"pre_{kind}_norm.weight" if rest.startswith("norm") else f"{kind}_ffn.{_dense(rest)}"
        )
    outer = next(key for key in RENAMED if place.startswith(key))
    tail = place.removeprefix(outer)
    return f"backbone.{RENAMED[outer]}{_embedding(tail) if outer == 'input.' else _dense(tail)}"


def _embedding(place: str) -> str:
    for ours, theirs in EMBEDDING.items():
        if place.startswith(ours):
            return theirs + place.removeprefix(ours)
    raise KeyError(place)


def _dense(place: str) -> str:
    return place.removeprefix("ffn.").replace("up.", "0.0.").replace("down.", "1.0.")
