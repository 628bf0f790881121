"""Neural foundations of mental simulation, arXiv 2305.11772.

Which networks go on with a scene as frontal cortex does? A frozen encoder turns pictures into latents, a predictor of the next
latent is rolled out while the ball is hidden, and its states are compared with neurons, with the ball, and with behaviour.
Controls: the last latent, that with the time since the ball went out of sight, a context without motion, and extrapolation
without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import sem

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator, seed_of
from broadsheet.recordings import (
    FrameEncoder,
    FrontalUnits,
    LatentPredictor,
    MentalPong,
    PongTrials,
    Predictivity,
    Tracker,
    VideoPredictor,
    behavioural_consistency,
    bouncing_balls,
    colliding_balls,
    contact_readout,
    decode_state,
    extrapolated,
    halves_of,
    inter_animal_consistency,
    neural_predictivity,
    noisy_observer,
    residual_errors,
    simulate_frontal,
)
from broadsheet.recordings.ball_scenes import scene_pictures
from broadsheet.recordings.frontal_files import as_trials, read_monkeys
from broadsheet.recordings.mental_pong import FRAME, OCCLUDER, folded
from broadsheet.recordings.simulated_frontal import BIN, at_frames

paper = Paper(
    slug="mental-simulation",
    arxiv="2305.11772",
    title="Neural Foundations of Mental Simulation: Future Prediction of Latent Representations on Dynamic Scenes",
    published="2023-05-19",
    authors=4,
    basis="code",
    code="github.com/anayebi/mental-sim (licence not stated), github.com/anayebi/brainmodel_utils (MIT)",
    summary="Which networks predict dynamic scenes as primates do? Models that forecast in the latent space of encoders "
    "pretrained on video match both human behaviour and frontal neurons while a ball is out of sight.",
    topics=("visual prediction", "frontal cortex", "world models"),
    parts=(
        "broadsheet.recordings.MentalPong",
        "broadsheet.recordings.LatentPredictor",
        "broadsheet.recordings.neural_predictivity",
        "broadsheet.recordings.behavioural_consistency",
        "broadsheet.recordings.FrameEncoder",
    ),
    notes=(
        "At quick, neurons are simulated (a noisy tracker and units tuned to its beliefs) and encoders are small ones trained "
        "on moving dots; the paper's are pretrained on images or video, and its neurons recorded.",
        "The occluder is not drawn for the models: training videos have none, and the ball in the context does not touch it.",
        "In ocp_like nothing is read out at quick: from the last latent, rollouts and a linear map, contact is told no "
        "better than by chance, while an observer of noisy physics is right in 94 of 100 scenes.",
        "A ball that flies straight is easy: a linear map from seven latents to the next, or a straight line through the last "
        "two places, predicts it at least as well as the recurrent networks, in pictures, neurons and the ball itself.",
    ),
)

PONG = MentalPong()
PENALTIES = np.geomspace(1e-4, 1e4, 9)
"""Fewer than the paper tries, which is where most of the time would go."""


@dataclass(frozen=True)
class Grid:
    """All starts of the published lists."""

    starts: int | None = None  # at random, or all
    simulated: int = 20_000  # starts compared with the closed form


@paper.experiment(
    presets={"smoke": Grid(3000, 200), "quick": Grid(), "paper": Grid()},
    claims=[
        Claim("M1", "the task is the published one: which trials there are, and how many bounce", kind="check",
              ablation="counted-until-end",
              reference="reflection of a straight path between two walls; control: bounces counted until the end only",
              checks=[equals("accepted", 0.175, 0.01), equals("bouncing", 0.31, 0.02), at_most("difference", 1e-9)]),
    ],
    cost=6.0,
)  # fmt: skip
def mental_pong(config: Grid, key, log: Log) -> Report:
    """Which starts make a trial, how balls fly, and where paddles go."""
    rng = generator(key)
    grid = PONG.grid()
    if config.starts is not None:
        grid = grid.choose(rng.choice(len(grid.x), config.starts, replace=False))
    arms = {}
    for arm, pong in (("system", PONG), ("counted-until-end", MentalPong(count="shown"))):
        accepted = bounced = 0
        for first in range(0, len(grid.x), 100_000):
            trials, _ = pong.trials(grid.choose(np.arange(first, min(first + 100_000, len(grid.x)))))
            accepted, bounced = accepted + len(trials), bounced + int((trials.bounces > 0).sum())
        arms[arm] = {"accepted": accepted / len(grid.x), "bouncing": bounced / max(accepted, 1)}
        log.progress(0.45 * len(arms))
    some = grid.choose(rng.choice(len(grid.x), config.simulated))
    frame, path = np.arange(PONG.frames), PONG.fly(some)
    straight = some.y[:, None] + (some.speed * np.sin(some.heading))[:, None] * frame
    difference = np.abs(folded(straight, PONG.radius, PONG.size - PONG.radius) - path.y).max()
    arms["system"]["difference"] = arms["counted-until-end"]["difference"] = difference
    shown = PONG.sample(8, rng, balanced=True)
    seen = PONG.render(shown.x, shown.y, 100)
    return Report(arms=arms, arrays={"x": shown.x, "y": shown.y, "picture": seen[0, shown.hidden[0] - 6]})


@mental_pong.figure
def flights(runs: Runs):
    """Eight trials, and a picture as a monkey sees it."""
    data = runs["system"].arrays
    fig, (axis, picture) = figure(columns=2)
    for k, (x, y) in enumerate(zip(data["x"], data["y"], strict=True)):
        axis.plot(x, y, color=COLOURS[k % len(COLOURS)], lw=1)
        axis.plot(x[0], y[0], "o", color=COLOURS[k % len(COLOURS)], ms=3)
    axis.axvspan(PONG.occluder, PONG.size, color=CONTROL_COLOUR, alpha=0.3, label="occluder")
    label(axis, "x (units)", "y (units)", "paths of balls")
    picture.imshow(data["picture"], cmap="gray", vmin=0, vmax=255, extent=(0, 32, 32, 0))
    label(picture, "x (units)", "y (units)", f"six frames before it is hidden (grey: {OCCLUDER})")
    return fig


@dataclass(frozen=True)
class Calibration:
    """Poisson units whose rates are known."""

    conditions: int = 79
    bins: int = 30
    units: int = 100
    trials: int = 60
    halves: int = 5


@paper.experiment(
    presets={"smoke": Calibration(12, 6, 5, 8, 2), "quick": Calibration(), "paper": Calibration(units=300, halves=50)},
    claims=[
        Claim("M4", "the measure is 1 for true rates, 0 for noise, and does not depend on the number of trials", kind="check",
              ablation="not-corrected",
              reference="known rates; control: the correlation itself", checks=[
                  equals("of_rates", 1.0, 0.05), equals("of_noise", 0.0, 0.05), at_most("spread", 0.03),
                  at_least("fall", 0.02)]),
    ],
    cost=4.0,
)  # fmt: skip
def calibration(config: Calibration, key, log: Log) -> Report:
    """Noise-corrected predictivity of true rates, linear latents and noise, with fewer and fewer trials."""
    rng = generator(key)
    latents = rng.standard_normal((config.conditions, config.bins, 8))
    drive = latents @ rng.standard_normal((8, config.units)) / np.sqrt(8)
    rates = np.logaddexp(0, 2 * drive + 1) * 4
    counts = rng.poisson(rates * BIN, (config.trials, *rates.shape)).astype(float)
    features = {"of_rates": rates, "of_noise": rng.standard_normal(latents.shape), "of_latents": latents}
    table: dict[str, dict[str, list[float]]] = {name: {} for name in features}
    for name, X in features.items():
        for trials in (config.trials, config.trials // 2, config.trials // 4):
            found = neural_predictivity(X, counts[:trials], halves=config.halves, alphas=PENALTIES)
            for arm, value in (("system", found.median), ("not-corrected", np.nanmedian(found.raw))):
                table[name].setdefault(arm, []).append(float(value))
        log.progress((list(features).index(name) + 1) / 3)
    fall = table["of_latents"]["not-corrected"][0] - table["of_latents"]["not-corrected"][-1]
    arms = {
        arm: {name: rows[arm][0] for name, rows in table.items()}
        | {"spread": max(np.ptp(table[name][arm]) for name in ("of_rates", "of_latents")), "fall": fall}
        for arm in ("system", "not-corrected")
    }
    values = np.array([[table[name][arm] for name in features] for arm in ("system", "not-corrected")])
    return Report(arms=arms, arrays={"values": values, "trials": np.array([config.trials // k for k in (1, 2, 4)])})


@calibration.figure
def against_trials(runs: Runs):
    """Corrected and raw correlation against the number of trials."""
    data = runs["system"].arrays
    fig, axis = figure()
    for k, name in enumerate(("true rates", "noise", "linear latents")):
        axis.plot(data["trials"], data["values"][0, k], "o-", color=COLOURS[k], label=name)
        axis.plot(data["trials"], data["values"][1, k], "s:", color=COLOURS[k], alpha=0.6)
    label(axis, "trials of each condition", "correlation with units", "solid: corrected for noise; dotted: not")
    return fig


class Scene(NamedTuple):
    """Trials that a model goes on with: pictures of every so many frames, as if nothing hid the ball."""

    trials: PongTrials
    pictures: np.ndarray
    first: np.ndarray  # index of the first picture in which the ball is hidden
    every: int

    def contexts(self, latents: np.ndarray, length: int) -> np.ndarray:
        """The latents, or pictures, before the ball is hidden."""
        return np.stack([row[first - length : first] for row, first in zip(latents, self.first, strict=True)])

    def continued(self, latents: np.ndarray, future: np.ndarray) -> np.ndarray:
        """True latents while the ball is in sight, then what was made up."""
        out = np.array(latents)
        for row, first, made in zip(out, self.first, future, strict=True):
            row[first : first + len(made)] = made[: len(row) - first]
        return out

    def at(self, values: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Between pictures, on a line: at frames of the task (conditions, bins)."""
        return at_frames(values, frames / self.every)


