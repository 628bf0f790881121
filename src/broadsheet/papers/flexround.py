"""FlexRound, arXiv 2306.00317: learnable rounding of weights by element-wise division, for post-training quantisation.

Each weight is divided by a learned positive number before it is rounded, and multiplied by the common step alone; both are
learned so that the outputs of a layer or block stay. Rounding to nearest, a plain learned step, AdaRound, AdaQuant and GPTQ run
in the same loop on the same samples; the rounding's factors are switched off one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
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
)
from broadsheet.learn.surgery import outputs
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
        """The network with weights rounded in this way."""
        rate = RATES[type(rounding)]
        return quantize_model(model, calibration, rounding, key=key, iters=self.iters, rate=rate, batch=self.batch)


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
