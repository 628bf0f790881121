"""Quantisers of weights and activations: against plain NumPy, closed forms, and what the official code gave."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.learn.rounding import (
    Activations,
    AdaQuant,
    AdaRound,
    FlexRound,
    LearnedStep,
    RoundToNearest,
    SecondOrder,
    clip_with_ends,
    round_through,
)
from broadsheet.numerics.quantisation import from_codes, to_codes

ALL = (RoundToNearest, FlexRound, LearnedStep, AdaQuant, AdaRound, SecondOrder)
OFFICIAL = Path(__file__).parent.parent / "references" / "flexround.npz"
W = np.random.default_rng(0).normal(0.1, 1, (6, 10)).astype(np.float32)
FILTERS = np.random.default_rng(1).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("w", [W, FILTERS], ids=["linear", "convolution"])
@pytest.mark.parametrize(("symmetric", "per_channel"), [(True, False), (False, True)])
def test_each_starts_as_rounding_to_nearest_in_numpy(kind, w, symmetric, per_channel):
    rule = kind(bits=3, symmetric=symmetric, per_channel=per_channel)
    params = rule.init(jnp.asarray(w))
    grid = rule.first_grid(w)
    plain = to_codes(w, grid)
    codes, step, zero = rule.codes(params, jnp.asarray(w))
    assert codes.dtype == (np.int8 if symmetric else np.uint8)
    assert np.array_equal(zero, grid.zero)
    np.testing.assert_allclose(step, grid.step, rtol=1e-6)
    assert np.array_equal(codes, plain)
    if kind is not AdaRound:  # soft until it has learned
        np.testing.assert_allclose(rule.quantize(params, jnp.asarray(w)), from_codes(plain, grid), rtol=1e-6, atol=1e-6)
    assert set(rule.learned(params)) == set(params)


@pytest.mark.parametrize("symmetric", [True, False])
def test_flexround_after_a_step_is_the_numpy_formula(symmetric):
    rng = np.random.default_rng(3)
    for w, names in ((W, ("log_elements", "log_rows")), (FILTERS, ("log_elements", "log_rows", "log_columns"))):
        rule = FlexRound(bits=4, symmetric=symmetric, per_channel=True)
        params = rule.init(jnp.asarray(w))
        params |= {name: jnp.asarray(rng.normal(0, 0.3, params[name].shape), jnp.float32) for name in names}
        s1 = np.exp(np.asarray(params["log_step"]))
        division = s1 * np.prod([np.broadcast_to(np.exp(params[name]), w.shape) for name in names], axis=0)
        low, high = (-8, 7) if symmetric else (-np.asarray(params["zero"]), 15 - np.asarray(params["zero"]))
        expected = s1 * np.clip(np.round(w / division), low, high)
        np.testing.assert_allclose(rule.quantize(params, jnp.asarray(w)), expected, rtol=1e-5)


@pytest.mark.parametrize("case", ["asymmetric", "symmetric"])
def test_flexround_gives_what_the_official_quantiser_gives(case):
    with np.load(OFFICIAL) as held:
        given = {name.removeprefix(f"{case}_"): held[name] for name in held.files if name.startswith(f"{case}_")}
        w, outer = jnp.asarray(held["w"]), jnp.asarray(held["outer"])
    rule = FlexRound(bits=3, symmetric=case == "symmetric", per_channel=True, power=2.4)
    params = rule.init(w)
    if case == "asymmetric":  # the official search for symmetric codes weighs errors by a step of 1
        np.testing.assert_allclose(np.exp(params["log_step"]), given["step"], rtol=1e-6)
        np.testing.assert_array_equal(params["zero"], given["zero"])
    params |= {"log_step": jnp.log(given["step"]), "zero": jnp.asarray(given["zero"])}
    params |= {"log_elements": jnp.asarray(given["delta2"]), "log_rows": jnp.asarray(given["delta3"])}
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(outer * rule.quantize(p, w)))(params)
    np.testing.assert_allclose(rule.quantize(params, w), given["quantised"], atol=1e-6)
    assert float(value) == pytest.approx(float(np.sum(np.asarray(outer) * given["quantised"])), rel=1e-5)
    for name, theirs in (("log_step", "grad1"), ("log_elements", "grad2"), ("log_rows", "grad3")):
        np.testing.assert_allclose(gradient[name], given[theirs], atol=1e-6 * np.abs(given[theirs]).max() + 1e-6)


def test_the_ends_of_the_range_pass_the_derivative_and_halves_go_to_even():
    low, high = jnp.asarray(-2.0), jnp.asarray(1.0)
    slope = jax.vmap(jax.grad(lambda x: clip_with_ends(round_through(x), low, high)))(
        jnp.array([-2.6, -2.4, -2.0, 0.3, 1.0, 1.6])
    )
    assert slope.tolist() == [0, 1, 1, 1, 1, 0]
    assert round_through(jnp.array([-1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, 0, 0, 2, 2]


def test_a_weight_of_zero_cannot_be_moved_by_division_but_by_adaround():
    w = jnp.asarray([[0.0, 0.4, -1.0, 0.9]])
    flex, ada = FlexRound(bits=4), AdaRound(bits=4)
    slope = jax.grad(lambda p: jnp.sum(flex.quantize(p, w)))(flex.init(w))
    assert slope["log_elements"][0, 0] == 0
    up = ada.init(w) | {"up": jnp.full_like(w, 5.0)}
    assert ada.codes(up, w)[0][0, 0] == 1


def test_adarounds_codes_are_the_two_beside_each_weight_and_its_penalty_sets_in_after_the_warm_up():
    rule, w = AdaRound(bits=4), jnp.asarray(W)
    params = rule.init(w)
    x = W / np.asarray(params["step"])
    for sign, side in ((8.0, np.floor(x) + 1), (-8.0, np.floor(x))):
        codes, _, _ = rule.codes(params | {"up": jnp.full_like(w, sign)}, w)
        assert np.array_equal(codes, np.clip(side, -8, 7))
    h = np.clip(1.2 / (1 + np.exp(-np.asarray(params["up"]))) - 0.1, 0, 1)
    np.testing.assert_allclose(h, x - np.floor(x), atol=1e-5)
    assert float(rule.penalty(params, jnp.asarray(0.1))) == 0
    assert float(rule.penalty(params, jnp.asarray(1.0))) == pytest.approx(0.01 * np.sum(1 - np.abs(2 * h - 1) ** 2), rel=1e-4)


def test_adaquant_and_the_learned_step_are_their_formulas():
    w = jnp.asarray(W)
    rule = AdaQuant(bits=3)
    params = rule.init(w)
    s = float(params["first_step"])
    moved = params | {"offset": jnp.full_like(w, 0.75), "log_step": jnp.log(1.1 * s)}
    expected = 1.1 * s * np.clip(np.round((W + 0.75 * s) / (1.1 * s)), -4, 3)
    np.testing.assert_allclose(rule.quantize(moved, w), expected, rtol=1e-5)
    step = LearnedStep(bits=3)
    params = step.init(w)
    assert [name for name, yes in step.learned(params).items() if yes] == ["log_step"]
    # the derivative of LSQ: round(x) - x inside, the end of the range outside, times the step in its logarithm
    slope = jax.grad(lambda p: jnp.sum(step.quantize(p, w)))(params)["log_step"]
    s = float(jnp.exp(params["log_step"]))
    x = W / s
    inside = np.clip(np.round(x), -4, 3) == np.round(x)
    assert float(slope) == pytest.approx(s * np.sum(np.where(inside, np.round(x) - x, np.clip(np.round(x), -4, 3))), rel=1e-4)


def test_what_is_fixed_is_not_learned():
    params = FlexRound(learn_step=False, row_scale=False).init(jnp.asarray(W))
    assert FlexRound(learn_step=False, row_scale=False).learned(params) == {
        "zero": False, "low": False, "high": False, "log_step": False, "log_elements": True,
    }  # fmt: skip
    assert "log_columns" not in params
    assert "log_columns" in FlexRound().init(jnp.asarray(FILTERS))
    assert not any(RoundToNearest().learned(RoundToNearest().init(jnp.asarray(W))).values())


def test_activations_are_rounded_to_a_grid_with_a_zero_point_and_some_are_dropped():
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (400, 8)))
    rule = Activations(bits=4, drop=0.25)
    params = rule.init(x)
    rounded = rule.quantize(params, x)
    step = float(jnp.exp(params["log_step"]))
    levels = np.arange(float(params["low"]), float(params["high"]) + 1) * step
    assert len(levels) == 16
    nearest = levels[np.abs(np.asarray(x)[..., None] - levels).argmin(axis=-1)]
    np.testing.assert_allclose(rounded, nearest, atol=1e-5)
    assert np.sum((np.asarray(x) - np.asarray(rounded)) ** 2) < 0.01 * np.sum(np.asarray(x) ** 2)
    mixed = rule.dropped(params, x, jax.random.key(1))
    different = np.asarray(x != rounded)
    assert np.mean(np.asarray(mixed == x)[different]) == pytest.approx(0.25, abs=0.05)
    assert np.all(np.asarray((mixed == x) | (mixed == rounded)))


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="1 bits"):
        FlexRound(bits=1)
    with pytest.raises(InputError, match="9 bits"):
        dataclasses.replace(FlexRound(), bits=9)
    with pytest.raises(InputError, match="stay as they are"):
        Activations(drop=1.0)
    with pytest.raises(InputError, match="not finite"):
        FlexRound().init(jnp.full((2, 2), jnp.nan))