def held(path: np.ndarray) -> np.ndarray:
    """A path that stays where it ends."""
    last = np.maximum.accumulate(np.where(np.isfinite(path), np.arange(path.shape[1]), 0), axis=1)
    return np.take_along_axis(path, last, axis=1)


@dataclass(frozen=True)
class Study:
    """What all comparisons share: pictures, training and the neurons."""

    videos: int = 400  # for training
    test: int = 79  # conditions
    every: int = 2  # frames of the task in a step of the model
    side: int = 16  # pixels
    spot: float = 4.0  # width of the ball in a picture, units
    latents: int = 32
    hidden: int = 96
    steps: int = 500
    encoder_steps: int = 400
    units: int = 100
    repeats: int = 30
    halves: int = 5
    video_steps: int = 150  # of training predictors of whole videos; 0: without these
    source: Literal["simulated", "recorded"] = "simulated"
    data: str | None = None  # folder of the published recordings

    def pictures(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """One picture more than fits, so that the last moments lie between two."""
        x, y = (np.pad(held(part)[:, :: self.every], ((0, 0), (0, 1)), mode="edge") for part in (x, y))
        return PONG.render(x, y, self.side, occluder=False, spot=self.spot)

    def scene(self, trials: PongTrials) -> Scene:
        return Scene(trials, self.pictures(trials.x, trials.y), -(-trials.hidden // self.every), self.every)

    def cut(self, films: np.ndarray, trials: PongTrials) -> list[np.ndarray]:
        """What is until the ball arrives."""
        return [film[: end // self.every + 1] for film, end in zip(films, trials.end, strict=True)]

    def horizon(self) -> int:
        """Steps until every ball has arrived."""
        return PONG.seen[1] // self.every + 3

    def encoder(self, kind: str, seed: int, near: int | None = 2) -> FrameEncoder:
        """Trained on dots that fly in all directions, not on the task."""
        x, y = bouncing_balls(self.videos, 40, seed)
        dots = PONG.render(x[:, :: self.every], y[:, :: self.every], self.side, occluder=False, spot=self.spot)
        return FrameEncoder(kind, self.latents, near=near, steps=self.encoder_steps, random_state=seed).fit(dots)

    def predictor(self, dynamics: str, seed: int) -> LatentPredictor:
        """The CTRNN with the published constants and output; the LSTM says how the latent changes."""
        return LatentPredictor(
            dynamics,
            hidden=self.hidden,
            residual=dynamics == "lstm",
            steps=self.steps,
            random_state=seed,
        )


class Brain(NamedTuple):
    """Responses while the ball is hidden, and how features are compared with them."""

    trials: PongTrials
    frames: np.ndarray  # (conditions, bins), NaN where the ball is not hidden
    responses: np.ndarray
    compare: Callable[..., Predictivity]
    between_animals: Predictivity

    def since(self) -> np.ndarray:
        """Which bin it is since the ball was hidden, from 0 on; NaN where it is not."""
        return np.floor((self.frames - self.trials.hidden[:, None]) * FRAME / BIN + 1e-6)

    def elapsed(self) -> np.ndarray:
        """One number for each bin since the ball was hidden: 1 in that bin."""
        since = self.since()
        onehot = since[..., None] == np.arange(int(np.nanmax(since)) + 1)
        return np.where(np.isfinite(self.frames)[..., None], onehot, np.nan)


def simulated_brain(config: Study, rng: np.random.Generator) -> Brain:
    """Two animals: two samples of units."""
    trials = PONG.sample(config.test, rng, balanced=True)
    one, other = (
        simulate_frontal(trials, FrontalUnits.draw(config.units, rng), config.repeats, rng, only_hidden=True) for _ in range(2)
    )

    def compare(features: np.ndarray, **options) -> Predictivity:
        return neural_predictivity(features, one.counts, halves=config.halves, alphas=PENALTIES, **options)

    ceiling = inter_animal_consistency(other.counts, one.counts, halves=2, splits=3, alphas=PENALTIES)
    return Brain(trials, one.frames, one.counts.mean(axis=0), compare, ceiling)


def recorded_brain(config: Study) -> Brain:
    """Both monkeys' units side by side; one monkey predicted from the other is the ceiling."""
    perle, mahler = read_monkeys(config.data).values()
    trials, frames = as_trials(perle)
    whole = np.concatenate([perle.responses, mahler.responses], axis=-1)
    first, second = (np.concatenate(pair, axis=-1) for pair in zip(perle.halves, mahler.halves, strict=True))

    def compare(features: np.ndarray, **options) -> Predictivity:
        return neural_predictivity(features, whole, halves=(first, second), alphas=PENALTIES, **options)

    frames = np.where(perle.hidden, frames, np.nan)
    there = np.isfinite(frames)[..., None]
    source, target = (np.where(there, monkey.responses, np.nan) for monkey in (mahler, perle))
    ceiling = inter_animal_consistency(source, target, halves=(mahler.halves, perle.halves), alphas=PENALTIES)
    return Brain(trials, frames, whole, compare, ceiling)


def brain_of(config: Study, rng: np.random.Generator) -> Brain:
    return recorded_brain(config) if config.source == "recorded" else simulated_brain(config, rng)


def repeated_last(context: np.ndarray) -> np.ndarray:
    """The last moment again and again: what was seen, without how it moved."""
    return np.repeat(context[:, -1:], context.shape[1], axis=1)


OCCLUSION_NULLS = ("linear", "line")


@paper.experiment(
    presets={
        "smoke": Study(videos=4, test=12, steps=3, encoder_steps=2, hidden=8, units=10, repeats=4, halves=2, latents=8),
        "quick": Study(halves=2),
        "paper": Study(videos=20_000, side=32, spot=1.0, latents=256, hidden=1024, steps=15_000, encoder_steps=10_000,
                       source="recorded"),
    },
    claims=[
        Claim("M2", "a rolled-out predictor explains neurons better than the last latent, and than that with the elapsed time",
              kind="paper", where="figure 3", ablation="still-context", null=OCCLUSION_NULLS, grows="steps", seeds=8,
              published="46 to 49 % against 19 to 25 % (VC-1, R3M)", checks=[
                  at_least("rho", 0.10, minus="id"), at_least("rho", 0.05, minus="id+time")],
              reason="vacuous: a linear map of the context, and a straight line through the last two places, do it as well"),
        Claim("M3", "the hidden ball's height can be read out of the rollout, better than from the last latent and the time",
              kind="paper", where="abstract", ablation="still-context", null=OCCLUSION_NULLS, grows="steps", seeds=8,
              checks=[at_least("r_y", 0.05, minus="id+time"), at_least("error_below_id_time", 0.25, over="mean"),
                      at_least("frozen_below_id", 0.15, over="mean")],
              reason="the last latent alone gives r = 0.94, where its penalty is chosen by leaving conditions out, so that r "
              "has little to gain (errors halve); a decoder of the visible ball hardly carries over to places that it never "
              "saw, not even with the true path; a linear map and a straight line do it better"),
        Claim("M7", "it is the motion in the context: seven copies of the last picture lose the gain in height", kind="check",
              about="still-context", ablation="shuffled-context", reference="a context without motion; control: the first six "
              "pictures in random order, which still show where the ball came from", seeds=8,
              checks=[at_least("gain_lost", 0.7, of="still-context", over="mean")]),
    ],
    data="data",
    cost=14.0,
)  # fmt: skip
def occlusion_decoding(config: Study, key, log: Log) -> Report:
    """The hidden ball in the rollout of a latent predictor: in neurons' terms, and read out."""
    rng, seed = generator(key), seed_of(key)
    brain = brain_of(config, rng)
    scene = config.scene(brain.trials)
    encoder = config.encoder("pca", seed)
    seen = encoder.transform(scene.pictures)
    others = PONG.sample(config.videos, rng)
    training = config.cut(encoder.transform(config.pictures(others.x, others.y)), others)
    log.progress(0.3)
    predictor = config.predictor("lstm", seed).fit(training)
    linear = config.predictor("linear", seed).fit(training)
    context, steps = scene.contexts(seen, predictor.context), config.horizon()
    mixed = np.append(rng.permutation(predictor.context - 1), predictor.context - 1)
    futures = {
        "system": predictor.rollout(context, steps),
        "id": np.repeat(context[:, -1:], steps, axis=1),
        "still-context": predictor.rollout(repeated_last(context), steps),
        "shuffled-context": predictor.rollout(context[:, mixed], steps),
        "linear": linear.rollout(context, steps),
    }
    paths = {arm: scene.continued(seen, future) for arm, future in futures.items()}
    for by in ("line", "kalman", "bouncing"):  # seen with the same encoder
        paths[by] = encoder.transform(config.pictures(*extrapolated(brain.trials, by)))
    features = {arm: scene.at(path, brain.frames) for arm, path in paths.items()}
    features["time"] = brain.elapsed()
    features["id+time"] = np.concatenate([features["id"], features["time"]], axis=-1)
    features["ball"] = at_frames(brain.trials.states, brain.frames)
    visible = np.arange(brain.trials.x.shape[1])[None] * np.ones((len(brain.trials), 1))
    visible = np.where(visible < brain.trials.hidden[:, None], visible, np.nan)
    learned = (scene.at(seen, visible), at_frames(brain.trials.states, visible))
    log.progress(0.6)

    arms: dict[str, dict[str, float]] = {}
    errors = {}
    truth = features["ball"]
    since = brain.since()
    for arm, X in {**features, "neurons": brain.responses}.items():
        decoded = decode_state(X, truth, alphas=PENALTIES)
        row = {"r_x": decoded.r[0], "r_y": decoded.r[1], "error_x": decoded.error[0], "error_y": decoded.error[1]}
        if arm != "neurons":
            row["rho"] = brain.compare(X).median
        if arm in paths:
            row["frozen_error_y"] = decode_state(X, truth, learned_from=learned, alphas=[1.0]).error[1]
        arms[arm] = row
        errors[arm] = _by_time(np.abs(decoded.made - truth)[..., 1], since)
    for arm, row in arms.items():
        row["error_below_id_time"] = 1 - row["error_y"] / arms["id+time"]["error_y"]
        if arm in paths:
            row["frozen_below_id"] = 1 - row["frozen_error_y"] / arms["id"]["frozen_error_y"]
    gain = arms["system"]["r_y"] - arms["id+time"]["r_y"]
    for arm in ("still-context", "shuffled-context"):
        arms[arm]["gain_lost"] = (arms["system"]["r_y"] - arms[arm]["r_y"]) / gain if gain > 0 else 0.0
    samples = np.arange(brain.frames.size).reshape(brain.frames.shape)  # each moment by itself, as the published program splits
    arms["system"] |= {
        "skill": predictor.score(training),
        "rho_neighbours_split": brain.compare(features["system"], groups=samples).median,
    }
    arms["linear"]["skill"] = linear.score(training)
    arms["animals"] = {"rho": brain.between_animals.median}
    return Report(arms=arms, arrays={f"error:{arm}": values for arm, values in errors.items()})


def _by_time(values: np.ndarray, since: np.ndarray) -> np.ndarray:
    """Mean over conditions for each bin since the ball was hidden."""
    return np.array([np.nanmean(values[since == k]) for k in range(int(np.nanmax(since)) + 1)])


@occlusion_decoding.figure
def error_since_hidden(runs: Runs):
    """How far off the height is that is read out, against the time since the ball went out of sight."""
    run = runs["system"]
    fig, (axis, bars) = figure(columns=2)
    shown = {"id+time": CONTROL_COLOUR, "system": SYSTEM_COLOUR, "linear": COLOURS[1], "line": COLOURS[2],
             "still-context": COLOURS[3], "neurons": "k"}  # fmt: skip
    for arm, colour in shown.items():
        values = run.arrays[f"error:{arm}"]
        axis.plot(np.arange(len(values)) * BIN, values, color=colour, label="rollout" if arm == "system" else arm)
    label(axis, "time since hidden (s)", "error of height (units)", "read out of held-out conditions")
    names = [name for name, row in run.arms.items() if "rho" in row and name != "animals"]
    colours = [shown.get(name, CONTROL_COLOUR) for name in names]
    bars.barh(
        [name if name != "system" else "rollout" for name in names], [run.arms[name]["rho"] for name in names], color=colours
    )
    bars.axvline(run.arms["animals"]["rho"], color="k", ls=":", label="other animal")
    label(bars, "predictivity of units (median ρ)", "features")
    return fig


DYNAMICS = ("id", "linear", "lstm", "ctrnn")
FAMILIES: dict[str, dict[str, Any]] = {"pca": {}, "random": {}, "static": {}, "dynamic": {}, "shuffled": {"near": None}}


@paper.experiment(
    presets={
        "smoke": Study(videos=4, test=12, steps=3, encoder_steps=2, hidden=8, units=10, repeats=4, halves=2, latents=8,
                       video_steps=0),
        "quick": Study(videos=200, units=40, repeats=20, halves=2, steps=200, encoder_steps=200, video_steps=80),
        "paper": Study(videos=20_000, side=32, spot=1.0, latents=1024, hidden=1024, steps=15_000, encoder_steps=10_000,
                       video_steps=15_000, source="recorded"),
    },
    claims=[
        Claim("M5", "an encoder trained on dynamic scenes serves better than one of single pictures, and that better than none",
              kind="paper", where="abstract", ablation="shuffled-lstm", null="pca-lstm", grows="encoder_steps", seeds=8,
              published="R3M and VC-1 above encoders of images and VIP", checks=[
                  at_least("rho", 0.0, minus="static-lstm"), at_least("rho", 0.0, of="static-lstm", minus="random-lstm")],
              reason="one dot is no test of an encoder: an untrained one carries its place as well as the others do"),
        Claim("M8", "in recorded neurons a CTRNN gains over no dynamics, with an encoder of dynamic scenes", kind="paper",
              where="figure 3", ablation="still-context", null=("id+time", "seen line"), published="+ 0.24 to 0.27 (VC-1, R3M)",
              checks=[at_least("gain", {"paper": 0.05})]),
    ],
    data="data",
    cost=25.0,
)  # fmt: skip
def family_comparison(config: Study, key, log: Log) -> Report:
    """Families of encoders and dynamics, by how well they explain neurons."""
    rng, seed = generator(key), seed_of(key)
    brain = brain_of(config, rng)
    scene, steps = config.scene(brain.trials), config.horizon()
    others = PONG.sample(config.videos, rng)
    films = config.pictures(others.x, others.y)
    rho: dict[str, float] = {}
    skill: dict[str, float] = {}

    def compare(path: np.ndarray) -> float:
        return brain.compare(scene.at(path, brain.frames)).median

    for done, (name, options) in enumerate(FAMILIES.items()):
        encoder = config.encoder("dynamic" if name == "shuffled" else name, seed, **options)
        seen = encoder.transform(scene.pictures)
        training = config.cut(encoder.transform(films), others)
        for dynamics in DYNAMICS if name in ("pca", "dynamic") else DYNAMICS[:3]:
            predictor = config.predictor(dynamics, seed).fit(training)
            context = scene.contexts(seen, predictor.context)
            path = scene.continued(seen, predictor.rollout(context, steps))
            rho[f"{name}-{dynamics}"], skill[f"{name}-{dynamics}"] = compare(path), predictor.score(training)
            log.progress((done + 1) / len(FAMILIES) * 0.8, rho=rho[f"{name}-{dynamics}"])
            if name == "dynamic" and dynamics == "id":
                timed = np.concatenate([scene.at(path, brain.frames), brain.elapsed()], axis=-1)
                rho["id+time"] = brain.compare(timed).median
                rho["seen line"] = compare(encoder.transform(config.pictures(*extrapolated(brain.trials, "line"))))
            if name == "dynamic" and dynamics == "ctrnn":
                rho["still-context"] = compare(scene.continued(seen, predictor.rollout(repeated_last(context), steps)))
    for name, slots in (("pixels", 0), ("slots", 2)) if config.video_steps else ():
        whole = VideoPredictor(slots, config.latents, steps=config.video_steps, random_state=seed).fit(
            config.cut(films, others)
        )
        windows = scene.contexts(scene.pictures, whole.context)
        futures = {f"{name}-rollout": whole.rollout(windows, steps), f"{name}-id": whole.transform(windows)[:, None]}
        blank = np.zeros((*scene.pictures.shape[:2], config.latents))
        for arm, future in futures.items():
            path = scene.continued(blank, np.broadcast_to(future, (len(windows), steps, config.latents)))
            before = whole.transform(windows)  # so that the first bin lies between what was seen and what is made up
            path[np.arange(len(windows)), scene.first - 1] = before
            rho[arm] = compare(path)
        log.progress(0.8 + 0.1 * (slots + 1) / 3)
    for by in ("line", "kalman", "bouncing"):
        x, y = extrapolated(brain.trials, by)
        velocity = np.stack([np.gradient(held(part), axis=1) for part in (x, y)], axis=-1)
        rho[by] = brain.compare(
            at_frames(np.concatenate([np.stack([held(x), held(y)], -1), velocity], -1), brain.frames)
        ).median
    rho["true state"] = brain.compare(at_frames(brain.trials.states, brain.frames)).median
    rho["time"] = brain.compare(brain.elapsed()).median
    rho["animals"] = brain.between_animals.median
    arms = {name: {"rho": value} for name, value in rho.items()}
    for name, value in skill.items():
        arms[name]["skill"] = value
    arms["system"] = dict(arms["dynamic-lstm"])
    for arm, of in (("system", "dynamic-ctrnn"), *((name, name) for name in ("still-context", "id+time", "seen line"))):
        arms[arm]["gain"] = rho[of] - rho["dynamic-id"]
    spread = float(sem(brain.between_animals.rho, nan_policy="omit"))
    return Report(arms=arms, arrays={"animals_sem": np.array([spread])})


@family_comparison.figure
def families(runs: Runs):
    """Predictivity of each family, beside no dynamics and beside another animal."""
    run = runs["system"]
    fig, axis = figure(width=8.5, height=3.6)
    groups = [*FAMILIES, "pixels", "slots"]
    kinds = {"id": CONTROL_COLOUR, "linear": COLOURS[1], "lstm": SYSTEM_COLOUR, "ctrnn": COLOURS[3], "rollout": COLOURS[2]}
    for kind, colour in kinds.items():
        places, heights = [], []
        for k, group in enumerate(groups):
            if f"{group}-{kind}" in run.arms:
                places.append(k + 0.2 * (list(kinds).index(kind) if kind != "rollout" else 1) - 0.3)
                heights.append(run.arms[f"{group}-{kind}"]["rho"])
        axis.bar(places, heights, 0.18, color=colour, label=kind)
    alone = ("time", "line", "kalman", "bouncing", "true state")
    axis.bar(len(groups) + np.arange(len(alone)), [run.arms[name]["rho"] for name in alone], 0.5, color="k", alpha=0.5)
    ceiling, spread = run.arms["animals"]["rho"], float(run.arrays["animals_sem"][0])
    axis.axhspan(ceiling - spread, ceiling + spread, color="k", alpha=0.2, label="other animal ± s.e.m.")
    axis.set_xticks(range(len(groups) + len(alone)), [*groups, *alone], rotation=30, ha="right")
    label(axis, "encoder and dynamics", "predictivity of units (median ρ)")
    axis.legend(frameon=False, fontsize="x-small", ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return fig


@dataclass(frozen=True)
class Behaviour(Study):
    """Where a paddle goes, in trials of which half bounce."""

    test: int = 200
    slowing: float = 0.01  # a subject's drift: vertical speed lost in each hidden frame
    subject_trials: int = 20


@paper.experiment(
    presets={
        "smoke": Behaviour(videos=4, test=20, steps=3, hidden=8, latents=8, subject_trials=4),
        "quick": Behaviour(),
        "paper": Behaviour(videos=20_000, side=32, spot=1.0, latents=256, hidden=1024, steps=15_000),
    },
    claims=[
        Claim("M6", "a model errs like a subject who tracks the ball, more than like one who ignores bounces", kind="paper",
              where="behaviour of Mental Pong", ablation="still-context", null=("linear", "line"), grows="steps", seeds=8,
              checks=[at_least("difference", 0.2, over="mean")],
              reason="errors of the rollout are its own drift; the last latent, which knows no bounce, is as like the subject"),
    ],
    cost=8.0,
)  # fmt: skip
def behaviour(config: Behaviour, key, log: Log) -> Report:
    """Endpoint errors of models and of two simulated subjects: are they alike?"""
    rng, seed = generator(key), seed_of(key)
    trials = PONG.sample(config.test, rng, balanced=True)
    scene, steps = config.scene(trials), config.horizon()
    encoder = config.encoder("pca", seed)
    seen = encoder.transform(scene.pictures)
    others = PONG.sample(config.videos, rng)
    training = config.cut(encoder.transform(config.pictures(others.x, others.y)), others)
    log.progress(0.3)
    predictor, linear = (config.predictor(kind, seed).fit(training) for kind in ("lstm", "linear"))
    context = scene.contexts(seen, predictor.context)
    paths = {
        "system": scene.continued(seen, predictor.rollout(context, steps)),
        "id": scene.continued(seen, np.repeat(context[:, -1:], steps, axis=1)),
        "still-context": scene.continued(seen, predictor.rollout(repeated_last(context), steps)),
        "linear": scene.continued(seen, linear.rollout(context, steps)),
    }
    for by in ("line", "kalman"):
        paths[by] = encoder.transform(config.pictures(*extrapolated(trials, by)))
    subjects = {
        "tracker": Tracker(slowing=config.slowing),
        "ignores": Tracker(slowing=config.slowing, bounces=0.0),
    }
    answers = {name: subject.answers(trials, config.subject_trials, rng) for name, subject in subjects.items()}
    halves = {name: halves_of(residual_errors(given, trials.y_end)) for name, given in answers.items()}
    log.progress(0.8)
    arms, given = {}, {}
    last = trials.end[:, None].astype(float)
    for arm, path in paths.items():
        given[arm] = _paddle(scene.at(path, last), trials.y_end)
        mine = residual_errors(given[arm], trials.y_end)
        found = {name: behavioural_consistency(np.stack([mine, mine]), theirs) for name, theirs in halves.items()}
        arms[arm] = {
            **{f"like_{name}": value for name, value in found.items()},
            "difference": found["tracker"] - found["ignores"],
            "error": float(np.abs(given[arm] - trials.y_end).mean()),
        }
    for name, theirs in answers.items():
        arms[name] = {"error": float(np.abs(theirs - trials.y_end).mean())}
    arrays = {"y_end": trials.y_end, "bounces": trials.hidden_bounces, **{f"paddle:{arm}": y for arm, y in given.items()}}
    return Report(arms=arms, arrays=arrays | {f"paddle:{name}": y[0] for name, y in answers.items()})


def _paddle(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Heights read out at the end, of each condition from the others (five folds)."""
    fold = np.arange(len(truth)) % 5
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    return decode_state(features, truth[:, None, None], splits=splits).made[:, 0, 0]


@behaviour.figure
def paddles(runs: Runs):
    """Where paddles go, against where the ball arrives."""
    data = runs["system"].arrays
    fig, axes = figure(columns=3)
    hidden = data["bounces"] > 0
    for axis, (arm, title) in zip(
        axes, (("system", "rollout"), ("tracker", "subject"), ("ignores", "ignores bounces")), strict=True
    ):
        for which, colour, name in ((~hidden, CONTROL_COLOUR, "no hidden bounce"), (hidden, SYSTEM_COLOUR, "hidden bounce")):
            axis.plot(data["y_end"][which], data[f"paddle:{arm}"][which], ".", color=colour, label=name)
        axis.plot([0, 32], [0, 32], color="k", lw=0.6)
        label(axis, "ball arrives at (units)", "paddle (units)", title)
    return fig


@dataclass(frozen=True)
class Contact:
    """Will two balls touch?"""

    videos: int = 300
    readout: int = 300
    test: int = 200
    shown: int = 24  # frames
    frames: int = 60
    every: int = 3
    side: int = 16
    spot: float = 2.0
    latents: int = 32
    hidden: int = 96
    steps: int = 500
    observer: int = 30


@paper.experiment(
    presets={
        "smoke": Contact(videos=8, readout=12, test=12, latents=8, hidden=8, steps=3, observer=4),
        "quick": Contact(),
        "paper": Contact(videos=20_000, readout=2000, test=1000, side=32, spot=1.0, latents=256, hidden=1024, steps=15_000),
    },
    cost=10.0,
)
def ocp_like(config: Contact, key, log: Log) -> Report:
    """Contact of two balls from the first moments of a scene: accuracy, and likeness to an observer of noisy physics."""
    rng, seed = generator(key), seed_of(key)
    films = {}
    for name, count in (("videos", config.videos), ("readout", config.readout), ("test", config.test)):
        scenes = colliding_balls(count, config.shown, config.frames, rng)
        films[name] = (scenes, scene_pictures(scenes, config.every, config.side, spot=config.spot))
    encoder = FrameEncoder("pca", config.latents, random_state=seed).fit(films["videos"][1])
    latents = {name: encoder.transform(film) for name, (_, film) in films.items()}
    shown = config.shown // config.every
    options: dict[str, Any] = {"hidden": config.hidden, "residual": True, "steps": config.steps, "random_state": seed}
    answers = noisy_observer(films["test"][0], config.observer, rng).mean(axis=0)
    arms = {}
    for arm, kind in (("system", "lstm"), ("linear", "linear"), ("id", "id")):
        predictor = LatentPredictor(kind, **options).fit(latents["videos"])
        made = {}
        for name in ("readout", "test"):
            context = latents[name][:, shown - predictor.context : shown]
            future = predictor.rollout(context, latents[name].shape[1] - shown)
            made[name] = np.concatenate([context[:, ::2], future[:, 1::2]], axis=1).reshape(len(context), -1)
        readout = contact_readout().fit(made["readout"], films["readout"][0].contact)
        chance = readout.predict_proba(made["test"])[:, 1]
        right = float((readout.predict(made["test"]) == films["test"][0].contact).mean())
        likeness = np.corrcoef(chance, answers)[0, 1] if chance.std() > 0 else 0.0
        arms[arm] = {"accuracy": right, "consistency": float(likeness), "skill": predictor.score(latents["test"])}
        log.progress((len(arms)) / 3)
    observer = ((answers > 0.5) == films["test"][0].contact).mean()
    arms["observer"] = {"accuracy": float(observer)}
    return Report(arms=arms, arrays={"film": films["test"][1][:3], "observer": answers})


@ocp_like.figure
def contacts(runs: Runs):
    """Scenes as the models see them, and what the readout makes of rollouts."""
    run = runs["system"]
    fig, (film, bars) = figure(columns=2)
    pictures = run.arrays["film"][:, ::4]
    film.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in pictures]), cmap="gray")
    label(film, "time (every 12th frame), pixels", "scene, pixels")
    names = ["id", "linear", "system"]
    for k, metric in enumerate(("accuracy", "consistency")):
        values = [run.arms[name][metric] for name in names]
        bars.bar(np.arange(3) + 0.35 * k, values, 0.33, color=(SYSTEM_COLOUR, COLOURS[1])[k], label=metric)
    bars.axhline(run.arms["observer"]["accuracy"], color="k", ls=":", label="observer's accuracy")
    bars.set_xticks(np.arange(3) + 0.17, ["last latent", "linear", "LSTM"])
    label(bars, "dynamics", "share right; r with the observer")
    return fig
