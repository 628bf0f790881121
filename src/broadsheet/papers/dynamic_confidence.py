"""Early exit of converted spiking networks by a calibrated confidence, arXiv 2303.10276.

A network with quantised activations is trained, converted to integrate-and-fire neurons, and stopped for each sample as
soon as the confidence of its summed read-out passes a threshold. The controls exit at the same steps without looking (steps
dealt out at random, or by how sure a linear classifier of the pixels is), wait until the answer stays, start without the half
threshold, spike at random, or leave the confidence uncalibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.linear_model import LogisticRegression

from broadsheet.conversion.conversion import Layer, QuantisedNet, Sequential, SpikingNet, lsq, qcfs
from broadsheet.conversion.early_exit import THRESHOLDS, DynamicConfidence, Point, answers_at, calibration_error
from broadsheet.conversion.resnet import ResNet, calibrate_norms
from broadsheet.dynamics import rollout
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.learn import fit
from broadsheet.networks import NIRNetwork, from_nir, to_nir
from broadsheet.networks.nir_nodes import Reset
from broadsheet.numerics import generator
from broadsheet.vision.images import cifar, digits

paper = Paper(
    slug="dynamic-confidence",
    arxiv="2303.10276",
    title="Unleashing the Potential of Spiking Neural Networks by Dynamic Confidence",
    published="2023-03-17",
    authors=3,
    basis="code",
    code="github.com/chenlicodebank/Dynamic-Confidence-in-Spiking-Neural-Networks (GPL-2.0)",
    summary="A network converted to spikes refines its answer step by step, but is usually run equally long for every input. "
    "Here each input stops as soon as a calibrated confidence of the accumulated answer passes a threshold chosen on a Pareto "
    "front of speed and accuracy. Nothing is trained again.",
    topics=("spiking networks", "early exit", "calibration", "ANN-to-SNN conversion"),
    parts=("broadsheet.conversion.DynamicConfidence", "broadsheet.conversion.QuantisedNet", "broadsheet.conversion.SpikingNet"),
    verbs=("broadsheet networks convert MODEL.onnx --data DATA.npz --early-exit",),
    requires=("data",),
    tasks={"classify handwritten digits": "ablations:accuracy_fitted"},
    notes=(
        "The authors choose temperature and threshold on samples of the test set; here a calibration split of its own serves. "
        "It has to be large: the fastest threshold that keeps the accuracy on 300 samples loses 0.5 points on the test set "
        "(mean of eight seeds), on 650 samples 0.24 (of sixteen). The fastest, the paper's own choice, is judged; the smallest "
        "one from which on all keep the accuracy lost 0.1 with 300 samples (eight development seeds).",
        "A fixed time is judged by the same rule on the same samples; and once more as the time after which all samples "
        "together are as accurate on the test set as those that exit.",
        "To wait until the answer has stayed for some steps takes 0.94 of the time after which all samples together are as "
        "accurate, exit by confidence 0.63, the same exits in the order of how sure a linear classifier of the pixels is 0.97 "
        "(650 samples, means of sixteen seeds).",
        "CIFAR-10 does not ship; the ResNet-18 experiment loads it but was not run, and its figures are the authors'.",
    ),
)

KEPT = 0.003
"""Accuracy, as a share, that a choice made on calibration data may lose there."""


@dataclass(frozen=True)
class Identity:
    """Pre-activations that one neuron gets, constant in time."""

    count: int = 1000
    levels: tuple[int, ...] = (1, 2, 3, 4, 8)


@paper.experiment(
    presets={"smoke": Identity(count=50, levels=(1, 4)), "quick": Identity(), "paper": Identity(count=1_000_000)},
    claims=[
        Claim("DC1", "an integrate-and-fire neuron puts out on average what the quantised activation computes", kind="check",
              reference="the activation in closed form, ties left out; its learned-step-size form too",
              ablation="zero-start",
              checks=[at_most("difference", 1e-6), at_most("lsq_difference", 1e-6)]),
    ],
    cost=3.0,
)  # fmt: skip
def identity(config: Identity, key, log: Log) -> Report:
    """One layer under constant input for as many steps as levels, against its activation."""
    theta = 1.0
    z = jax.random.uniform(key, (config.count,), minval=-theta, maxval=2 * theta)
    bare = Sequential((Layer("activation"),))
    arms: dict[str, dict[str, float]] = {name: {"difference": 0.0, "lsq_difference": 0.0} for name in ("system", "zero-start")}
    curves = {}
    for levels in config.levels:
        clear = jnp.abs((levels * z / theta) % 1 - 0.5) > 1e-4
        for name, start in (("system", 0.5), ("zero-start", 0.0)):
            summed, _ = SpikingNet(bare, z.shape, [theta], start=start).run(z[None], levels)
            rate = summed[0, -1] / levels
            arms[name]["difference"] = max(
                arms[name]["difference"], float(jnp.max(jnp.abs(jnp.where(clear, rate - qcfs(z, theta, levels), 0.0))))
            )
            if levels + 1 & levels == 0:  # as many levels as bits can count
                by_lsq = lsq(z, theta / levels, (levels + 1).bit_length() - 1)
                arms[name]["lsq_difference"] = max(
                    arms[name]["lsq_difference"], float(jnp.max(jnp.abs(jnp.where(clear, rate - by_lsq, 0.0))))
                )
            if levels == 4:
                curves[name] = rate
    order = jnp.argsort(z)
    return Report(arms=arms, arrays={"z": z[order], "activation": qcfs(z, theta, 4)[order], "rate": curves["system"][order],
                                     "rate_zero": curves["zero-start"][order]})  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """A converted network of two convolutions, before training, and images that are the same at each step."""

    side: int = 8
    channels: tuple[int, ...] = (8, 16)
    classes: int = 10
    images: int = 20
    steps: int = 32


@paper.experiment(
    presets={"smoke": Exchange(channels=(2, 2), images=2, steps=4), "quick": Exchange(), "paper": Exchange(images=1000)},
    claims=[
        Claim("DC9", "a converted network that is written for other simulators and read again answers the same at each step",
              kind="check", reference="the network itself; control: a reader that resets to a value, not by subtraction",
              ablation="reset-to-value", checks=[at_most("difference", 1e-4), at_least("largest", 1.0)]),
    ],
    cost=3.0,
)  # fmt: skip
def exchange(config: Exchange, key, log: Log) -> Report:
    """The summed answers of a converted network after a way through a NIR graph, against its own."""
    k_net, k_images = jax.random.split(key)
    shape = (1, config.side, config.side)
    body = Sequential.conv(shape, config.channels, config.classes, k_net, pool=(True, False))
    net = QuantisedNet(body, shape, theta=1.0).spiking()
    x = jax.random.uniform(k_images, (config.images, *shape))
    own, graph, arms = net.run(x, config.steps)[0], to_nir(net), {}
    resets: dict[str, Reset | None] = {"system": None, "reset-to-value": "to value"}
    for name, reset in resets.items():
        said = summed_answers(from_nir(graph, reset=reset), x, config.steps)
        arms[name] = {"difference": float(jnp.max(jnp.abs(said - own))), "largest": float(jnp.max(jnp.abs(said)))}
    return Report(arms=arms)


@eqx.filter_jit
def summed_answers(network: NIRNetwork, x: Float[Array, "images *shape"], steps: int) -> Float[Array, "images time classes"]:
    """Outputs summed up to each of `steps` steps, with the same image at each."""
    return jax.vmap(lambda one: jnp.cumsum(rollout(network, jnp.broadcast_to(one, (steps, *one.shape)))[1], axis=0))(x)


@identity.figure
def staircase(runs: Runs):
    """The activation, and the mean output of neurons that start with half a threshold or without."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.plot(data["z"], data["activation"], color="k", lw=2.5, alpha=0.3, label="activation, 4 levels")
    axis.plot(data["z"], data["rate"], color=SYSTEM_COLOUR, lw=1, label="neuron, 4 steps")
    axis.plot(data["z"], data["rate_zero"], color=CONTROL_COLOUR, lw=1, label="neuron without head start")
    label(axis, "input (thresholds a step)", "mean output (thresholds a step)")
    return fig


