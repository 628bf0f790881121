"""FlexRound, arXiv 2306.00317: learnable rounding of weights by element-wise division, for post-training quantisation.

Each weight is divided by a learned positive number before it is rounded, and multiplied by the common step alone; both are
learned so that the outputs of a layer or block stay. Rounding to nearest, a plain learned step, AdaRound, AdaQuant and GPTQ run
in the same loop on the same samples; the rounding's factors are switched off one by one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language.corpora import read_corpus
from broadsheet.language.models import load
from broadsheet.language.quantisation import perplexity, quantise, windows
from broadsheet.language.quantisers import Scheme
from broadsheet.language.tiny_chain import FULL, Recipe, tiny_chain
from broadsheet.language.tiny_world import World
from broadsheet.learn import fit
from broadsheet.learn.quantised import QuantModel, quantize_model
from broadsheet.learn.reconstruction import relative_error
from broadsheet.learn.rounding import (
    AdaQuant,
    AdaRound,
    FlexRound,
    LearnedStep,
    Rounding,
    RoundToNearest,
    SecondOrder,
    clip_with_ends,
    round_through,
)
from broadsheet.learn.surgery import layers_of, module_at, outputs, with_modules
from broadsheet.numerics import generator, seed_of
from broadsheet.vision.images import Images, cifar, digits
from broadsheet.vision.resnet import IMAGENET_MEAN, IMAGENET_SPREAD, read_resnet

paper = Paper(
    slug="flexround",
    arxiv="2306.00317",
    title="FlexRound: Learnable Rounding based on Element-wise Division for Post-Training Quantization",
    published="2023-05-31",
    authors=4,
    basis="code",
    code="github.com/onliwad101/FlexRound_LRQ (no licence file)",
    summary="Weights of a trained network are rounded to a few bits with a few hundred samples and no further training. Each "
    "weight is divided by a positive number of its own before rounding, learned together with the common step so that every "
    "block keeps its outputs; since the derivative grows with the weight, large weights can move by several levels.",
    topics=("quantisation", "post-training quantisation", "model compression"),
    parts=(
        "broadsheet.learn.rounding.FlexRound",
        "broadsheet.learn.rounding.AdaRound",
        "broadsheet.learn.quantised.quantize_model",
        "broadsheet.learn.reconstruction.reconstruct",
        "broadsheet.language.quantisation.quantize_hf",
        "broadsheet.language.compressed.write_compressed",
    ),
    requires=("language",),
    verbs=("broadsheet language quantize MODEL --bits 4 --method flexround --calibrate TEXTS.txt --out FOLDER",),
    notes=(
        "The rivals learn at rates of their own, found on development seeds: AdaRound and AdaQuant at 0.1, FlexRound at 0.003. "
        "At FlexRound's rate AdaRound's error on digits would be five times as large, and F4 would flatter.",
        "At 4 bits GPTQ, which learns nothing by gradient, keeps the digits network's outputs better than all others.",
        "Factors that were learned for other weights move as many weights, and larger ones: that large weights move first "
        "comes from the division itself, not from what was learned.",
        "On the tiny language model at 2 bits AdaRound and AdaQuant, each at its own rate, keep the perplexity about as well: "
        "over four development seeds 0.15 and 0.17 of what rounding to nearest loses is lost, and 0.14 by FlexRound.",
        "ImageNet, GLUE and the published tables are not reproduced; the residual network for CIFAR was read from files with "
        "random weights only.",
    ),
)

RATES = {FlexRound: 1e-2, LearnedStep: 1e-2, AdaRound: 0.3, AdaQuant: 0.3, RoundToNearest: 1.0, SecondOrder: 1.0}
"""Learning rates: each the best at 2 bits and 600 steps on the dense network, seeds 0 to 3, with no better one on either side:
of 0.001 to 0.03 for FlexRound, 0.003 to 0.1 for the step alone, 0.03 to 1 for AdaRound and AdaQuant."""


@dataclass(frozen=True)
class Digits:
    """A small network that reads digits, and the samples that its weights are quantised with."""

    bits: tuple[int, ...] = (2, 3, 4)
    iters: int = 600  # steps a layer
    calibration: int = 512  # images
    batch: int = 32
    hidden: int = 64
    training: int = 1500  # steps of the network in full precision

    def network(self, key: PRNGKeyArray) -> tuple[eqx.nn.MLP, Images, np.ndarray]:
        """A trained network, the images, and those that it is calibrated with."""
        rng = generator(key)
        images = digits(rng, train=1257)
        flat = Images(images.x.reshape(-1, 64), images.y, images.test_x.reshape(-1, 64), images.test_y)
        model = trained(eqx.nn.MLP(64, 10, self.hidden, 2, key=key), flat, self.training, key)
        return model, flat, flat.x[rng.permutation(len(flat.x))[: self.calibration]]

    def quantised(self, model: Any, calibration: np.ndarray, rounding: Rounding, key: PRNGKeyArray) -> QuantModel:
        """The network with weights rounded in this way, layer by layer."""
        rate = RATES[type(rounding)]
        return quantize_model(model, calibration, rounding, key=key, iters=self.iters, rate=rate, batch=self.batch)

    def log_error(self, model: Any, images: Images, found: QuantModel) -> float:
        """Logarithm of the relative squared error of the answers to test images."""
        return float(np.log(relative_error(found.predict(images.test_x), outputs(model, jnp.asarray(images.test_x), False))))


def trained(model: Any, images: Images, steps: int, key: PRNGKeyArray) -> Any:
    """The network after Adam on the cross-entropy of its answers."""
    data = _Draw(jnp.asarray(images.x), jnp.asarray(images.y))
    return fit(model, _CrossEntropy(), data, optimiser=_ADAM, steps=steps, key=key, chunk=min(steps, 500)).model


_ADAM = optax.adam(1e-3)


class _Draw(eqx.Module):
    """64 images and labels."""

    x: Array
    y: Array

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        taken = jax.random.randint(key, (64,), 0, len(self.y))
        return self.x[taken], self.y[taken]


class _CrossEntropy(eqx.Module):
    def __call__(self, model: Any, batch: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(batch[0]), batch[1]).mean()


def accuracy(answers: Array | np.ndarray, labels: np.ndarray) -> float:
    """Percent of the images that are read rightly."""
    return 100 * float(np.mean(np.asarray(answers).argmax(axis=1) == labels))


@dataclass(frozen=True)
class Identity:
    """Random weights, rounded at random divisions: many codes at the ends of the range."""

    rows: int = 20
    columns: int = 30
    bits: tuple[int, ...] = (2, 3, 4)


@paper.experiment(
    presets={"smoke": Identity(rows=2, columns=3), "quick": Identity(), "paper": Identity(rows=500, columns=500)},
    claims=[
        Claim("F1", "what is learned has the derivatives of the formulas", kind="check",
              reference="the derivatives by S2 and s1 written out in NumPy; controls: a clip that halves the derivative at its "
              "ends, and multiplication by all of S", ablation=("half-at-ends", "multiplied-by-all"),
              checks=[at_most("difference", 1e-6)]),
        Claim("F2", "the derivative by S2 grows with the weight", kind="paper", where="proposition on the derivative",
              ablation="added-offset", no_null="it is an identity of the derivative", checks=[at_most("spread", 1e-6)]),
    ],
    precision="float64",
    cost=4.0,
)  # fmt: skip
def derivatives(config: Identity, key, log: Log) -> Report:
    """Derivatives of a random function of the rounded weights, by autodiff and by hand."""
    rng = generator(key)
    arms: dict[str, dict[str, float]] = {name: {} for name in ("system", "half-at-ends", "multiplied-by-all", "added-offset")}
    slopes: dict[str, np.ndarray] = {}
    for bits in config.bits:
        w, outer = (jnp.asarray(each) for each in rng.normal(size=(2, config.rows, config.columns)))
        rule, added = FlexRound(bits=bits), AdaQuant(bits=bits)
        params = rule.init(w)
        params |= {name: jnp.asarray(rng.normal(0, 0.1, params[name].shape)) for name in ("log_elements", "log_rows")}
        exact = by_hand(np.asarray(w), {name: np.asarray(value) for name, value in params.items()}, np.asarray(outer))
        for arm, function in (("system", rule.quantize), ("half-at-ends", half_at_ends), ("multiplied-by-all", by_all)):
            found = derivative(function, params, w, outer)
            worst = max(float(np.max(np.abs(found[name] - exact[name]))) for name in exact)
            arms[arm]["difference"] = max(arms[arm].get("difference", 0.0), worst)
        for arm, function, first, name in (("system", rule.quantize, rule.init(w), "log_elements"),
                                           ("added-offset", added.quantize, added.init(w), "offset")):  # fmt: skip
            slope = np.abs(derivative(function, first, w, outer)[name] / outer)
            inside = slope > 0
            per_weight = (slope / np.abs(w))[inside]
            arms[arm]["spread"] = max(arms[arm].get("spread", 0.0), np.ptp(per_weight) / per_weight.mean())
            slopes |= {f"{arm}_weight": np.abs(w)[inside], f"{arm}_slope": slope[inside]}
    return Report(arms=arms, arrays=slopes)


def derivative(function: Any, params: dict[str, Array], w: Array, outer: Array) -> dict[str, np.ndarray]:
    """Derivatives of sum(outer function(params, w)) by all parameters."""
    found = jax.grad(lambda params: jnp.sum(outer * function(params, w)))(params)
    return {name: np.asarray(value) for name, value in found.items()}


def half_at_ends(params: dict[str, Array], w: Array) -> Array:
    """FlexRound with a clip that passes half of the derivative at its ends."""
    log_division = params["log_step"] + params["log_elements"] + params["log_rows"]
    return jnp.exp(params["log_step"]) * jnp.clip(round_through(w / jnp.exp(log_division)), params["low"], params["high"])


def by_all(params: dict[str, Array], w: Array) -> Array:
    """FlexRound that multiplies by all that it divided by."""
    division = jnp.exp(params["log_step"] + params["log_elements"] + params["log_rows"])
    return division * clip_with_ends(round_through(w / division), params["low"], params["high"])


def by_hand(w: np.ndarray, params: dict[str, np.ndarray], outer: np.ndarray) -> dict[str, np.ndarray]:
    """Derivatives of sum(outer Ŵ) by log S2, log s3 and log s1; that of rounding is 1, the ends of the range are inside."""
    step, factors = np.exp(params["log_step"]), np.exp(params["log_elements"] + params["log_rows"])
    x = w / step / factors
    whole, clipped = np.round(x), np.clip(np.round(x), params["low"], params["high"])
    inside = whole == clipped
    elements = -outer * inside * w / factors
    by_step = np.sum(outer * np.where(inside, whole - x, clipped))
    return {"log_elements": elements, "log_rows": elements.sum(axis=1, keepdims=True), "log_step": step * by_step}


@derivatives.figure
def slopes(runs: Runs):
    """How strongly a factor, or an added offset, is moved, by the size of its weight."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.plot(data["added-offset_weight"], data["added-offset_slope"], ".", ms=3, color=CONTROL_COLOUR, label="offset, added")
    axis.plot(data["system_weight"], data["system_slope"], ".", ms=3, color=SYSTEM_COLOUR, label="factor, divided by")
    label(axis, "|weight|", "|derivative| / |derivative by Ŵ|")
    return fig


