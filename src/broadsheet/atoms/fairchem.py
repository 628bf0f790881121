"""EScAIP's weights from and to the authors' program, fairchem."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from broadsheet.atoms.checkpoints import filled, leaves
from broadsheet.atoms.potentials.escaip import EScAIP, EScAIPConfig
from broadsheet.errors import DataError


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
    for place, leaf in leaves(skeleton).items():
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
    return filled(skeleton, found, name)


def to_fairchem(net: EScAIP) -> dict[str, np.ndarray]:
    """The weights by the names of fairchem's modules, as `from_fairchem` takes them."""
    found = {}  # type: ignore[var-annotated]
    for place, leaf in leaves(net).items():
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
