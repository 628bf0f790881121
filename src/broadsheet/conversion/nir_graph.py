"""A converted network as the nodes and edges of a NIR graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.conversion.conversion import Sequential, both
from broadsheet.errors import CompositionError
from broadsheet.networks.nir_graph import Chain, Graph

if TYPE_CHECKING:
    from broadsheet.conversion.conversion import SpikingNet


def converted_graph(nir: Any, net: SpikingNet) -> Graph:
    """Layers, and integrate-and-fire neurons whose spikes are scaled to the height of their threshold; steps of 0.1 ms."""
    if not isinstance(net.body, Sequential):
        raise CompositionError(
            f"A converted {type(net.body).__name__} is not a chain of layers, which NIR graphs are written from."
        )
    chain, number, shape = Chain(nir, net.shape), 0, net.shape
    for k, layer in enumerate(net.body.layers):
        bias = None if layer.bias is None else np.asarray(layer.bias)
        if layer.kind == "activation":
            theta = float(net.theta[number])
            full = np.full(shape, theta, np.float32)
            silent = np.zeros(shape, np.float32)
            chain.add(f"{k}-neurons", nir.IF(r=np.full(shape, 1e4, np.float32), v_threshold=full, v_reset=silent))
            chain.add(f"{k}-height", nir.Scale(scale=full))
            number += 1
        elif layer.kind == "linear":
            chain.linear(f"{k}-linear", layer.weight, bias)
        elif layer.kind == "conv":
            weight = np.asarray(layer.weight)
            bias = np.zeros(len(weight), np.float32) if bias is None else bias
            chain.add(f"{k}-conv", nir.Conv2d(input_shape=shape[1:], weight=weight, stride=layer.size, padding=layer.padding,
                                              dilation=layer.dilation, groups=layer.groups, bias=bias))  # fmt: skip
        elif layer.kind == "pool":
            side = np.array(both(layer.size))
            chain.add(f"{k}-pool", nir.AvgPool2d(kernel_size=side, stride=side, padding=np.array([0, 0])))
        else:
            chain.add(f"{k}-flatten", nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1))
        if layer.kind != "activation":
            before = jax.ShapeDtypeStruct((1, *shape), jnp.result_type(float))
            shape = jax.eval_shape(layer, before).shape[1:]
    first = net.cells[0]
    return chain.graph(shape, reset="subtract", start=float(first.v0[0] / first.threshold))