LEARNED_AT_ALL = "any rounding that is learned weight by weight does so, AdaRound and AdaQuant too; F4 and F4b set them beside"

Rivals = dict[str, tuple[type[Rounding], dict[str, Any]]]

RIVALS: Rivals = {
    "system": (FlexRound, {}),
    "without-elements": (FlexRound, {"element_scale": False}),
    "learned-step": (LearnedStep, {}),
    "adaround": (AdaRound, {}),
    "adaquant": (AdaQuant, {}),
    "gptq": (SecondOrder, {}),
    "nearest": (RoundToNearest, {}),
}
"""Arms: FlexRound, FlexRound without S2, and what it is compared with."""


@paper.experiment(
    presets={
        "smoke": Digits(bits=(2,), iters=3, training=5, hidden=8),
        "quick": Digits(),
        "paper": Digits(iters=20_000, calibration=1024),
    },
    claims=[
        Claim("F3", "outputs are kept far better than by rounding to nearest, at 2 bits", kind="paper", where="abstract",
              ablation="without-elements", null=("learned-step", "gptq", "adaround", "adaquant"), grows="iters", seeds=8,
              reason=LEARNED_AT_ALL, checks=[
                  at_most("error_to_nearest_2", 0.12, over="mean")]),
        Claim("F4", "they are kept better than by AdaRound, at 2 bits", kind="paper", where="tables of ResNet and MobileNetV2",
              ablation="without-elements", null=("learned-step", "gptq", "adaquant"), grows="iters", seeds=8,
              reason="AdaQuant is better than AdaRound too: it also learns the step and is not bound to two levels; see F4b",
              checks=[
                  at_most("log_error_2", 0.0, minus="adaround")]),
        Claim("F4b", "and better than by AdaQuant, by 5 % or more", kind="paper", where="tables of ResNet and MobileNetV2",
              ablation="without-elements", null=("learned-step", "gptq", "adaround"), grows="iters", seeds=16, checks=[
                  at_most("log_error_2", -0.05, minus="adaquant")]),
        Claim("F5", "at 2 bits at most 1.5 points of accuracy are lost, and more by rounding to nearest", kind="paper",
              where="tables", ablation="without-elements", null=("learned-step", "gptq", "adaround", "adaquant"), grows="iters",
              seeds=8, reason=LEARNED_AT_ALL, checks=[
                  at_most("points_lost_2", 1.5, over="mean"), at_least("points_lost_2", 1.5, of="nearest", over="mean")]),
    ],
    cost=15.0,
)  # fmt: skip
def digits_mlp(config: Digits, key, log: Log) -> Report:
    """A network 64-64-64-10 at 2, 3 and 4 bits, one step a layer: seven ways of rounding on the same samples."""
    return compared(config, RIVALS, key, log)


