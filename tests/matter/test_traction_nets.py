"""The networks beside the published ones: the same weights and images, outputs from bench/references_traction.py."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from broadsheet.matter.traction_nets import ConvNext, GreensNet, UNet, gelu

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def references():
    with np.load(Path(__file__).parent.parent / "references" / "traction_nets.npz") as stored:
        return {name: stored[name] for name in stored}


def part(references, name):
    return {key.removeprefix(name): value for key, value in references.items() if key.startswith(name)}


def put(layer, weights):
    """A published layer's weights (out, in, ...) in one of ours, dense, convolution or depthwise."""
    weight = weights["weight"]
    if layer.weight.ndim == 2:
        weight = weight[:, :, 0, 0]
    elif layer.weight.ndim == 3:
        weight = np.moveaxis(weight[:, 0], 0, -1)
    else:
        weight = np.transpose(weight, (2, 3, 1, 0))
    layer = eqx.tree_at(lambda each: each.bias, layer, jnp.asarray(weights["bias"]))
    return eqx.tree_at(lambda each: each.weight, layer, jnp.asarray(weight))


def put_block(block, weights, names=("conv0.", "conv1.", "conv2.")):
    """A block's weights; it has no norm then."""
    layers = [
        put(layer, part(weights, name)) for layer, name in zip((block.depthwise, block.up, block.down), names, strict=True)
    ]
    block = eqx.tree_at(lambda b: (b.depthwise, b.up, b.down), block, tuple(layers))
    return eqx.tree_at(lambda b: b.norm, block, None, is_leaf=lambda each: each is None)


def outputs(net, images):
    return np.moveaxis(np.asarray(eqx.filter_jit(net)(jnp.asarray(np.moveaxis(images, 1, -1)))), -1, 1)


def test_block(references):
    block = put_block(ConvNext(RNG, 3), part(references, "block/"))
    expected = references["block_out"]
    np.testing.assert_allclose(outputs(block, references["block_in"]), expected, atol=1e-5 * abs(expected).max())


def test_unet(references):
    weights = part(references, "unet/")
    net = UNet(RNG, 1, channels=2, stages=2, blocks=1)

    def stack(each, name):
        first, last = (put(layer, part(weights, f"{name}.{k}.")) for layer, k in ((each.first, 0), (each.last, 2)))
        block = put_block(each.blocks[0], part(weights, f"{name}.1."))
        return eqx.tree_at(lambda s: (s.first, s.blocks, s.last), each, (first, (block,), last))

    levels = []
    for k, level in enumerate(net.levels):
        down, up = f"layers_encode.{k}.", f"layers_decode.{1 - k}."
        parts = (
            (put_block(level.beside[0], part(weights, f"interlayer_cnn.{k}.0.")),),
            (put_block(level.down[0], part(weights, f"{down}0.")),),
            put(level.shrink, part(weights, f"{down}1.conv.")),
            (put_block(level.up[0], part(weights, f"{up}1.0.")),),
            put(level.join, part(weights, f"{up}2.")),
        )
        levels.append(eqx.tree_at(lambda s: (s.beside, s.down, s.shrink, s.up, s.join), level, parts))
    bottom = (put_block(net.bottom[0], part(weights, "layers_encode.2.0.")),)
    whole = (stack(net.head, "prepended_layers"), tuple(levels), bottom, stack(net.tail, "appended_layers"))
    net = eqx.tree_at(lambda n: (n.head, n.levels, n.bottom, n.tail), net, whole)
    expected = references["unet_out"]
    np.testing.assert_allclose(outputs(net, references["unet_in"]), expected, atol=1e-5 * abs(expected).max())


def test_greens_network(references):
    """The published one has the other sign of i, so that forces change theirs, and rows before columns."""
    weights = part(references, "gfnn/")
    net = GreensNet(RNG, 1, (6, 6), channels=3)
    plain = np.zeros((3, 3, 1, 3), np.float32)
    plain[1, 1] = 1  # the first published block has one channel go into three; here a convolution before it does
    names = ("conv1.", "conv2.", "conv3.")
    blocks = tuple(put_block(block, part(weights, f"conv_in.{k}."), names) for k, block in enumerate(net.sources))
    kernel = weights["kernel"][:, :, :7]
    log_kernel = np.stack([kernel.real, kernel.imag], axis=1)
    net = eqx.tree_at(
        lambda n: (n.widen.weight, n.sources, n.heads, n.log_kernel), net,
        (jnp.asarray(plain), blocks, put(net.heads, part(weights, "conv_in.2.")), jnp.asarray(log_kernel)),
    )  # fmt: skip
    expected = -references["gfnn_out"][:, ::-1]
    np.testing.assert_allclose(outputs(net, references["gfnn_in"]), expected, atol=1e-5 * abs(expected).max())


def test_gelu():
    x = np.linspace(-8, 8, 101, dtype=np.float32)
    np.testing.assert_allclose(jax.jit(gelu)(x), x * ndtr(x), atol=1e-6)