@dataclass(frozen=True)
class Exit:
    """A small network on digits; `shifted` ones are enlarged, moved and noisy, so that samples differ in difficulty."""

    images: Literal["digits", "shifted"] = "digits"
    hidden: tuple[int, ...] = (128, 128)
    levels: int = 4
    theta: float = 8.0  # ceiling of the activations before training
    train: int = 1000  # samples; 300 or what else is left of 1300 calibrate
    epochs: int = 60
    batch: int = 50
    learning_rate: float = 0.05
    steps: int = 8  # of the spiking network, where exits are judged
    long: int = 32  # steps of a run that has settled


@paper.experiment(
    presets={"smoke": Exit(epochs=1, hidden=(16,), long=8), "quick": Exit(), "paper": Exit(epochs=300, hidden=(512, 512))},
    claims=[
        Claim("DC2", "the spiking network reaches the accuracy of the quantised one", kind="paper", where="conversion",
              ablation=("one-step", "reset-to-value"), null=("random-spikes", "pixels"), grows="epochs", seeds=8,
              reason="Neurons that lose what is above the threshold at each spike reach it too (0.1 points above the quantised "
              "network, against 1.0; means of eight seeds): with thresholds of about 8 little is lost. Spikes drawn at random "
              "with the activations as rates stay 1.5 points below. A linear classifier of the pixels stays 0.1 below, more "
              "than is allowed on one seed alone.",
              checks=[at_least("gap", {"quick": -0.005}), at_most("gap", {"quick": -0.05}, of="one-step")]),
        Claim("DC4", "starting at half a threshold matters at few steps", kind="paper", where="initial potential",
              ablation="zero-start", null=("random-start", "balanced"), grows="epochs", seeds=8,
              reason="What matters is that neurons fire within two steps at all. Without a head start accuracy is 0.44, with "
              "half a threshold 0.951; a random start gives 0.86, and no head start under thresholds scaled down on "
              "calibration data 0.955 (means of eight seeds).", checks=[
            at_least("accuracy_at_2", {"quick": 0.01}, minus="zero-start", over="each")]),
        Claim("DC5", "no policy beats the oracle", kind="check", reference="the first right step of each sample",
              checks=[at_least("oracle_accuracy_margin", 0.0), at_most("oracle_steps_ratio", 1.0)]),
        Claim("DC6", "samples that leave early are right more often", kind="paper", where="confidence", ablation="dealt-out",
              null="pixels", grows="epochs", seeds=8,
              reason="Which images are hard is in their pixels: ordered by how sure a linear classifier of the pixels is, the "
              "first quarter is right more often than the last by 12.5 points, ordered by the exits by 10.9 (means of eight "
              "seeds).",
              checks=[at_least("quartile_gap", {"quick": 0.03})]),
        Claim("DC7", "a calibrated confidence makes the choice of a threshold easy", kind="paper", where="confidence smoothing",
              ablation="unsmoothed", null=("alpha-of-steps", "oversmoothed", "ranked"), grows="epochs", seeds=8,
              reason="On three of eight seeds the range is less than 0.3 wide, 0.20 at least; the mean is 0.40, and 0.39 saves "
              "a quarter of the time. Calibration is not what makes it wide: the number of steps as the temperature gives 0.42 "
              "and is above 0.3 on every seed, and the lead of the best read-out over the second, as its rank among all, gives "
              "0.85, of which 0.50 saves time.",
              checks=[at_least("threshold_width", {"quick": 0.3}), at_most("threshold_width", {"quick": 0.1}, of="unsmoothed"),
                      at_least("useful_width", {"quick": 0.3})]),
    ],
    cost=12.0,
)  # fmt: skip
def exits(config: Exit, key, log: Log) -> Report:
    """Train, convert, calibrate on a split of its own, and compare fixed time, exit by confidence and the oracle."""
    return _compare(config, key, log)