def compared(config: Digits, rivals: Rivals, key: PRNGKeyArray, log: Log) -> Report:
    """Errors of the answers to test images, and points of accuracy lost, of each way of rounding."""
    model, images, calibration = config.network(key)
    wanted = outputs(model, jnp.asarray(images.test_x), batched=False)
    full = accuracy(wanted, images.test_y)
    arms: dict[str, dict[str, float]] = {name: {"accuracy_full": full} for name in rivals}
    for done, bits in enumerate(config.bits):
        for name, (kind, options) in reversed(rivals.items()):
            rounding = kind(bits=bits, **options)
            answers = config.quantised(model, calibration, rounding, key).predict(images.test_x)
            error, right = relative_error(answers, wanted), accuracy(answers, images.test_y)
            arms[name] |= {f"error_{bits}": error, f"log_error_{bits}": np.log(error), f"points_lost_{bits}": full - right}
            arms[name][f"error_to_nearest_{bits}"] = error / arms["nearest"][f"error_{bits}"]
        log.progress((done + 1) / len(config.bits), error=arms["system"][f"error_{bits}"])
    rows = [[[arms[name][f"{what}_{bits}"] for bits in config.bits] for name in rivals] for what in ("error", "points_lost")]
    return Report(arms=arms, arrays={"bits": config.bits, "error": rows[0], "points_lost": rows[1]})


