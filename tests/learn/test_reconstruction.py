"""Blocks that are learned to be rounded, and whole models: against GPTQ itself, explicit patches, and files read again."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import DataError, InputError
from broadsheet.learn.quantised import QuantModel, quantize_model
from broadsheet.learn.reconstruction import reconstruct, relative_error
from broadsheet.learn.rounding import Activations, AdaRound, FlexRound, RoundToNearest, SecondOrder
from broadsheet.learn.surgery import calls, layers_of, name_of, passed, second_moment
from broadsheet.numerics.gptq import gptq
from broadsheet.numerics.quantisation import from_codes, to_codes

KEY = jax.random.key(0)
MLP = eqx.nn.MLP(6, 3, 8, 1, key=KEY)
X = np.asarray(jax.random.normal(jax.random.key(1), (96, 6)))


class Linear(eqx.Module):
    def __call__(self, weights, x):
        return x @ weights["w"].T


class Residual(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __call__(self, x, scale=1.0):
        return x + scale * self.second(jax.nn.relu(self.first(x)))


class Deep(eqx.Module):
    """Blocks in a list, an embedding and a head outside of it."""

    embed: eqx.nn.Linear
    blocks: list
    head: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        keys = jax.random.split(key, 6)
        self.embed, self.head = eqx.nn.Linear(6, 6, key=keys[0]), eqx.nn.Linear(6, 2, key=keys[1])
        pairs = zip(keys[2:4], keys[4:6], strict=True)
        self.blocks = [Residual(eqx.nn.Linear(6, 8, key=a), eqx.nn.Linear(8, 6, key=b)) for a, b in pairs]
        self.norm = eqx.nn.LayerNorm(6)

    def __call__(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.head(self.norm(x))


def test_inputs_of_the_quantised_model_are_made_good_and_the_target_is_of_full_precision():
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(200, 8)), jnp.float32)
    shrunk = 0.6 * x  # what a coarse layer before it might give
    options = {"quantizer": FlexRound(bits=4), "iters": 300, "rate": 1e-2, "key": KEY}
    target = x @ w.T
    ours = reconstruct(Linear(), {"w": w}, x, shrunk, target, **options)
    plain = reconstruct(Linear(), {"w": w}, x, shrunk, shrunk @ w.T, **options)
    errors = [relative_error(np.asarray(shrunk) @ each.weights["w"].weight.T, target) for each in (ours, plain)]
    assert errors[0] < 0.02
    assert errors[1] == pytest.approx(0.16, abs=0.03)  # (1 - 0.6)^2
    assert len(ours.losses) == 300
    assert ours.losses[-20:].mean() < 0.3 * ours.losses[:5].mean()


def test_it_goes_on_from_its_checkpoint(tmp_path):
    w, x = jnp.asarray(X[:4]), jnp.asarray(X)
    given = (Linear(), {"w": w}, x, x, x @ w.T, AdaRound(bits=3))
    whole = reconstruct(*given, iters=150, rate=0.1, key=KEY)

    class Stop(Exception):
        pass

    def stop(step, loss):
        if step == 100:
            raise Stop

    def once_more(report):
        return reconstruct(*given, iters=150, rate=0.1, key=KEY, checkpoint=tmp_path / "block", report=report)

    # the checkpoint is written after the report, so that the stop loses the second chunk of 100
    with pytest.raises(Stop):
        once_more(stop)
    resumed = once_more(None)
    for name, value in whole.params["w"].items():
        np.testing.assert_array_equal(resumed.params["w"][name], value)


def test_gptq_and_rounding_to_nearest_come_from_the_same_loop():
    plain = quantize_model(MLP, X, RoundToNearest(bits=3))
    found = quantize_model(MLP, X, SecondOrder(bits=3))
    w = np.asarray(MLP.layers[0].weight)
    grid = RoundToNearest(bits=3).first_grid(w)
    assert np.array_equal(plain.weights_["layers.0"].codes, to_codes(w, grid))
    assert np.array_equal(found.weights_["layers.0"].codes, gptq(w, X.T @ X, grid))
    hidden = np.maximum(X @ found.weights_["layers.0"].weight.T + np.asarray(MLP.layers[0].bias), 0)
    last = np.asarray(MLP.layers[1].weight)
    assert np.array_equal(
        found.weights_["layers.1"].codes, gptq(last, hidden.T @ hidden, RoundToNearest(bits=3).first_grid(last))
    )
    assert plain.losses_["layers.0"].size == 0


def test_the_model_computes_with_what_numpy_makes_of_the_integers():
    found = quantize_model(MLP, X, FlexRound(bits=2, symmetric=False, per_channel=True), iters=20)
    w1, w2 = (from_codes(*found.weights_[f"layers.{k}"]) for k in (0, 1))
    hidden = np.maximum(X @ w1.T + np.asarray(MLP.layers[0].bias), 0)
    np.testing.assert_allclose(found.predict(X), hidden @ w2.T + np.asarray(MLP.layers[1].bias), atol=1e-5)
    assert all(len(np.unique(row)) <= 4 for row in w1)
    # 2-bit codes of 48 + 24 weights, a step of 4 bytes and a zero point of one for each of 8 + 3 rows, 11 biases
    assert found.size_bytes() == 12 + 6 + 11 * 5 + 11 * 4


@pytest.mark.parametrize("activations", [None, Activations(bits=4)])
def test_a_saved_model_answers_the_same_and_others_are_refused(tmp_path, activations):
    made = QuantModel(MLP, FlexRound(bits=3), activations=activations, iters=10, drop=0.5).fit(X)
    made.save(tmp_path / "model.safetensors")
    other = eqx.nn.MLP(6, 3, 8, 1, key=jax.random.key(5))
    read = QuantModel(other, FlexRound(bits=3), activations=activations).load(tmp_path / "model.safetensors")
    assert np.array_equal(read.predict(X), made.predict(X))
    assert read.size_bytes() == made.size_bytes()
    if activations is None:
        wider = eqx.nn.MLP(6, 3, 9, 1, key=KEY)
        with pytest.raises(DataError, match="of another model"):
            QuantModel(wider, FlexRound()).load(tmp_path / "model.safetensors")
        with pytest.raises(DataError, match="of another model"):
            QuantModel(eqx.nn.MLP(6, 3, 8, 2, key=KEY), FlexRound()).load(tmp_path / "model.safetensors")
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(3)}, tmp_path / "plain.safetensors")
        with pytest.raises(DataError, match="no quantised model"):
            QuantModel(MLP, FlexRound()).load(tmp_path / "plain.safetensors")


def test_blocks_are_found_and_learned_as_a_whole():
    model = Deep(KEY)
    assert list(layers_of(model)) == [
        "embed", "blocks.0.first", "blocks.0.second", "blocks.1.first", "blocks.1.second", "head",
    ]  # fmt: skip
    made = quantize_model(model, X, FlexRound(bits=3), granularity="block", iters=120, rate=1e-2, skip=("embed", "head"))
    assert list(made.losses_) == ["blocks.0", "blocks.1"]
    plain = quantize_model(model, X, RoundToNearest(bits=3), skip=("embed", "head"))
    wanted = jax.vmap(model)(X)
    assert relative_error(made.predict(X), wanted) < 0.5 * relative_error(plain.predict(X), wanted)


def test_activations_are_quantised_inside_of_blocks():
    model = Deep(KEY)
    made = quantize_model(
        model, X, FlexRound(bits=8), granularity="block", activations=Activations(bits=3), iters=5, skip=("embed", "head")
    )
    assert set(made.activations_) == set(made.weights_)
    x = jax.vmap(model.embed)(X)
    params, layer = made.activations_["blocks.0.first"], made.weights_["blocks.0.first"].weight
    levels = np.arange(float(params["low"]), float(params["high"]) + 1) * float(jnp.exp(params["log_step"]))
    rounded = levels[np.abs(np.asarray(x)[..., None] - levels).argmin(axis=-1)]
    inner = passed(made.model_, layers_of(model)["blocks.0.first"], jnp.asarray(X), False)[1]
    np.testing.assert_allclose(inner, rounded @ layer.T + np.asarray(model.blocks[0].first.bias), atol=1e-4)


def test_the_second_moment_of_a_convolution_is_that_of_its_patches():
    conv = eqx.nn.Conv2d(2, 3, 3, stride=2, padding=1, key=KEY)
    x = np.random.default_rng(0).normal(size=(5, 2, 6, 6)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = [padded[:, :, i : i + 3, j : j + 3].reshape(5, -1) for i in range(0, 6, 2) for j in range(0, 6, 2)]
    flat = np.concatenate(patches).astype(np.float64)
    np.testing.assert_allclose(second_moment(conv, jnp.asarray(x), False), flat.T @ flat, rtol=1e-4, atol=1e-4)
    linear = eqx.nn.Linear(6, 2, key=KEY)
    np.testing.assert_allclose(second_moment(linear, jnp.asarray(X), False), X.T @ X, rtol=1e-4, atol=1e-4)


def test_convolutions_are_quantised_and_other_bits_for_some_layers():
    keys = jax.random.split(KEY, 2)
    model = eqx.nn.Sequential([
        eqx.nn.Conv2d(1, 4, 3, padding=1, key=keys[0]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(64, 3, key=keys[1]),
    ])  # fmt: skip
    x = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
    made = quantize_model(model, x, FlexRound(bits=3), iters=5, others={"layers.0": RoundToNearest(bits=8)})
    assert [each.grid.bits for each in made.weights_.values()] == [8, 3]
    assert set(made.params_["layers.3"]) >= {"log_elements", "log_rows"}


class Twice(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, x):
        return self.layer(self.layer(x))


class Mapped(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, x):
        return jax.vmap(self.layer)(x.reshape(1, -1))


def test_models_and_samples_that_do_not_work_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="no layer to quantise"):
        QuantModel(eqx.nn.LayerNorm(3), FlexRound())
    with pytest.raises(InputError, match="There is no layer 'fc'"):
        QuantModel(MLP, FlexRound(), others={"fc": FlexRound()})
    with pytest.raises(InputError, match="not finite"):
        quantize_model(MLP, np.full((3, 6), np.nan, np.float32), FlexRound())
    with pytest.raises(InputError, match="does not take samples"):
        quantize_model(MLP, np.zeros((3, 7), np.float32), FlexRound())
    with pytest.raises(InputError, match="not quantised yet"):
        QuantModel(MLP, FlexRound()).predict(X)
    with pytest.raises(InputError, match="2 times"):
        quantize_model(Twice(eqx.nn.Linear(6, 6, key=KEY)), X, FlexRound())
    with pytest.raises(InputError, match="within a transformation"):
        quantize_model(Mapped(eqx.nn.Linear(6, 6, key=KEY)), X, FlexRound())
    with pytest.raises(InputError, match="moments of 'w'"):
        reconstruct(Linear(), {"w": jnp.asarray(X[:2])}, X, X, X, SecondOrder(), key=KEY)
    with pytest.raises(InputError, match="as many of each"):
        reconstruct(Linear(), {"w": jnp.asarray(X[:2])}, X[:3], X, X, FlexRound(), key=KEY)


def test_a_model_that_is_one_layer():
    layer = eqx.nn.Linear(6, 4, key=KEY)
    assert layers_of(layer) == {"model": ()}
    assert name_of(next(iter(calls(layer, [()], jnp.asarray(X[:1]), False)))) == "model"
    made = quantize_model(layer, X, RoundToNearest(bits=8))
    np.testing.assert_allclose(made.predict(X), jax.vmap(layer)(X), atol=0.02)