@dataclass(frozen=True)
class Saving(Exit):
    """As many samples to calibrate as to train: the choice of a threshold is then more than a chance of few samples."""

    train: int = 650


@paper.experiment(
    presets={"smoke": Saving(epochs=1, hidden=(16,), long=8), "quick": Saving(),
             "paper": Saving(epochs=300, hidden=(512, 512))},
    claims=[
        Claim("DC3", "exit by confidence saves time at no loss", kind="paper", where="abstract", ablation="dealt-out",
              null=("patience", "pixels"), grows="epochs", seeds=16,
              published="about 40 % less time at equal accuracy",
              checks=[at_most("time_ratio", {"quick": 0.75}, over="mean"),
                      at_most("equal_ratio", {"quick": 0.6}, over="mean"),
                      at_least("accuracy_change", {"quick": -0.005}, over="mean")],
              reason="On sixteen seeds it takes 0.48 of the time of all steps, 0.63 of the shortest fixed time that is as "
              "good, where 0.60 is asked, and accuracy falls by 0.24 points (-0.59 to 0.11). Leaving once the answer stays "
              "takes 0.71 and 0.94, an exit by how sure the pixels are loses 1.9 points."),
    ],
    cost=6.0,
)  # fmt: skip
def saving(config: Saving, key, log: Log) -> Report:
    """The time that exit by confidence saves at the accuracy of the last step, against the shortest fixed time as good."""
    return _compare(config, key, log)