@digits_mlp.figure
def errors_and_accuracy(runs: Runs):
    """Relative output error and accuracy lost, by bits, for each way of rounding."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    looks = [(SYSTEM_COLOUR, "-o"), (CONTROL_COLOUR, "-s"), (CONTROL_COLOUR, ":s"), *((COLOURS[k], "-^") for k in (1, 2, 3)),
             ("k", "--x")]  # fmt: skip
    names = ["FlexRound", "without S2", "learned step", "AdaRound", "AdaQuant", "GPTQ", "nearest"]
    for k, ((colour, line), name) in enumerate(zip(looks, names, strict=True)):
        axes[0].semilogy(data["bits"], data["error"][k], line, color=colour, label=name)
        axes[1].plot(data["bits"], data["points_lost"][k], line, color=colour)
    axes[0].set_xticks(data["bits"])
    axes[1].set_xticks(data["bits"])
    label(axes[0], "bits of a weight", "output error / output (squares)")
    label(axes[1], "bits of a weight", "accuracy lost (points)")
    return fig


@dataclass(frozen=True)
class Convolutions(Digits):
    """Two convolutions that read digits; a residual network for CIFAR at the paper's size."""

    source: Literal["digits", "cifar"] = "digits"
    data: str | None = None  # folder with CIFAR-10 and model.safetensors, the weights with torchvision's names
    bits: tuple[int, ...] = (2, 3)
    tests: int = 10_000  # images
    edges: int | None = None  # bits of the first and the last layer, rounded to nearest; None as the others

    def network(self, key: PRNGKeyArray) -> tuple[Any, Images, np.ndarray]:
        rng = generator(key)
        if self.source == "cifar":
            images = cifar(self.data)
            model: Any = read_resnet(Path(str(self.data)) / "model.safetensors")
            x, test_x = (((each - IMAGENET_MEAN) / IMAGENET_SPREAD).transpose(0, 3, 1, 2).astype(np.float32)
                         for each in (images.x, images.test_x[: self.tests]))  # fmt: skip
            images = Images(x, images.y, test_x, images.test_y[: self.tests])
        else:
            images = digits(rng, train=1257)
            images = images._replace(x=images.x[:, None], test_x=images.test_x[:, None])
            model = trained(two_convolutions(key), images, self.training, key)
        return model, images, images.x[rng.permutation(len(images.x))[: self.calibration]]

    def quantised(self, model: Any, calibration: np.ndarray, rounding: Rounding, key: PRNGKeyArray) -> QuantModel:
        names = list(layers_of(model))
        ends = {} if self.edges is None else dict.fromkeys((names[0], names[-1]), RoundToNearest(bits=self.edges))
        return quantize_model(model, calibration, rounding, key=key, iters=self.iters, rate=RATES[type(rounding)],
                              batch=self.batch, others=ends)  # fmt: skip


def two_convolutions(key: PRNGKeyArray) -> eqx.nn.Sequential:
    """3x3 convolutions with 16 and 32 channels and stride 2, and a linear read-out."""
    keys = jax.random.split(key, 3)
    return eqx.nn.Sequential([
        eqx.nn.Conv2d(1, 16, 3, stride=2, padding=1, key=keys[0]), eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(16, 32, 3, stride=2, padding=1, key=keys[1]), eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(128, 10, key=keys[2]),
    ])  # fmt: skip


CONVOLUTION_RIVALS: Rivals = {
    "system": (FlexRound, {}),
    "without-columns": (FlexRound, {"column_scale": False}),
    "without-elements": (FlexRound, {"element_scale": False}),
    "adaround": (AdaRound, {}),
    "adaquant": (AdaQuant, {}),
    "gptq": (SecondOrder, {}),
    "nearest": (RoundToNearest, {}),
}


