"""Weights of the authors' program (github.com/a-antoniades/Neuroformer, MIT) in a network of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from broadsheet.errors import DataError
from broadsheet.recordings.neuroformer.model import Block, Config, NeuroformerNet

BLOCK = {
    "norm_query": "ln1", "norm_mlp": "ln2", "norm_out": "ln_f", "query": "attn.query", "key": "attn.key", "value": "attn.value",
    "project": "attn.proj", "up": "mlp.0", "down": "mlp.2",
}  # fmt: skip
STACKS = {
    "state": "feature_encoder.neural_state_blocks", "stimulus": "feature_encoder.frame_state_blocks",
    "history": "neural_visual_transformer.neural_state_history_blocks",
    "look": "neural_visual_transformer.neural_state_stimulus_blocks",
    "fusion": "neural_visual_transformer.neural_state_blocks",
}  # fmt: skip


def load_official(
    state: Mapping[str, np.ndarray],
    heads: int,
    frames: tuple[int, int, int] | None = None,
    kernel: tuple[int, int, int] = (3, 8, 8),
    stride: tuple[int, int, int] = (3, 4, 4),
) -> NeuroformerNet:
    """A network with the weights of a state dictionary, as NumPy arrays; spikes and video, no behaviour (behind a layer norm
    over one number, the program's behaviour has no effect).

    The program adds no place to video tokens (call the network with `place=False`) and attends to padding: rows whose padding
    has segment 0 give its logits.

    **Arguments:** `heads`, `frames`, `kernel`, `stride`: what no weight tells.

    **Raises:** `DataError` where a weight is missing or of another shape.
    """
    layers = {name: _depth(state, prefix) for name, prefix in STACKS.items()}
    embedding, past_place = _get(state, "tok_emb.weight"), _get(state, "pos_emb_prev")[0]
    if frames is None:
        layers |= {"stimulus": 0, "look": 0}
    clip = _get(state, "clip.proj.weight").shape[0] if "clip.proj.weight" in state else 0
    place, learned = _get(state, "pos_emb")[0], "temp_emb.temp_emb.0.weight" in state
    config = Config(
        len(embedding), len(_get(state, "head_dt.weight")), 0, len(place), len(past_place), embedding.shape[1], heads, **layers,
        frames=frames, kernel=kernel, stride=stride, clip=clip, learned_time=learned, id_given_offset=False, rising=False,
        in_order=False,
    )  # fmt: skip
    net = NeuroformerNet(config, np.random.default_rng(0))
    parts: dict[str, Any] = {
        "embedding": embedding, "place": place, "past_place": past_place,
        "head_ids": _weights(state, "head_id", net.head_ids), "head_offsets": _weights(state, "head_dt", net.head_offsets),
        **{name: tuple(_block(state, f"{prefix}.{k}", block) for k, block in enumerate(getattr(net, name)))
           for name, prefix in STACKS.items()},
    }  # fmt: skip
    if config.learned_time:
        for name, prefix in (("time", "temp_emb.temp_emb"), ("past_time", "temp_emb_prev.temp_emb")):
            pair = getattr(net, name)
            parts[name] = tuple(_weights(state, f"{prefix}.{k}", layer) for k, layer in zip((0, 2), pair, strict=True))
    if net.video is not None:
        convolution = "video_encoder.conv_block.0"
        flat = dict(state) | {f"{convolution}.weight": _get(state, f"{convolution}.weight").reshape(config.width, -1)}
        video = eqx.tree_at(lambda v: v.dense, net.video, _weights(flat, convolution, net.video.dense))
        parts["video"] = eqx.tree_at(lambda v: v.norm, video, _weights(state, "video_encoder.conv_block.2", video.norm))
    if net.clip is not None:
        parts["clip"] = _weights(state, "clip.proj", net.clip)
    for name, part in parts.items():
        part = jnp.asarray(part) if isinstance(part, np.ndarray) else part
        net = eqx.tree_at(lambda n, name=name: getattr(n, name), net, part)
    return net


def _get(state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in state:
        raise DataError(f"These weights have no {name!r}, so that they are of another model than Neuroformer.")
    return np.asarray(state[name], np.float32)


def _depth(state: Mapping[str, np.ndarray], prefix: str) -> int:
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(f"{prefix}.")})


def _block(state: Mapping[str, np.ndarray], prefix: str, block: Block) -> Block:
    for ours, theirs in BLOCK.items():
        made = _weights(state, f"{prefix}.{theirs}", getattr(block, ours))
        block = eqx.tree_at(lambda b, ours=ours: getattr(b, ours), block, made)
    return block


def _weights(state: Mapping[str, np.ndarray], prefix: str, layer: Any) -> Any:
    """The layer with the weight, and the bias where it has one, of a prefix."""
    for name in ("weight", "bias"):
        if (old := getattr(layer, name, None)) is None:
            continue
        new = _get(state, f"{prefix}.{name}")
        if new.shape != old.shape:
            raise DataError(f"{prefix}.{name} is {new.shape}; {old.shape} is wanted.")
        layer = eqx.tree_at(lambda part, name=name: getattr(part, name), layer, jnp.asarray(new))
    return layer