def _compare(config: Exit, key, log: Log) -> Report:
    parts = _images(config, key)
    net = _train(config, parts["train"], key, log)
    (cal_x, cal_y), (test_x, test_y) = parts["calibration"], parts["test"]
    spiking, late = net.spiking(), net.spiking(start=0.0)
    total, spikes = (np.asarray(part) for part in spiking.run(test_x, config.long))
    cal_total = np.asarray(spiking.run(cal_x, config.long)[0])
    log.progress(0.8)

    def accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (logits.argmax(axis=-1) == labels[:, None]).mean(axis=0)

    plain = float((np.asarray(net(test_x)).argmax(axis=1) == test_y).mean())
    T, rng = config.steps, generator(key)
    fixed, cal_fixed = accuracy(total, test_y), accuracy(cal_total, cal_y)
    short, cal_short = total[:, :T], cal_total[:, :T]
    pixels = LogisticRegression(max_iter=300).fit(*parts["train"])
    seen = pixels.predict_proba(test_x)

    policy = DynamicConfidence(tolerance=KEPT, choice="fastest").fit(cal_short, cal_y)
    steps = policy.exit_times(short)
    wanted = cal_fixed[T - 1] - KEPT
    reference = float(np.argmax(cal_fixed[:T] >= wanted) + 1)
    times = {
        "system": steps, "dealt-out": rng.permutation(steps), "fixed": np.full(len(steps), np.ceil(steps.mean()).astype(int)),
        "patience": _patient(short, _patience(cal_short, cal_y, wanted)), "pixels": _in_order(steps, -seen.max(axis=1)),
    }  # fmt: skip
    arms: dict[str, dict[str, Any]] = {}
    for name, each in times.items():
        reached = float((answers_at(short, each) == test_y).mean())
        arms[name] = {"time_ratio": each.mean() / reference, "mean_steps": each.mean(),
                      "accuracy_change": reached - fixed[T - 1],
                      "equal_ratio": each.mean() / _as_good(fixed[:T], reached)}  # fmt: skip

    settled = DynamicConfidence(tolerance=KEPT, choice="fastest").fit(cal_total, cal_y)
    leaving = settled.exit_times(total)
    right = answers_at(total, leaving) == test_y
    orders = {"system": leaving, "dealt-out": rng.permutation(leaving), "pixels": -seen.max(axis=1)}
    for name, order in orders.items():
        arms[name]["quartile_gap"] = _quartiles(order, right)

    scales = {"system": policy.alpha_, "unsmoothed": T / 4, "alpha-of-steps": float(T), "oversmoothed": 16.0 * T}
    for name, alpha in scales.items():
        rule = DynamicConfidence(alpha=alpha).fit(cal_short, cal_y)
        arms.setdefault(name, {}).update(_widths(rule.sweep(short, test_y), T))
    arms["ranked"] = _widths(_by_rank(cal_short, short, test_y), T)

    balanced = _balanced(net, cal_x, cal_y)
    starts = {"zero-start": late, "random-start": _random_start(spiking, jax.random.fold_in(key, 2)), "balanced": balanced}
    for name, other in starts.items():
        arms[name] = {"accuracy_at_2": accuracy(np.asarray(other.run(test_x, 2)[0]), test_y)[1]}
    noisy = accuracy(np.asarray(random_spikes(net, test_x, config.long, jax.random.fold_in(key, 3))), test_y)
    to_zero = from_nir(to_nir(spiking), reset="to value")
    dropped = accuracy(np.asarray(summed_answers(to_zero, jnp.asarray(test_x), config.long)), test_y)
    arms["one-step"] = {"gap": fixed[0] - plain}
    arms["random-spikes"] = {"gap": noisy[-1] - plain}
    arms["reset-to-value"] = {"gap": dropped[-1] - plain}
    arms["pixels"]["gap"] = pixels.score(test_x, test_y) - plain

    oracle_steps, oracle_accuracy = policy.oracle(short, test_y)
    early = DynamicConfidence(alpha=4.0).fit(cal_short, cal_y).sweep(short, test_y)
    at_two = float(np.interp(2.0, [p.steps for p in early], [p.accuracy for p in early]))
    per_step = np.cumsum(spikes.sum(axis=2), axis=1)
    sure, at_exit = policy.confidence(short), np.arange(len(steps))
    error, reliability = calibration_error(sure[:, -1], fixed_right(short, test_y))
    raw_error, unreliable = calibration_error(unsmoothed_confidence(short), fixed_right(short, test_y))
    arms["system"] |= {
        "ann": plain, "gap": fixed[-1] - plain, "accuracy_at_2": fixed[1], "dynamic_gain_at_2": at_two - fixed[1],
        "oracle_accuracy_margin": oracle_accuracy - fixed[T - 1], "oracle_steps_ratio": oracle_steps.mean() / steps.mean(),
        "alpha": policy.alpha_, "spikes_saved": 1 - per_step[at_exit, steps - 1].mean() / per_step[:, T - 1].mean(),
        "ece": error, "ece_uncalibrated": raw_error,
        "ece_at_exit": calibration_error(sure[at_exit, steps - 1], answers_at(short, steps) == test_y)[0],
    }  # fmt: skip
    sweep = policy.sweep(short, test_y)
    hardest = np.argsort(-steps, kind="stable")[:6]
    easiest = np.argsort(steps + (1 - sure[:, 0]), kind="stable")[:6]
    side = int(np.sqrt(test_x.shape[1]))
    return Report(
        arms=arms,
        arrays={
            "fixed": fixed[:T], "sweep_steps": [p.steps for p in sweep], "sweep_accuracy": [p.accuracy for p in sweep],
            "front": policy.front_, "oracle": np.array([oracle_steps.mean(), oracle_accuracy]), "exit_steps": steps,
            "chosen": _point(arms["system"], fixed[T - 1]), "patience": _point(arms["patience"], fixed[T - 1]),
            "dealt_out": _point(arms["dealt-out"], fixed[T - 1]), "reliability": reliability, "unreliable": unreliable,
            "hardest": test_x[hardest].reshape(-1, side, side), "easiest": test_x[easiest].reshape(-1, side, side),
            "spikes": per_step[:, :T].mean(axis=0), "spikes_at_exit": per_step[at_exit, steps - 1].mean(),
        },
    )  # fmt: skip