@paper.experiment(
    presets={
        "smoke": Convolutions(bits=(2,), iters=2, training=5, calibration=32),
        "quick": Convolutions(bits=(2,)),
        "paper": Convolutions(source="cifar", bits=(2, 3, 4), iters=20_000, calibration=1024, edges=8),
    },
    claims=[
        Claim("F4c", "on convolutions, too, outputs are kept better than by AdaQuant, by 5 % or more", kind="paper",
              where="tables of ResNet and MobileNetV2", ablation="without-elements", null=("gptq", "adaround"), grows="iters",
              reason="on these convolutions FlexRound and AdaQuant, each at its best rate, cannot be told apart: the order on "
              "dense layers (F4b) does not carry over",
              seeds=16, checks=[at_most("log_error_2", -0.05, minus="adaquant")]),
        Claim("F7d", "a factor for each input channel of a convolution helps", kind="paper", where="ablation study",
              ablation="without-columns", no_null="it compares two forms of one method", grows="iters", seeds=16,
              reason="on two small convolutions it makes no difference that sixteen seeds could show",
              checks=[at_most("log_error_2", -0.02, minus="without-columns")]),
    ],
    data="data",
    cost=25.0,
)  # fmt: skip
def digits_cnn(config: Convolutions, key, log: Log) -> Report:
    """Two convolutions and a linear layer, one step a layer: seven ways of rounding on the same samples."""
    return compared(config, CONVOLUTION_RIVALS, key, log)


@digits_cnn.figure
def errors_of_convolutions(runs: Runs):
    """Relative output error and accuracy lost, for each way of rounding."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=4.8)
    names = ["FlexRound", "without s4", "without S2", "AdaRound", "AdaQuant", "GPTQ", "nearest"]
    colours = [SYSTEM_COLOUR, *[CONTROL_COLOUR] * 2, *COLOURS[1:4], "k"]
    for k, bits in enumerate(data["bits"]):
        mark = "os^"[k]
        axes[0].scatter(data["error"][:, k], names, color=colours, marker=mark, label=f"{bits} bits")
        axes[1].scatter(data["points_lost"][:, k], names, color=colours, marker=mark)
    for axis in axes:
        axis.invert_yaxis()
    axes[0].set_xscale("log")
    label(axes[0], "output error / output (squares)", "way of rounding")
    label(axes[1], "accuracy lost (points)", "way of rounding")
    return fig


@dataclass(frozen=True)
class Ablation(Digits):
    """The digits network at 2 bits, its factors switched off one by one."""

    bits: tuple[int, ...] = (2,)


FACTORS: dict[str, dict[str, Any]] = {
    "system": {},
    "without-elements": {"element_scale": False},
    "without-rows": {"row_scale": False},
    "fixed-step": {"learn_step": False},
    "fixed-step-without-rows": {"learn_step": False, "row_scale": False},
    "learned-step": {"element_scale": False, "row_scale": False},
}


@paper.experiment(
    presets={
        "smoke": Ablation(iters=3, training=5, hidden=8),
        "quick": Ablation(),
        "paper": Ablation(iters=20_000, calibration=1024),
    },
    claims=[
        Claim("F7", "a factor for each weight is what keeps the outputs: with S2 the error is 0.7 times as large or less",
              kind="paper", where="ablation study", ablation="without-elements", null="learned-step", grows="iters", seeds=16,
              checks=[at_most("log_error_2", float(np.log(0.7).round(4)), minus="without-elements")]),
        Claim("F7b", "learning the step with it helps", kind="paper", where="ablation study", ablation="fixed-step",
              no_null="it compares two forms of one method", grows="iters", seeds=16, checks=[
                  at_most("log_error_2", -0.02, minus="fixed-step")]),
        Claim("F7c", "a factor for each row beside it helps", kind="paper", where="ablation study", ablation="without-rows",
              no_null="it compares two forms of one method", grows="iters", seeds=16,
              reason="on average by a tenth, and by 3 % with four times the steps; sixteen seeds tell neither from 2 %",
              checks=[at_most("log_error_2", -0.02, minus="without-rows")]),
    ],
    cost=10.0,
)  # fmt: skip
def ablation(config: Ablation, key, log: Log) -> Report:
    """FlexRound at 2 bits with s1 fixed, without S2, without s3."""
    model, images, calibration = config.network(key)
    arms: dict[str, dict[str, float]] = {name: {} for name in FACTORS}
    for bits in config.bits:
        for done, (name, options) in enumerate(FACTORS.items()):
            found = config.quantised(model, calibration, FlexRound(bits=bits, **options), key)
            arms[name][f"log_error_{bits}"] = config.log_error(model, images, found)
            log.progress((done + 1) / len(FACTORS))
    return Report(
        arms=arms,
        arrays={"bits": config.bits, "log_error": [[row[f"log_error_{b}"] for b in config.bits] for row in arms.values()]},
    )


@ablation.figure
def factors(runs: Runs):
    """Relative output error with each factor switched off."""
    data = runs["system"].arrays
    fig, axis = figure(width=5.2)
    names = ["s1, S2 and s3", "without S2", "without s3", "s1 fixed", "s1 fixed, without s3", "s1 alone"]
    axis.scatter(np.exp(data["log_error"][:, 0]), names, color=[SYSTEM_COLOUR] + [CONTROL_COLOUR] * (len(names) - 1))
    axis.invert_yaxis()
    axis.set_xscale("log")
    label(axis, f"output error / output (squares), {data['bits'][0]} bits", "what is learned", legend=False)
    return fig


@dataclass(frozen=True)
class Shift(Digits):
    """The digits network with its steps held, so that codes move by the weights' own factors alone."""

    bits: tuple[int, ...] = (3, 4)


