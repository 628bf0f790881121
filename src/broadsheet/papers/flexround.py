"""FlexRound, arXiv 2306.00317: learnable rounding of weights by element-wise division, for post-training quantisation.

Each weight is divided by a learned positive number before it is rounded, and multiplied by the common step alone; both are
learned so that the outputs of a layer or block stay. Rounding to nearest, a plain learned step, AdaRound, AdaQuant and GPTQ run
in the same loop on the same samples; the rounding's factors are switched off one by one.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
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
from broadsheet.learn.surgery import module_at, outputs, with_modules
from broadsheet.numerics import generator
from broadsheet.vision.images import Images, digits

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
    ),
)

RATES = {FlexRound: 3e-3, LearnedStep: 3e-3, AdaRound: 0.1, AdaQuant: 0.1, RoundToNearest: 1.0, SecondOrder: 1.0}
"""Learning rates: the best of 0.001, 0.003, 0.01, 0.03 and 0.1 at 2 bits and 600 steps, on seeds 0 to 2."""


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
    slopes = {}
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


RIVALS: dict[str, tuple[type[Rounding], dict[str, Any]]] = {
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
              ablation="without-elements", null=("learned-step", "gptq"), grows="iters", seeds=8, checks=[
                  at_most("error_to_nearest_2", 0.12, over="mean")]),
        Claim("F4", "they are kept better than by AdaRound, at 2 bits", kind="paper", where="tables of ResNet and MobileNetV2",
              ablation="without-elements", null=("learned-step", "gptq", "adaquant"), grows="iters", seeds=8, checks=[
                  at_most("log_error_2", 0.0, minus="adaround")]),
        Claim("F4b", "and better than by AdaQuant, by 5 % or more", kind="paper", where="tables of ResNet and MobileNetV2",
              ablation="without-elements", null=("learned-step", "gptq", "adaround"), grows="iters", seeds=8, checks=[
                  at_most("log_error_2", -0.05, minus="adaquant")]),
        Claim("F5", "at 2 bits at most 1.5 points of accuracy are lost, and more by rounding to nearest", kind="paper",
              where="tables", ablation="without-elements", null=("learned-step", "gptq"), grows="iters", seeds=8, checks=[
                  at_most("points_lost_2", 1.5, over="mean"), at_least("points_lost_2", 1.5, of="nearest", over="mean")]),
    ],
    cost=15.0,
)  # fmt: skip
def digits_mlp(config: Digits, key, log: Log) -> Report:
    """A network 64-64-64-10 at 2, 3 and 4 bits, one step a layer: seven ways of rounding on the same samples."""
    model, images, calibration = config.network(key)
    wanted = outputs(model, jnp.asarray(images.test_x), batched=False)
    full = accuracy(wanted, images.test_y)
    arms: dict[str, dict[str, float]] = {name: {"accuracy_full": full} for name in RIVALS}
    for done, bits in enumerate(config.bits):
        for name, (kind, options) in reversed(RIVALS.items()):
            rounding = kind(bits=bits, **options)
            answers = config.quantised(model, calibration, rounding, key).predict(images.test_x)
            error, right = relative_error(answers, wanted), accuracy(answers, images.test_y)
            arms[name] |= {f"error_{bits}": error, f"log_error_{bits}": np.log(error), f"points_lost_{bits}": full - right}
            arms[name][f"error_to_nearest_{bits}"] = error / arms["nearest"][f"error_{bits}"]
        log.progress((done + 1) / len(config.bits), error=arms["system"][f"error_{bits}"])
    rows = [[[arms[name][f"{what}_{bits}"] for bits in config.bits] for name in RIVALS] for what in ("error", "points_lost")]
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
              no_null="it compares two forms of one method", grows="iters", seeds=16, checks=[
                  at_most("log_error_2", -0.02, minus="without-rows")]),
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
    axis.barh(names, np.exp(data["log_error"][:, 0]), color=[SYSTEM_COLOUR] + [CONTROL_COLOUR] * (len(names) - 1))
    axis.invert_yaxis()
    axis.set_xscale("log")
    label(axis, f"output error / output (squares), {data['bits'][0]} bits", "", legend=False)
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
              null=("adaquant", "shuffled"), grows="iters", seeds=8, checks=[
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
            layers = [
                (np.asarray(module_at(model, found.places[name]).weight), params) for name, params in found.params_.items()
            ]
            whole = [np.asarray(rule.whole(params, jnp.asarray(w))) for w, params in layers]
            arms[arm] |= moved_weights(rule, [w for w, _ in layers], whole)
            if arm in ("system", "adaround"):
                shifts[f"{arm}_{bits}"], shifts[f"size_{bits}"] = shifted(rule, [w for w, _ in layers], whole)
            if arm == "system":
                dealt = [params | {"log_elements": rng.permuted(params["log_elements"], axis=None)} for _, params in layers]
                others = [np.asarray(rule.whole(params, jnp.asarray(w))) for (w, _), params in zip(layers, dealt, strict=True)]
                arms["shuffled"] |= moved_weights(rule, [w for w, _ in layers], others)
        log.progress((done + 1) / len(config.bits))
    return Report(arms=arms, arrays=shifts | {"bits": config.bits})


def moved_weights(rule: Rounding, weights: list[np.ndarray], whole: list[np.ndarray]) -> dict[str, float]:
    """Percent of weights at neither level beside them, and their mean size over that of all in their layer (1 for none)."""
    sizes: list[float] = []
    for w, codes in zip(weights, whole, strict=True):
        grid = rule.first_grid(jnp.asarray(w))
        beside = [np.clip(side(w / grid.step), *grid.ends) for side in (np.floor, np.ceil)]
        sizes += list((np.abs(w) / np.abs(w).mean())[(codes != beside[0]) & (codes != beside[1])])
    moved = 100 * len(sizes) / sum(w.size for w in weights)
    return {f"moved_{rule.bits}": moved, f"size_{rule.bits}": float(np.mean(sizes)) if sizes else 1.0}


def shifted(rule: Rounding, weights: list[np.ndarray], whole: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Levels between each weight's code and the nearest one, and its size over the mean of its layer."""
    grids = [rule.first_grid(jnp.asarray(w)) for w in weights]
    nearest = [np.clip(np.round(w / grid.step), *grid.ends) for w, grid in zip(weights, grids, strict=True)]
    steps = [(codes - near).ravel() for codes, near in zip(whole, nearest, strict=True)]
    return np.concatenate(steps).astype(int), np.concatenate([(np.abs(w) / np.abs(w).mean()).ravel() for w in weights])


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

    bits: tuple[int, ...] = (2, 3, 4)
    iters: int = 100


@paper.experiment(
    presets={"smoke": Export(bits=(2,), iters=3, training=5, hidden=8), "quick": Export(), "paper": Export(iters=5000)},
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