def _point(arm: dict[str, Any], last: float) -> np.ndarray:
    """Mean step and accuracy."""
    return np.array([arm["mean_steps"], arm["accuracy_change"] + last])


def _as_good(fixed: np.ndarray, accuracy: float) -> float:
    """The time after which samples that all run equally long are as accurate, between steps by a line; the last step where
    they never are. `fixed` (time,) is their accuracy, of which the best so far counts."""
    best = np.maximum.accumulate(fixed)
    at = int(np.argmax(best >= accuracy - 1e-12)) if best[-1] >= accuracy - 1e-12 else len(best) - 1
    if at == 0 or best[at] < accuracy:
        return float(at + 1)
    return at + float((accuracy - best[at - 1]) / (best[at] - best[at - 1]))


def _patient(logits: np.ndarray, patience: int) -> np.ndarray:
    """Exit as soon as the answer has been the same for `patience` steps, at the last step otherwise (arXiv 2006.04152)."""
    answers = logits.argmax(axis=2)
    run, exits = np.ones(len(answers), int), np.zeros(len(answers), int)
    for t in range(answers.shape[1]):
        if t:
            run = np.where(answers[:, t] == answers[:, t - 1], run + 1, 1)
        exits = np.where((exits == 0) & (run >= patience), t + 1, exits)
    return np.where(exits == 0, answers.shape[1], exits)


def _patience(logits: np.ndarray, labels: np.ndarray, wanted: float) -> int:
    """The least patience with the accuracy that is wanted."""
    tried = range(1, logits.shape[1] + 1)
    return next((p for p in tried if (answers_at(logits, _patient(logits, p)) == labels).mean() >= wanted), logits.shape[1])