HELD: dict[str, Rounding] = {
    "system": FlexRound(learn_step=False),
    "without-elements": FlexRound(learn_step=False, element_scale=False),
    "adaround": AdaRound(),
    "adaquant": AdaQuant(learn_step=False),
}


@paper.experiment(
    presets={
        "smoke": Shift(bits=(3,), iters=3, training=5, hidden=8),
        "quick": Shift(),
        "paper": Shift(iters=20_000, calibration=1024),
    },
    claims=[
        Claim("F6", "weights leave the two levels beside them, large ones first", kind="paper", where="figure of shifted grids",
              published="12.8 % of the weights of MobileNetV2's first block", ablation="without-elements",
              null=("adaquant", "shuffled"), grows="iters", seeds=8,
              reason="factors that were learned for other weights, dealt out at random, make more weights leave, large ones "
              "first too: it is division that favours them, not what is learned", checks=[
                  *(at_least(f"moved_{bits}", 0.3, over="mean") for bits in (3, 4)),
                  *(at_least(f"size_{bits}", 1.3, over="mean") for bits in (3, 4)),
                  *(equals(f"moved_{bits}", 0.0, of="adaround") for bits in (3, 4))]),
    ],
    cost=10.0,
)  # fmt: skip
def grid_shift(config: Shift, key, log: Log) -> Report:
    """How far codes are from the nearest level, and how large those weights are that left both levels beside them.

    "shuffled" deals the factors that FlexRound learned to other weights of their layer.
    """
    model, _, calibration = config.network(key)
    arms: dict[str, dict[str, float]] = {name: {} for name in (*HELD, "shuffled")}
    shifts: dict[str, Any] = {}
    rng = generator(key)
    for done, bits in enumerate(config.bits):
        for arm, rounding in HELD.items():
            rule = replace(rounding, bits=bits)
            found = config.quantised(model, calibration, rule, key)
            weights = {name: np.asarray(module_at(model, place).weight) for name, place in found.places.items()}
            whole = {name: np.asarray(rule.whole(found.params_[name], jnp.asarray(w))) for name, w in weights.items()}
            arms[arm] |= moved_weights(rule, weights, whole)
            if arm in ("system", "adaround"):
                shifts[f"{arm}_{bits}"], shifts[f"size_{bits}"] = shifted(rule, weights, whole)
            if arm == "system":
                for name, w in weights.items():
                    dealt = {"log_elements": rng.permuted(np.asarray(found.params_[name]["log_elements"]), axis=None)}
                    whole[name] = np.asarray(rule.whole(found.params_[name] | dealt, jnp.asarray(w)))
                arms["shuffled"] |= moved_weights(rule, weights, whole)
        log.progress((done + 1) / len(config.bits))
    return Report(arms=arms, arrays=shifts | {"bits": config.bits})


def moved_weights(rule: Rounding, weights: dict[str, np.ndarray], whole: dict[str, np.ndarray]) -> dict[str, float]:
    """Percent of weights at neither level beside them, and their mean size over that of all in their layer (1 for none)."""
    sizes: list[float] = []
    for name, w in weights.items():
        grid, codes = rule.first_grid(w), whole[name]
        beside = [np.clip(side(w / grid.step), *grid.ends) for side in (np.floor, np.ceil)]
        sizes += list((np.abs(w) / np.abs(w).mean())[(codes != beside[0]) & (codes != beside[1])])
    moved = 100 * len(sizes) / sum(w.size for w in weights.values())
    return {f"moved_{rule.bits}": moved, f"size_{rule.bits}": float(np.mean(sizes)) if sizes else 1.0}


def shifted(rule: Rounding, weights: dict[str, np.ndarray], whole: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Levels between each weight's code and the nearest one, and its size over the mean of its layer."""
    steps, sizes = [], []
    for name, w in weights.items():
        grid = rule.first_grid(w)
        steps.append((whole[name] - np.clip(np.round(w / grid.step), *grid.ends)).ravel())
        sizes.append((np.abs(w) / np.abs(w).mean()).ravel())
    return np.concatenate(steps).astype(int), np.concatenate(sizes)


@grid_shift.figure
def shifted_grids(runs: Runs):
    """Weights by how many levels they moved from the nearest, small ones and large ones apart."""
    data = runs["system"].arrays
    bits = int(data["bits"][-1])
    fig, axes = figure(2)
    for axis, (arm, name) in zip(axes, (("system", "FlexRound"), ("adaround", "AdaRound")), strict=True):
        moved = np.arange(-3, 4)
        for k, (low, high) in enumerate(((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, np.inf))):
            chosen = (data[f"size_{bits}"] >= low) & (data[f"size_{bits}"] < high)
            share = [100 * np.mean(data[f"{arm}_{bits}"][chosen] == at) if chosen.any() else 0.0 for at in moved]
            text = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
            axis.bar(moved + 0.2 * (k - 1.5), share, 0.2, color=COLOURS[k], label=text)
        axis.set_yscale("symlog", linthresh=0.1)
        label(axis, "levels from the nearest", f"weights of this size (%), {bits} bits", name, legend=arm == "system")
    axes[0].get_legend().set_title("|W| / mean |W|", {"size": "small"})
    return fig


@dataclass(frozen=True)
class Export(Digits):
    """The digits network as integers in a file."""


@paper.experiment(
    presets={"smoke": Export(bits=(2,), iters=3, training=5, hidden=8), "quick": Export(), "paper": Export(iters=20_000)},
    claims=[
        Claim("F8", "what is kept are integers and a step: nothing else is needed to infer", kind="check",
              reference="2^b numbers a layer, and the answers after a way through a file; control: multiplied by all that "
              "weights were divided by", ablation="multiplied-by-all",
              checks=[at_most("gap", 1e-5), at_most("outside", 0), at_most("too_many_numbers", 0),
                      at_most("changed_by_file", 0)]),
    ],
    cost=6.0,
)  # fmt: skip
def export(config: Export, key, log: Log) -> Report:
    """Weights over their step, how many numbers they are, and whether a file gives the same answers."""
    model, images, calibration = config.network(key)
    arms = {arm: dict.fromkeys(("gap", "outside", "too_many_numbers", "changed_by_file"), 0.0)
            for arm in ("system", "multiplied-by-all")}  # fmt: skip
    x, sizes = jnp.asarray(images.test_x), []
    for bits in config.bits:
        found = config.quantised(model, calibration, FlexRound(bits=bits), key)
        with tempfile.TemporaryDirectory() as folder:
            found.save(Path(folder) / "digits.safetensors")
            read = QuantModel(model, FlexRound(bits=bits)).load(Path(folder) / "digits.safetensors")
            sizes.append((Path(folder) / "digits.safetensors").stat().st_size)
        places = {name: (*place, "weight") for name, place in found.places.items()}
        multiplied = {name: by_all(found.params_[name], module_at(model, place)) for name, place in places.items()}
        for arm, weights in (("system", {name: each.weight for name, each in found.weights_.items()}),
                             ("multiplied-by-all", {name: np.asarray(w) for name, w in multiplied.items()})):  # fmt: skip
            row = arms[arm]
            for name, w in weights.items():
                grid = found.weights_[name].grid
                whole = w / grid.step
                row["gap"] = max(row["gap"], float(np.max(np.abs(whole - np.round(whole)))))
                row["outside"] += float(np.sum((np.round(whole) < grid.ends[0]) | (np.round(whole) > grid.ends[1])))
                row["too_many_numbers"] = max(row["too_many_numbers"], len(np.unique(w)) - 2**bits, 0)
            answers = outputs(with_modules(model, {places[name]: jnp.asarray(w) for name, w in weights.items()}), x, False)
            row["changed_by_file"] = max(row["changed_by_file"], float(jnp.max(jnp.abs(answers - read.predict(x)))))
        log.progress(bits / max(config.bits))
    full = sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    return Report(arms=arms, arrays={"bits": config.bits, "bytes": sizes, "full_bytes": full})


@export.figure
def file_sizes(runs: Runs):
    """Size of the file, by bits."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.bar([f"{bits} bits" for bits in data["bits"]], data["bytes"] / 1024, color=SYSTEM_COLOUR, label="integers and steps")
    axis.bar(["float32"], data["full_bytes"] / 1024, color=CONTROL_COLOUR, label="full precision")
    label(axis, "a weight", "file (KiB)")
    return fig


@dataclass(frozen=True)
class Blocks:
    """A causal language model, the texts that it is quantised after, and those that it is tested on."""

    bits: int = 2
    iters: int = 300  # steps a block
    rate: float = 1e-2  # of learning, FlexRound
    batch: int = 8  # windows
    windows: int = 64  # of calibration
    length: int = 48  # tokens of a window
    held_out: int = 256  # windows of the test, at most
    pretraining: int = 1500  # steps of the tiny model
    model: str = ""  # a folder, or a name on the Hub; else the tiny model after pretraining
    data: str = ""  # a folder with calibration.jsonl and test.txt; else C4 and WikiText-2 by name

    def ready(self, seed: int, log: Log) -> tuple[Callable[[], Any], Any, Any]:
        """A function that gives the model afresh, and tokens (windows, length) to calibrate and to test with."""
        if not self.model:
            recipe = FULL if self.pretraining == FULL.pretrain else Recipe(self.pretraining, 2, 2, 2)
            chain = tiny_chain(seed, recipe=recipe, report=lambda share, metrics: log.progress(0.1 * share, **metrics))
            probe = World(0).probe
            texts = probe(self.windows, self.length, seed=1000 + seed), probe(self.held_out, self.length, seed=2000 + seed)
            return lambda: chain.model("base"), *texts
        places = [f"{self.data}/calibration.jsonl", f"{self.data}/test.txt"] if self.data else ["c4", "wikitext-2"]
        model, words = load(self.model)
        corpora = read_corpus(places[0], "train", most=16 * self.windows), read_corpus(places[1], "test")
        after, held = (windows(model, words, part, self.length) for part in corpora)
        return lambda: load(self.model)[0], after[: self.windows], held[: self.held_out]


METHODS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "nearest": ("rtn", 1.0, {}),
    "without-elements": ("flexround", 1.0, {"elementwise": False}),
    "gptq": ("gptq", 1.0, {}),
    "adaround": ("adaround", 30.0, {}),
    "adaquant": ("adaquant", 1.0, {}),
    "system": ("flexround", 1.0, {}),
}
"""Arms of `lm_blocks`, with their rates of learning over FlexRound's: each the best of three at quick size, seeds 0 to 3, with
worse ones on both sides of it."""
WHOLE_RANGE = ("nearest", "gptq")
"""Arms whose grids span the range of the weights, as is usual for them: a searched step makes both worse here."""


@paper.experiment(
    presets={
        "smoke": Blocks(iters=2, windows=4, length=12, held_out=4, batch=2, pretraining=10),
        "quick": Blocks(),
        "paper": Blocks(bits=4, iters=5000, rate=3e-3, batch=2, windows=512, length=1024, held_out=10_000,
                        model="facebook/opt-125m"),
    },
    claims=[
        Claim("F9", "a language model keeps its perplexity far better than by rounding to nearest, and by S2", kind="paper",
              where="abstract", ablation="without-elements", null=("nearest", "gptq", "adaround", "adaquant"), grows="iters",
              reason="S2 leaves a third of the rise that is there without it, but rounding to nearest over the whole range, "
              "as is usual for language models, loses less than with the searched step, by which the bound was set",
              seeds=8, checks=[at_most("share_of_nearest", 0.15, over="mean"), at_most("share_of_plain", 0.8, over="mean")]),
        Claim("F9b", "better than by AdaRound and AdaQuant", kind="paper", where="tables of language models",
              ablation="without-elements", null="gptq", grows="iters", seeds=8,
              reason="better than AdaQuant; of AdaRound at its best rate, thirty times FlexRound's, it cannot be said for sure",
              checks=[at_most("share_of_nearest", -0.01, minus="adaround"),
                      at_most("share_of_nearest", -0.01, minus="adaquant")]),
        Claim("F10", "4 bits a channel: nearer to full precision than rounding to nearest, and as near as GPTQ", kind="paper",
              where="tables of language models", ablation="without-elements", null=("nearest", "adaround", "adaquant"), seeds=1,
              checks=[at_most("perplexity", {"paper": -0.05}, minus="nearest"),
                      at_most("perplexity", {"paper": 0.5}, minus="gptq")]),
    ],
    data="data",
    cost=30.0,
)  # fmt: skip
def lm_blocks(config: Blocks, key, log: Log) -> Report:
    """A language model quantised block by block, a step a channel: perplexity on held-out text, for six ways of rounding."""
    seed = seed_of(key)
    fresh, after, held = config.ready(seed, log)
    full = perplexity(fresh(), held)
    arms, errors = {}, []
    for done, (arm, (method, factor, settings)) in enumerate(METHODS.items()):
        model, scheme = fresh(), Scheme(config.bits, symmetric=False, clip=arm not in WHOLE_RANGE)
        made = quantise(
            model, after, scheme, method=method, settings=settings, iters=config.iters,
            lr=factor * config.rate, batch=config.batch, seed=seed,
            report=lambda share, live, done=done: log.progress(0.1 + 0.9 * (done + share) / len(METHODS)),
        )  # fmt: skip
        found = perplexity(model, held)
        arms[arm] = {"perplexity": found, "increase": found - full, "last_error": made.errors[-1]}
        errors.append(made.errors)
    for row in arms.values():
        row["share_of_nearest"] = row["increase"] / arms["nearest"]["increase"]
        row["share_of_plain"] = row["increase"] / arms["without-elements"]["increase"]
    increase = [row["increase"] for row in arms.values()]
    return Report(arms=arms, arrays={"errors": errors, "increase": increase, "full": full})


@lm_blocks.figure
def errors_of_blocks(runs: Runs):
    """Relative error of each block's output on the calibration texts, and the rise of perplexity on others, in the same colours
    (dashed and hatched: without S2)."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    names = ["nearest", "FlexRound without S2", "GPTQ", "AdaRound", "AdaQuant", "FlexRound"]
    colours = [CONTROL_COLOUR, CONTROL_COLOUR, *COLOURS[1:4], SYSTEM_COLOUR]
    for k, colour in enumerate(colours):
        counted = np.arange(1, len(data["errors"][k]) + 1)
        axes[0].semilogy(counted, data["errors"][k], "--s" if k == 1 else "-o", color=colour)
    axes[0].set_xticks(counted)
    bars = axes[1].barh(names, data["increase"], color=colours)
    bars[1].set_hatch("//")
    axes[1].tick_params(axis="y", labelsize="small")
    label(axes[0], "block", "error of its output / output (squares)", legend=False)
    label(axes[1], f"rise of perplexity ({float(data['full']):.3g} in full precision)", "way of rounding")
    return fig