def _in_order(steps: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The same exit times, given to samples in another order."""
    dealt = np.empty_like(steps)
    dealt[np.argsort(order, kind="stable")] = np.sort(steps)
    return dealt


def _balanced(net: QuantisedNet, x: np.ndarray, y: np.ndarray) -> SpikingNet:
    """No head start, and thresholds scaled by what gives the best answers after two steps on calibration data."""

    def scaled(share: float) -> SpikingNet:
        return SpikingNet(net.body, net.shape, [share * theta for theta in net.theta], start=0.0)

    def right(share: float) -> float:
        return float((np.asarray(scaled(share).run(x, 2)[0])[:, -1].argmax(axis=1) == y).mean())

    return scaled(max((0.125, 0.25, 0.375, 0.5, 0.75, 1.0), key=right))


def _random_start(net: SpikingNet, key) -> SpikingNet:
    """Each neuron starts anywhere between 0 and its threshold."""
    keys = jax.random.split(key, len(net.cells))
    starts = [cell.threshold * jax.random.uniform(k, (cell.size,)) for k, cell in zip(keys, net.cells, strict=True)]
    return eqx.tree_at(lambda n: [cell.v0 for cell in n.cells], net, starts)


@eqx.filter_jit
def random_spikes(net: QuantisedNet, x: Any, steps: int, key) -> Float[Array, "images time classes"]:
    """Read-out summed up to each step, of neurons without a potential: each spikes with the probability that its clipped
    activation, over its ceiling, is at the moment."""
    x = jnp.asarray(x)

    def one(total: Array, step_key) -> tuple[Array, Array]:
        def fire(k: int, z: Array) -> Array:
            p = jnp.clip(z / net.theta[k], 0.0, 1.0)
            return net.theta[k] * jax.random.bernoulli(jax.random.fold_in(step_key, k), p).astype(z.dtype)

        total = total + net.body(x, fire)
        return total, total

    first = jnp.zeros((len(x), jax.eval_shape(net, x).shape[1]))
    return jax.lax.scan(one, first, jax.random.split(key, steps))[1].swapaxes(0, 1)


def fixed_right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the answer at the last step is right."""
    return logits[:, -1].argmax(axis=1) == labels


def unsmoothed_confidence(logits: np.ndarray) -> np.ndarray:
    """Confidence at the last step without a temperature."""
    return np.asarray(jax.nn.softmax(logits[:, -1], axis=-1).max(axis=-1))


def _quartiles(order: np.ndarray, right: np.ndarray) -> float:
    """Accuracy of the first quarter in an order less that of the last; those that tie count as in any order, on average."""
    quarter = len(order) // 4
    _, where, counts = np.unique(order, return_inverse=True, return_counts=True)
    rate = np.bincount(where, right) / counts
    before = np.cumsum(counts) - counts
    first = np.clip(quarter - before, 0, counts)
    last = np.clip(before + counts - (len(order) - quarter), 0, counts)
    return float((first @ rate - last @ rate) / quarter)


def _widths(points: list[Point], last: int) -> dict[str, float]:
    """Length of the range of thresholds whose accuracy is within half a point of the best, and of the part of it where samples
    run for three quarters of the time at most."""
    at, steps, accuracy = np.array(points).T
    inside = accuracy >= accuracy.max() - 0.005
    saving = inside & (steps <= 0.75 * last)
    return {name: float(np.sum(np.diff(at)[which[1:] & which[:-1]]))
            for name, which in (("threshold_width", inside), ("useful_width", saving))}  # fmt: skip


def _by_rank(calibration: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> list[Point]:
    """What each threshold gives where confidence is no probability: the lead of the best read-out over the second, as its
    rank, from 0 to 1, among all leads of the calibration data."""

    def lead(part: np.ndarray) -> np.ndarray:
        top = np.partition(part, -2, axis=2)
        return top[..., -1] - top[..., -2]

    known = np.sort(lead(calibration).ravel())
    rank = np.searchsorted(known, lead(logits)) / len(known)
    points = []
    for threshold in THRESHOLDS:
        passed = rank > threshold
        exits = np.where(passed.any(axis=1), passed.argmax(axis=1) + 1, logits.shape[1])
        points.append(Point(float(threshold), float(exits.mean()), float((answers_at(logits, exits) == labels).mean())))
    return points


def _images(config: Exit, key) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Flattened digits to train, to calibrate (1300 together), and 497 to test."""
    rng = generator(key)
    images = digits(rng, train=1300, scale=3.0 if config.images == "shifted" else 1.0)
    x = [_shifted(rng, part) if config.images == "shifted" else part for part in (images.x, images.test_x)]
    flat, test = (part.reshape(len(part), -1) for part in x)
    y, cut = images.y, config.train
    return {"train": (flat[:cut], y[:cut]), "calibration": (flat[cut:], y[cut:]), "test": (test, images.test_y)}


def _shifted(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Moved by up to two pixels in each direction, with noise of deviation 0.3."""
    moves = rng.integers(-2, 3, (len(images), 2))
    moved = np.stack([np.roll(image, move, axis=(0, 1)) for image, move in zip(images, moves, strict=True)])
    return (moved + 0.3 * rng.standard_normal(images.shape)).astype(np.float32)


class _Batches(eqx.Module):
    x: jax.Array
    y: jax.Array
    size: int = eqx.field(static=True)

    def __call__(self, key):
        rows = jax.random.choice(key, len(self.x), (self.size,), replace=False)
        return self.x[rows], self.y[rows]


def _train(config: Exit, data: tuple[np.ndarray, np.ndarray], key, log: Log) -> QuantisedNet:
    """Momentum, weight decay and a cosine to 0."""
    x, y = data
    body = Sequential.mlp((x.shape[1], *config.hidden, 10), jax.random.fold_in(key, 0))
    net = QuantisedNet(body, x.shape[1:], levels=config.levels, theta=config.theta)
    steps = config.epochs * (len(x) // config.batch)
    optimiser = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(optax.cosine_decay_schedule(config.learning_rate, steps), momentum=0.9)
    )
    batches = _Batches(jnp.asarray(x), jnp.asarray(y), config.batch)
    return fit(
        net, _cross_entropy, batches, optimiser=optimiser, steps=steps, key=jax.random.fold_in(key, 1), chunk=steps // 10 or 1,
        report=lambda done, loss: log.progress(0.7 * done / steps, loss=loss),
    ).model  # fmt: skip


def _cross_entropy(net: QuantisedNet, batch: tuple, key) -> jax.Array:
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()


@exits.figure
def pareto(runs: Runs):
    """Accuracy against mean time: every sample equally long, exit by confidence, exits without it, and the oracle."""
    run = runs["system"]
    data = run.arrays
    fig, axis = figure()
    axis.plot(np.arange(1, len(data["fixed"]) + 1), data["fixed"], "o-", color=CONTROL_COLOUR, label="fixed time")
    axis.plot(data["sweep_steps"], data["sweep_accuracy"], ".", color=SYSTEM_COLOUR, alpha=0.5, label="exit by confidence")
    axis.plot(*data["chosen"], "*", ms=13, color=SYSTEM_COLOUR, label="threshold chosen on calibration data")
    axis.plot(*data["patience"], "P", color=COLOURS[2], label="answer that stays")
    axis.plot(*data["dealt_out"], "X", color=COLOURS[3], label="the same exits dealt out")
    axis.plot(*data["oracle"], "D", color="#c2571a", label="oracle")
    axis.axhline(run.arms["system"]["ann"], color="k", lw=0.6, ls=":", label="quantised network")
    label(axis, "mean time (steps)", "accuracy")
    return fig


saving.figure(pareto)


@exits.figure
def reliability(runs: Runs):
    """Accuracy against confidence at the last step, before and after calibration."""
    run = runs["system"]
    fig, axis = figure()
    axis.plot([0, 1], [0, 1], color="k", lw=0.6, ls=":")
    for name, text, metric in (("unreliable", "without temperature", "ece_uncalibrated"), ("reliability", "calibrated", "ece")):
        table = run.arrays[name]
        colour = CONTROL_COLOUR if name == "unreliable" else SYSTEM_COLOUR
        axis.plot(table[:, 0], table[:, 1], "o-", color=colour, label=f"{text}, ECE {run.arms['system'][metric]:.3f}")
    label(axis, "confidence", "accuracy")
    return fig


@exits.figure
def times(runs: Runs):
    """When samples leave, what that saves in spikes, and which ones leave first and last."""
    data = runs["system"].arrays
    fig, axes = figure(2, 2)
    steps = len(data["fixed"])
    axes[0, 0].hist(data["exit_steps"], bins=np.arange(0.5, steps + 1.5), color=SYSTEM_COLOUR)
    label(axes[0, 0], "exit (step)", "samples")
    axes[0, 1].plot(np.arange(1, steps + 1), data["spikes"], "o-", color=CONTROL_COLOUR, label="fixed time")
    axes[0, 1].axhline(float(data["spikes_at_exit"]), color=SYSTEM_COLOUR, label="exit by confidence")
    label(axes[0, 1], "step", "spikes a sample")
    for axis, name in zip(axes[1], ("easiest", "hardest"), strict=True):
        axis.imshow(np.concatenate(list(data[name]), axis=1), cmap="gray_r")
        label(axis, f"{name} samples", "pixel", legend=False)
    return fig


@dataclass(frozen=True)
class Ablation(Exit):
    """Harder images, and other confidences."""

    images: Literal["digits", "shifted"] = "shifted"
    epochs: int = 30


@paper.experiment(
    presets={"smoke": Ablation(epochs=1, hidden=(16,)), "quick": Ablation(), "paper": Ablation(epochs=300)},
    cost=10.0,
)
def ablations(config: Ablation, key, log: Log) -> Report:
    """Temperatures, other signals, and the mean in place of the sum of the read-out, at the accuracy of the last step."""
    parts = _images(config, key)
    net = _train(config, parts["train"], key, log)
    (cal_x, cal_y), (test_x, test_y) = parts["calibration"], parts["test"]
    cal, test = (np.asarray(net.spiking().run(x, config.steps)[0]) for x in (cal_x, test_x))
    T = config.steps
    counts = np.arange(1, T + 1)[:, None]
    settings: dict[str, tuple[dict[str, Any], bool]] = {
        "fitted": ({}, False), "alpha 1": ({"alpha": 1.0}, False), "alpha T/2": ({"alpha": T / 2}, False),
        "alpha T": ({"alpha": float(T)}, False), "alpha 2T": ({"alpha": 2.0 * T}, False), "mean": ({}, True),
        "margin": ({"signal": "margin"}, False), "entropy": ({"signal": "entropy"}, False),
    }  # fmt: skip
    metrics, curves = {}, {}
    for name, (options, mean) in settings.items():
        scale = counts if mean else 1
        policy = DynamicConfidence(tolerance=0.003, **options).fit(cal / scale, cal_y)
        short = name.replace(" ", "_").replace("/", "_")
        metrics[f"steps_{short}"] = policy.exit_times(test / scale).mean()
        metrics[f"accuracy_{short}"] = policy.score(test / scale, test_y)
        curves[name] = np.array([(p.steps, p.accuracy) for p in policy.sweep(test / scale, test_y)])
    metrics["accuracy_last"] = float((test[:, -1].argmax(axis=1) == test_y).mean())
    return Report(metrics=metrics, arrays={"names": np.array(list(curves)), "curves": np.stack(list(curves.values()))})


@ablations.figure
def signals(runs: Runs):
    """Accuracy against mean time for each kind of confidence."""
    data = runs["system"].arrays
    fig, axis = figure(width=5.4)
    for k, (name, curve) in enumerate(zip(data["names"], data["curves"], strict=True)):
        order = np.argsort(curve[:, 0])
        style = "--" if k >= len(COLOURS) else "-"
        axis.plot(*curve[order].T, marker=".", ms=3, lw=0.8, color=COLOURS[k % len(COLOURS)], ls=style, label=str(name))
    label(axis, "mean time (steps)", "accuracy")
    return fig


@dataclass(frozen=True)
class Cifar:
    """ResNet-18 with 2-bit activations, as the authors' program trains it."""

    data: str | None = None  # folder of CIFAR-10's binary version
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # of each stage; these are ResNet-18's
    levels: int = 3
    epochs: int = 40
    batch: int = 32
    learning_rate: float = 0.01
    steps: int = 27
    alpha: float = 30.0
    calibration: int = 5000  # images held out of the training set
    samples: int = 0  # images used, 0 for all; made at random without data at smoke size


@paper.experiment(
    presets={"smoke": Cifar(width=4, blocks=(1,), epochs=1, batch=4, steps=3, calibration=8, samples=24), "paper": Cifar()},
    data="data",
    claims=[
        Claim("DC8", "ResNet-18 on CIFAR-10 exits after 11.5 of 27 steps at 94.3 %", kind="paper", where="the authors' log",
              published="94.3 % after 11.5 of 27 steps",
              ablation="fixed", null=("as-long", "dealt-out"),
              checks=[at_least("accuracy", {"paper": 0.936}), at_most("mean_steps", {"paper": 14.5}),
                      at_least("mean_steps", {"paper": 26.9}, of="fixed")]),
    ],
    cost=3600.0,
)  # fmt: skip
def resnet(config: Cifar, key, log: Log) -> Report:
    """The published setting; at smoke size on noise, which only shows that it runs."""
    rng = generator(key)
    if config.data is None and config.samples:
        x, y = rng.random((config.samples, 3, 32, 32), np.float32), rng.integers(0, 10, config.samples)
        test_x, test_y = x, y
    else:
        images = cifar(config.data)
        x, test_x = (part.transpose(0, 3, 1, 2) for part in (images.x, images.test_x))
        y, test_y = images.y, images.test_y
    mean, deviation = x.mean(axis=(0, 2, 3), keepdims=True), x.std(axis=(0, 2, 3), keepdims=True)
    x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
    order = rng.permutation(len(x))
    held, rest = order[: config.calibration], order[config.calibration :]
    body = ResNet(10, width=config.width, blocks=config.blocks, key=jax.random.fold_in(key, 0))
    net = QuantisedNet(body, (3, 32, 32), levels=config.levels, theta=2.0)
    steps = config.epochs * (len(rest) // config.batch)
    optimiser = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(optax.cosine_decay_schedule(config.learning_rate, steps), momentum=0.9)
    )
    batches = _Batches(jnp.asarray(x[rest]), jnp.asarray(y[rest]), config.batch)
    net = fit(
        net, _cross_entropy, batches, optimiser=optimiser, steps=steps, key=jax.random.fold_in(key, 1), chunk=10,
        report=lambda done, loss: log.progress(0.8 * done / steps, loss=loss), checkpoint=log.checkpoint("resnet"),
    ).model  # fmt: skip
    net = calibrate_norms(net, jnp.asarray(x[rest][:1000]))
    spiking = net.spiking()

    def logits(part: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(spiking.run(part[k : k + 100], config.steps)[0]) for k in range(0, len(part), 100)])

    policy = DynamicConfidence(alpha=config.alpha, tolerance=KEPT, choice="fastest").fit(logits(x[held]), y[held])
    found = logits(test_x)
    leaving = policy.exit_times(found)
    times = {"system": leaving, "fixed": np.full_like(leaving, config.steps), "dealt-out": rng.permutation(leaving),
             "as-long": np.full_like(leaving, np.ceil(leaving.mean()).astype(int))}  # fmt: skip
    return Report(
        arms={name: {"accuracy": (answers_at(found, each) == test_y).mean(), "mean_steps": each.mean()}
              for name, each in times.items()},
        arrays={"fixed": (found.argmax(axis=-1) == test_y[:, None]).mean(axis=0)},
    )  # fmt: skip


@resnet.figure
def accuracy_in_time(runs: Runs):
    """Accuracy against time for all samples, and where exits lie."""
    run = runs["system"]
    fig, axis = figure()
    axis.plot(np.arange(1, len(run.arrays["fixed"]) + 1), run.arrays["fixed"], "o-", color=CONTROL_COLOUR, label="fixed time")
    axis.plot(run.arms["system"]["mean_steps"], run.arms["system"]["accuracy"], "*", ms=13, label="exit by confidence")
    label(axis, "mean time (steps)", "accuracy")
    return fig
