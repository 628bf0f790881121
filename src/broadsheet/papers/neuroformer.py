"""Neuroformer: Multimodal and Multitask Generative Pretraining for Brain Data, arXiv 2311.00136.

A transformer writes the spikes of a window one by one, given those of the window before, a film and behaviour. Its attention
is read as connectivity, its trunk decodes behaviour from few labels. Controls: what it may look at is hidden, plain correlation
with a lag, Poisson regressions, samplers of mean rates, and ridge regression on counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator
from broadsheet.recordings.connectivity import (
    correlation,
    coupling,
    fit_poisson,
    lagged_correlation,
    partial_correlation,
    past_sums,
    poisson_log_likelihood,
)  # fmt: skip
from broadsheet.recordings.decoders import fit_gru, history, plain_decoder
from broadsheet.recordings.hub_network import HubNetwork
from broadsheet.recordings.neuroformer.contrastive import retrieval
from broadsheet.recordings.neuroformer.decoding import decode, fine_tune
from broadsheet.recordings.neuroformer.generation import generate
from broadsheet.recordings.neuroformer.model import NeuroformerNet, Sees
from broadsheet.recordings.neuroformer.published import read_visnav
from broadsheet.recordings.neuroformer.readouts import (
    area,
    attention_connectivity,
    average_precision,
    direction_index,
    sensitivity,
)  # fmt: skip
from broadsheet.recordings.neuroformer.recording import Recording
from broadsheet.recordings.neuroformer.training import evaluate, train
from broadsheet.recordings.stimulus_population import StimulusPopulation

paper = Paper(
    slug="neuroformer",
    arxiv="2311.00136",
    title="Neuroformer: Multimodal and Multitask Generative Pretraining for Brain Data",
    published="2023-10-31",
    authors=5,
    basis="code",
    code="github.com/a-antoniades/Neuroformer (MIT)",
    summary="Each spike is a token: which neuron, and when within a short window. A transformer writes the spikes of a window "
    "one after the other, looking at the window before, at a film and at behaviour. It is trained to predict; behaviour is "
    "then decoded from its trunk with few labels, and its attention is read as connectivity.",
    topics=("neural recordings", "sequence models", "functional connectivity"),
    parts=(
        "broadsheet.recordings.Neuroformer",
        "broadsheet.recordings.SpikeTokenizer",
        "broadsheet.recordings.neuroformer.readouts.attention_connectivity",
    ),
    verbs=("broadsheet recordings decode SESSION.nwb --target running",),
    notes=(
        "The program's behaviour inputs pass a layer norm over one number, which leaves nothing of it: with its own code, "
        "logits are the same whatever the behaviour. Here they are standardised instead.",
        "Spikes of a bin are sorted by neuron, so that counts have one sequence and its likelihood is theirs: no term for the "
        "order within bins is owed in the comparison with Poisson regressions.",
        "Offsets never fall and neurons never fall within a bin, by masks; the authors' program leaves that to be learned.",
        "Beside the gain by the film (N8) stands the same network on a shuffled film, not a Poisson regression that sees the "
        "film, which would gain by it too.",
    ),
)


@dataclass(frozen=True)
class Sizes:
    """Of a network and its training."""

    width: int = 32
    heads: int = 2
    state: int = 1
    history: int = 1
    stimulus: int = 1
    look: int = 1
    behaviour: int = 1
    fusion: int = 1
    dropout: float = 0.0
    steps: int = 700
    batch: int = 72  # windows
    rate: float = 5e-3

    def layers(self) -> dict[str, Any]:
        names = ("width", "heads", "state", "history", "stimulus", "look", "behaviour", "fusion", "dropout")
        return {name: getattr(self, name) for name in names}


SMALL: dict[str, Any] = {"width": 8, "heads": 2, "steps": 2, "batch": 8, "state": 0, "stimulus": 0, "behaviour": 0,
                         "fusion": 0, "block": 16, "past_block": 16}  # fmt: skip
PUBLISHED: dict[str, Any] = {"width": 256, "heads": 8, "state": 6, "history": 6, "stimulus": 6, "look": 6, "behaviour": 4,
                             "fusion": 6, "dropout": 0.2, "rate": 3e-4, "batch": 160}  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """Random counts, written as tokens and read again; and a network with random weights."""

    neurons: int = 40
    windows: int = 200
    spikes: float = 0.3  # a bin and neuron
    width: int = 32


@paper.experiment(
    presets={"smoke": Tokens(neurons=5, windows=6, width=8), "quick": Tokens(), "paper": Tokens(neurons=300, width=256)},
    claims=[
        Claim("N1", "spikes become tokens and come back the same, in counts and bins", kind="check", reference="the counts",
              ablation="cut", checks=[at_most("errors", 0)]),
        Claim("N2", "no token is seen before it is written; the past is", kind="check", reference="the logits before a change; "
        "control: a mask that is one token off",
              ablation="one-off", checks=[at_most("change_before", 1e-6), at_least("change_by_past", 1e-4)]),
    ],
    cost=4.0,
)  # fmt: skip
def tokens(config: Tokens, key, log: Log) -> Report:
    """The tokeniser there and back, and what a change of one token does to the logits of a network."""
    rng = generator(key)
    counts = rng.poisson(config.spikes, (5 * config.windows, config.neurons)).astype(np.int32)
    block = int(counts.reshape(config.windows, -1).sum(axis=1).max()) + 2
    recording = Recording(counts, block=block, past_block=block, packed=1)
    errors = {"system": 0, "cut": 0}
    for k, stop in enumerate(range(5, len(counts) + 1, 5)):
        ids, offsets = recording.tokenizer.encode(counts[:stop])
        for arm, start in (("system", 0), ("cut", len(ids) // 10)):  # a block that is too short loses the first spikes
            errors[arm] += int(np.abs(recording.tokenizer.decode(ids[start:], offsets[start:]) - counts[stop - 5 : stop]).sum())
        log.progress((k + 1) / config.windows)
    model = NeuroformerNet(recording.config(width=config.width, heads=2, history=1), rng)
    model = jax.tree.map(lambda leaf: 10 * leaf if leaf.ndim == 2 else leaf, model)  # as large as those of a trained one
    rows = jax.tree.map(jnp.asarray, recording.data(np.arange(4), packed=False).rows)
    middle = int(np.asarray(rows.segment >= 0).sum(axis=1).min()) // 2

    def logits(rows: Any) -> np.ndarray:
        return np.asarray(model.head_ids(model(rows).x))

    before = logits(rows)
    changed = logits(rows._replace(ids=rows.ids.at[:, middle].set((rows.ids[:, middle] + 1) % config.neurons)))
    past = logits(rows._replace(past_ids=rows.past_ids.at[:, 0].set((rows.past_ids[:, 0] + 1) % config.neurons)))
    moved = np.abs(changed - before).max(axis=(0, 2))
    by_past = float(np.abs(past - before).max())
    return Report(
        arms={
            "system": {"errors": errors["system"], "change_before": moved[:middle].max(), "change_by_past": by_past},
            "cut": {"errors": errors["cut"]},
            "one-off": {"change_before": moved[: middle + 1].max(), "change_by_past": by_past},
        },
        arrays={"moved": moved[: 2 * middle], "changed": middle},
    )


@tokens.figure
def causality(runs: Runs):
    """How far logits move when one token is changed."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.semilogy(np.maximum(data["moved"], 1e-12), ".-", color=SYSTEM_COLOUR, label="largest change (floor 1e-12)")
    axis.axvline(float(data["changed"]), color=CONTROL_COLOUR, label="token that is changed")
    label(axis, "token of the window", "change of a logit")
    return fig


@dataclass(frozen=True)
class Hubs(Sizes):
    """Three hubs that drive eight neurons each."""

    neurons: int = 30
    hubs: int = 3
    drive: float = 0.0  # Hz, common to all but the hubs
    seconds: float = 300.0
    past: int = 5  # bins of 10 ms
    block: int = 80
    past_block: int = 160


@paper.experiment(
    presets={"smoke": Hubs(neurons=6, hubs=1, seconds=6.0, **SMALL), "quick": Hubs(),
             "paper": Hubs(neurons=300, hubs=30, seconds=3600.0, past=15, block=400, past_block=1200,
                           steps=100_000, **PUBLISHED)},
    claims=[
        Claim("N3", "attention to the window before ranks true connections far above correlation, and has their direction",
              kind="paper", where="simulated network with hubs", published="a figure: hubs and directions are "
              "seen in attention, not in correlation", ablation="within-window",
              null=("lagged-correlation", "glm", "partial-correlation"),
              grows="steps", checks=[
                  at_least("average_precision", 0.6), at_least("average_precision", 0.2, minus="pearson"),
                  at_least("direction", 0.85)],
              reason="correlation with a lag of one to three bins, which costs nothing, ranks connections better than "
              "attention and has every direction: what attention adds to correlation at lag 0 is the lag"),
        Claim("N3b", "so does the slope of a neuron's logit by the presence of a past spike", kind="check", about="sensitivity",
              reference="the network that was drawn", ablation="within-window", checks=[
                  at_least("average_precision", {"quick": 0.6}, of="sensitivity"),
                  at_least("average_precision", {"quick": 0.2}, of="sensitivity", minus="pearson"),
                  at_least("direction", {"quick": 0.85}, of="sensitivity")],
              reason="of 24 connections slopes give the direction of 20 on two seeds in three, and 23 on the third: one short "
                     "of the bound; with other batches precision missed its bound as well, so that rounding decides"),
    ],
    cost=20.0,
)  # fmt: skip
def hub_network(config: Hubs, key, log: Log) -> Report:
    """Who drives whom, by attention, by slopes, and by plain means, on spikes of a network that is known."""
    network = HubNetwork(
        config.neurons, config.hubs, fan_out=min(8, config.neurons // 3), drive=config.drive, seconds=config.seconds
    )
    counts, edges = network.sample(key)
    recording = Recording(counts, past=config.past, block=config.block, past_block=config.past_block)
    trained, test = recording.split
    model = NeuroformerNet(recording.config(**config.layers()), generator(key))
    fitted = train(model, recording.data(trained), steps=config.steps, batch=config.batch, rate=config.rate,
                   key=jax.random.fold_in(key, 1), checkpoint=log.checkpoint("training"),
                   report=lambda step, loss: log.progress(0.9 * step / config.steps, loss=loss))  # fmt: skip
    held = recording.data(test)
    attention = attention_connectivity(fitted.model, held)
    found = {
        "system": attention.past, "within-window": attention.current, "sensitivity": sensitivity(fitted.model, held),
        "pearson": correlation(counts), "lagged-correlation": lagged_correlation(counts),
        "partial-correlation": np.abs(partial_correlation(counts)), "glm": coupling(counts)[0],
    }  # fmt: skip
    wide = counts[: len(counts) // 5 * 5].reshape(-1, 5, config.neurons).sum(axis=1)
    found["pearson, 50 ms"] = correlation(wide)
    arms = {
        arm: {"average_precision": average_precision(c, edges), "direction": direction_index(c, edges), "area": area(c, edges)}
        for arm, c in found.items()
    }
    ids, offsets, _, _ = evaluate(fitted.model, held)
    spikes = recording.of(test).sum()
    arms["system"] |= {"nll": (ids.sum() + offsets.sum()) / spikes, "cut": recording.windows.cut,
                       "past_cut": recording.windows.past_cut}  # fmt: skip
    shown = {name.replace(", ", "_").replace(" ", "_"): np.nan_to_num(c) for name, c in found.items()}
    return Report(arms=arms, arrays={"edges": edges, "loss": fitted.losses, **shown})


@hub_network.figure
def matrices(runs: Runs):
    """Who drives whom: what is true, and what each read-out says; sources that are hubs come first."""
    data = runs["system"].arrays
    names = {"edges": "true", "pearson": "Pearson, lag 0", "lagged-correlation": "correlation, 10-30 ms",
             "glm": "Poisson regression", "system": "attention to the past", "sensitivity": "slope by past spikes"}  # fmt: skip
    fig, axes = figure(3, 2, width=3.3, height=3.0)
    for axis, (name, title) in zip(axes.flat, names.items(), strict=True):
        shown = np.array(data[name], float)
        np.fill_diagonal(shown, np.nan)
        low, high = np.nanpercentile(shown, [1, 99.5])
        axis.imshow(shown, cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))
        label(axis, "source neuron", "target neuron", title, legend=False)
    return fig


@hub_network.figure
def ranking(runs: Runs):
    """Precision against recall over ordered pairs."""
    from sklearn.metrics import precision_recall_curve

    data = runs["system"].arrays
    edges = np.asarray(data["edges"], bool)
    off = ~np.eye(len(edges), dtype=bool)
    fig, axis = figure(width=6.5)
    names = {"system": "attention to the past", "sensitivity": "slope by past spikes",
             "lagged-correlation": "correlation, 10-30 ms", "glm": "Poisson regression",
             "partial-correlation": "partial correlation", "pearson": "Pearson, lag 0"}  # fmt: skip
    for colour, (name, said) in zip((*COLOURS[:5], CONTROL_COLOUR), names.items(), strict=True):
        precision, recall, _ = precision_recall_curve(edges[off], np.asarray(data[name])[off])
        axis.step(recall, precision, where="post", color=colour, label=said)
    label(axis, "recall of connections", "precision", legend=False)
    fig.legend(loc="outside right upper", frameon=False, fontsize="small")
    return fig


@dataclass(frozen=True)
class Population(Sizes):
    """Sixty neurons that see a film, with a gain by running speed."""

    neurons: int = 60
    seconds: float = 300.0
    past: int = 5  # bins of 10 ms
    block: int = 80
    past_block: int = 160
    steps: int = 400
    batch: int = 40
    clip: int = 64
    contrast: float = 0.25
    labels: tuple[float, ...] = (0.01, 0.05, 0.1, 1.0)  # shares of the training windows
    few: float = 0.05
    tuning_steps: int = 100
    tuning_rate: float = 1e-3
    among: int = 32  # windows, of which one is to be found


SEEN = {
    "no-past": Sees(past=False),
    "past": Sees(stimulus=False),
    "past-stimulus": Sees(),
}


@paper.experiment(
    presets={"smoke": Population(neurons=6, seconds=8.0, among=4, clip=4, labels=(1.0,), few=1.0, tuning_steps=2, **SMALL),
             "quick": Population(),
             "paper": Population(neurons=300, seconds=3600.0, past=15, block=300, past_block=800, steps=250_000, clip=512,
                                 tuning_steps=5000, **PUBLISHED)},
    claims=[
        Claim("N4", "held-out spikes are as likely as under a Poisson regression on the same past", kind="paper",
              where="comparison with GLMs", ablation="no-past", null="rate-modulated", grows="steps", seeds=8, checks=[
                  at_most("nll", -0.2, minus="unigram"), at_most("nll", 0.05, minus="glm")],
              reason="after the few hundred steps of this size the regression is about a tenth of a nat ahead; after four "
                     "times as many, on one seed, the network is .035 ahead, and one that does not see the past .01 behind"),
        Claim("N5", "written activity has the rates and the covariances of the real one", kind="paper",
              where="generation; V1 and AL", ablation="no-past", null=("mean-rates", "glm"), grows="steps", seeds=8,
              checks=[at_least("rate_r", 0.9), at_least("covariance_r", 0.5)],
              reason="a model without the past, which still sees the film and what it wrote itself, does it as well"),
        Claim("N6", "a pretrained trunk decodes speed from few labels better than one trained on these alone", kind="paper",
              where="few-shot", published="pretrained with 1 % of labels above not pretrained with 10 %", about="pretrained",
              ablation="random-trunk", null=("ridge", "gru"), grows="tuning_steps", checks=[
                  at_least("speed_r", 0.05, of="pretrained", minus="from-scratch", over="count", count=2)],
              reason="a trunk with few labels alone learns little in the time, so that ridge regression on counts and a "
              "recurrent unit, from the same labels, are as far above it; with four times the tuning, on one seed, a third of "
              "the gain is left"),
        Claim("N7", "the contrastive term aligns a window's spikes with its film", kind="paper", where="contrastive alignment",
              about="contrastive", ablation="past-stimulus", null="linear", grows="steps",
              checks=[at_least("retrieval_over_chance", 4.0, of="contrastive")],
              reason="ridge regression from counts to the film finds the window as often"),
        Claim("N8", "the film makes held-out spikes more likely", kind="paper", where="ablation of inputs",
              about="past-stimulus", ablation="past", null="shuffled-film", grows="steps", seeds=8,
              checks=[at_most("nll", 0.0, of="past-stimulus", minus="past", over="each"),
                      at_most("nll", -0.02, of="past-stimulus", minus="past")]),
    ],
    cost=45.0,
)  # fmt: skip
def stimulus_population(config: Population, key, log: Log) -> Report:
    """A population under a film: likelihood, generation, few-shot decoding, alignment, and what each input adds."""
    made = StimulusPopulation(config.neurons, seconds=config.seconds).sample(key)
    recording = Recording(made.counts, past=config.past, block=config.block, past_block=config.past_block, frames=made.frames)
    speed = made.speed[recording.windows.stop // 5 - 1][:, None]
    trained, test = recording.split
    data, held, single = recording.data(trained), recording.data(test), recording.data(test, packed=False)
    first = NeuroformerNet(recording.config(clip=config.clip, **config.layers()), generator(key))
    spikes = recording.of(test).sum()
    models, arms = {}, {"unigram": {"nll": recording.unigram(trained, test)}}
    shuffled = replace(recording, frames=np.roll(made.frames, len(made.frames) // 3, axis=0))
    asked = [*((arm, sees, 0.0) for arm, sees in SEEN.items()), ("contrastive", SEEN["past-stimulus"], config.contrast),
             ("shuffled-film", SEEN["past-stimulus"], 0.0)]  # fmt: skip
    for k, (arm, sees, contrast) in enumerate(asked):
        given, asked_of = (shuffled.data(part) for part in recording.split) if arm == "shuffled-film" else (data, held)
        fitted = train(first, given, steps=config.steps, batch=config.batch, rate=config.rate, sees=sees, contrast=contrast,
                       key=jax.random.fold_in(key, 1), checkpoint=log.checkpoint(arm),
                       report=lambda step, loss, k=k: log.progress((k + step / config.steps) / 6, loss=loss))  # fmt: skip
        ids, offsets, x, film = evaluate(fitted.model, asked_of, sees)
        models[arm] = fitted.model
        arms[arm] = {"nll": (ids.sum() + offsets.sum()) / spikes, **_alignment(fitted.model, x, film, config.among, key)}
    arms["system"] = dict(arms["past-stimulus"])
    arms["linear"] = {"retrieval_over_chance": _linear_alignment(recording, made.frames, config.among, key)}
    rates, likelihoods = _poisson(recording, trained, test)
    arms |= {arm: {"nll": -value / spikes} for arm, value in likelihoods.items()}
    written = {
        "system": generate(models["past-stimulus"], single, jax.random.fold_in(key, 2), sees=SEEN["past-stimulus"]),
        "no-past": generate(models["no-past"], single, jax.random.fold_in(key, 2), sees=SEEN["no-past"]),
        **_samplers(recording, test, rates, generator(jax.random.fold_in(key, 3))),
    }
    real = recording.of(test)
    for arm, spikes_of in written.items():
        arms.setdefault(arm, {}).update(_likeness(spikes_of, real))
    log.progress(0.85)
    decoded = _few_shot(config, recording, models["past-stimulus"], first, speed, key)
    for arm, values in decoded.items():
        arms.setdefault(arm, {}).update(values)
    raster = {"real": real[:20].reshape(-1, config.neurons), "written": written["system"][:20].reshape(-1, config.neurons)}
    covariances = {"covariance_real": _covariances(real), "covariance_written": _covariances(written["system"])}
    return Report(arms=arms, arrays={**raster, **covariances})


def _alignment(model: NeuroformerNet, x: np.ndarray, film: np.ndarray | None, among: int, key) -> dict[str, float]:
    """How often the film of a window is found by its spikes, over chance."""
    assert film is not None
    assert model.clip is not None
    order = generator(jax.random.fold_in(key, 5)).permutation(len(x))
    u, v = (model.clip(jnp.asarray(part[order])) for part in (x, film))
    return {"retrieval_over_chance": retrieval(u, v, among) * among}


def _linear_alignment(recording: Recording, frames: np.ndarray, among: int, key) -> float:
    """The same by ridge regression from the counts of a window and its past to the film's last frame."""
    trained, test = recording.split
    pictures = frames[recording.windows.stop // 5 - 1].reshape(len(recording.windows), -1)
    counts = _counted(recording)
    model = plain_decoder("ridge").fit(counts[trained], pictures[trained])
    order = generator(jax.random.fold_in(key, 5)).permutation(len(test))
    told, mean = model.predict(counts[test][order]), pictures[trained].mean(axis=0)
    return retrieval(told - mean, pictures[test][order] - mean, among) * among


def _counted(recording: Recording) -> np.ndarray:
    """Of each window the counts in it and in its past."""
    stop, width = recording.windows.stop, recording.window
    total = np.concatenate([np.zeros((1, recording.counts.shape[1])), np.cumsum(recording.counts, axis=0)])
    now, before = total[stop] - total[stop - width], total[stop - width] - total[stop - width - recording.past]
    return np.concatenate([now, before], axis=1)


def _poisson(recording: Recording, trained: np.ndarray, test: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Expected counts in all bins, and log-likelihoods of the test windows: constant rates, rates that follow the population's
    recent count, and a regression on the past of all neurons. Spikes of a bin are sorted, so that no term is owed to their
    order.
    """
    counts = np.asarray(recording.counts, float)
    fitting, testing = recording.bins(trained), recording.bins(test)
    constant = np.broadcast_to(counts[fitting].mean(axis=0), counts.shape)
    past = past_sums(counts, (0, 1, 2, 3, 5, 10))
    together = np.stack([past[:, :4].sum(axis=(1, 2)), past[:, 4:].sum(axis=(1, 2))], axis=1)
    modulated = fit_poisson(together[fitting], counts[fitting], tolerance=0.5)
    flat = past.reshape(len(past), -1)
    glm = fit_poisson(flat[fitting], counts[fitting], ridge=10.0, tolerance=0.5)
    rates = {"mean-rates": constant, "rate-modulated": modulated.rates(together), "glm": glm.rates(flat)}
    return rates, {arm: float(poisson_log_likelihood(counts[testing], rate[testing]).sum()) for arm, rate in rates.items()}


def _samplers(
    recording: Recording, test: np.ndarray, rates: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Windows drawn bin by bin from Poisson rates, which were computed from the true past."""
    at = recording.windows.stop[test][:, None] + np.arange(-recording.window, 0)
    return {arm: rng.poisson(rates[arm][at]).astype(np.int32) for arm in ("mean-rates", "glm")}


def _covariances(windows: np.ndarray) -> np.ndarray:
    """Of the counts of pairs of neurons, over windows."""
    covariance = np.cov(windows.sum(axis=1).astype(float).T)
    return covariance[np.triu_indices(len(covariance), 1)]


def _likeness(made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    rate = np.corrcoef(made.sum(axis=(0, 1)), real.sum(axis=(0, 1)))[0, 1]
    covariance = np.corrcoef(_covariances(made), _covariances(real))[0, 1]
    return {"rate_r": float(np.nan_to_num(rate)), "covariance_r": float(np.nan_to_num(covariance))}


def _few_shot(
    config: Population, recording: Recording, pretrained: NeuroformerNet, fresh: NeuroformerNet, speed: np.ndarray, key
) -> dict[str, dict[str, float]]:
    """Correlation of decoded with true speed on the test windows: trunks tuned on a few labels, or only read by ridge
    regression; and
    plain decoders from counts, in the same window and past, or with half a second of history."""
    trained, test = recording.split
    held = recording.data(test)
    counts = _counted(recording)
    bins = recording.counts.reshape(-1, 5, recording.counts.shape[1]).sum(axis=1)
    longer = history(bins, 10)[recording.windows.stop // 5 - 1]

    def r(told: np.ndarray) -> float:
        return float(np.nan_to_num(np.corrcoef(np.ravel(told), speed[test].ravel())[0, 1]))

    order = generator(jax.random.fold_in(key, 7)).permutation(len(trained))
    found: dict[str, dict[str, float]] = {}
    for share in config.labels:
        chosen = np.sort(trained[order[: max(12, round(share * len(trained)))]])
        some, labels = recording.data(chosen), speed[chosen]
        curve = {
            "frozen": r(decode(fine_tune(pretrained, some, labels, steps=0, key=key, frozen=True), held)),
            "random-trunk": r(decode(fine_tune(fresh, some, labels, steps=0, key=key, frozen=True), held)),
            "ridge": r(plain_decoder("ridge").fit(counts[chosen], labels[:, 0]).predict(counts[test])),
            "ridge-history": r(
                plain_decoder("ridge")
                .fit(longer[chosen].reshape(len(chosen), -1), labels[:, 0])
                .predict(longer[test].reshape(len(test), -1))
            ),
        }
        for arm, value in curve.items():
            found.setdefault(arm, {})[f"speed_r_{100 * share:g}"] = value
        if share == config.few:
            found |= {arm: {**found[arm], "speed_r": value} for arm, value in curve.items()}
            tuning: dict[str, Any] = {
                "steps": config.tuning_steps,
                "rate": config.tuning_rate,
                "batch": config.batch,
                "key": jax.random.fold_in(key, 8),
            }
            for arm, trunk in (("pretrained", pretrained), ("from-scratch", fresh)):
                found[arm] = {"speed_r": r(decode(fine_tune(trunk, some, labels, **tuning), held))}
            gru = fit_gru(longer[chosen], labels, steps=3 * config.tuning_steps, key=key)
            found["gru"] = {"speed_r": r(gru(longer[test]))}
    return found


@stimulus_population.figure
def rasters(runs: Runs):
    """A second of held-out windows, real and written."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=4.4)
    for axis, (name, colour) in zip(axes, (("real", CONTROL_COLOUR), ("written", SYSTEM_COLOUR)), strict=True):
        bins, neurons = np.nonzero(data[name])
        axis.plot(0.01 * bins, neurons, "|", color=colour, ms=4)
        axis.set_xlim(0, 0.01 * len(data[name]))
        label(axis, "time (s, windows with their true past)", "neuron", name, legend=False)
    return fig


@stimulus_population.figure
def covariances(runs: Runs):
    """Covariances of pairs of neurons, real and written."""
    data, arms = runs["system"].arrays, runs["system"].arms or {}
    fig, axis = figure()
    axis.plot(data["covariance_real"], data["covariance_written"], ".", ms=3, color=SYSTEM_COLOUR,
              label=f"pair of neurons, r = {arms['system']['covariance_r']:.2f}")  # fmt: skip
    ends = [float(np.min(data["covariance_real"])), float(np.max(data["covariance_real"]))]
    axis.plot(ends, ends, color=CONTROL_COLOUR, lw=1, label="equal")
    label(axis, "real (spikes² a window)", "written (spikes² a window)")
    return fig


@stimulus_population.figure
def few_shot(runs: Runs):
    """Decoding of speed against the share of labels."""
    arms = runs["system"].arms or {}
    fig, axis = figure()
    said = {"frozen": "pretrained trunk, linear head", "random-trunk": "random trunk, linear head", "ridge": "ridge, same "
    "window",
            "ridge-history": "ridge, 0.5 s of history"}  # fmt: skip
    for colour, (arm, text) in zip((SYSTEM_COLOUR, CONTROL_COLOUR, COLOURS[1], COLOURS[2]), said.items(), strict=True):
        curve = {float(name.rsplit("_", 1)[1]): value for name, value in arms[arm].items() if name.startswith("speed_r_")}
        axis.semilogx(list(curve), list(curve.values()), "o-", color=colour, label=text)
    few = max(min(curve), 5.0)
    for marker, arm in (("*", "pretrained"), ("x", "from-scratch"), ("^", "gru")):
        axis.plot(few, arms[arm]["speed_r"], marker, color="k", label=f"{arm}, all tuned" if arm != "gru" else "GRU, 0.5 s")
    label(axis, "labelled windows (%)", "correlation with speed")
    return fig


@stimulus_population.figure
def inputs(runs: Runs):
    """What each input adds to the likelihood, and what plain models reach."""
    arms = runs["system"].arms or {}
    names = [*SEEN, "contrastive", "shuffled-film", "mean-rates", "rate-modulated", "glm"]
    fig, axis = figure(width=5.2)
    colours = [SYSTEM_COLOUR if name in SEEN else COLOURS[1] if name in ("contrastive", "shuffled-film") else CONTROL_COLOUR
               for name in names]  # fmt: skip
    axis.barh(range(len(names)), [arms[name]["nll"] for name in names], color=colours)
    axis.set_yticks(range(len(names)), names)
    low = min(arms[name]["nll"] for name in names)
    axis.set_xlim(low - 0.2, None)
    label(axis, "minus log-likelihood (nats a spike; axis cut)", "model", legend=False)
    return fig


@dataclass(frozen=True)
class Navigation(Sizes):
    """Speed in virtual reality, from a few labels."""

    source: Literal["generated", "visnav"] = "generated"
    data: str | None = None  # folder of one animal
    neurons: int = 8
    seconds: float = 10.0
    past: int = 5
    block: int = 100
    past_block: int = 700
    share: float = 0.1  # of the training windows that have labels
    tuning_steps: int = 2


@paper.experiment(
    presets={"smoke": Navigation(neurons=6, seconds=8.0, share=1.0, history=0, **SMALL),
             "paper": Navigation(source="visnav", steps=250_000, tuning_steps=5000, **PUBLISHED)},
    claims=[
        Claim("N9", "speed is decoded in virtual reality", kind="paper", where="VisNav, lateral", published="r = 0.95 to 0.97",
              about="pretrained", ablation="from-scratch", null="ridge", grows="tuning_steps",
              checks=[at_least("speed_r", {"paper": 0.9}, of="pretrained")]),
    ],
    cost=5.0,
)  # fmt: skip
def navigation(config: Navigation, key, log: Log) -> Report:
    """The authors' recording: pretrained on spikes and film, tuned on speed, beside the same without pretraining and ridge
    regression."""
    if config.source == "visnav":
        counts, frames, behaviour = read_visnav(config.data)
        running = behaviour["speed"]
    else:
        made = StimulusPopulation(config.neurons, seconds=config.seconds).sample(key)
        counts, frames, running = made.counts, made.frames, made.speed
    recording = Recording(counts, past=config.past, block=config.block, past_block=config.past_block, frames=frames)
    trained, test = recording.split
    speed = running[np.minimum(recording.windows.stop // 5 - 1, len(running) - 1)][:, None]
    fresh = NeuroformerNet(recording.config(**config.layers()), generator(key))
    pretrained = train(fresh, recording.data(trained), steps=config.steps, batch=config.batch, rate=config.rate, key=key,
                       checkpoint=log.checkpoint("training"),
                       report=lambda step, loss: log.progress(0.9 * step / config.steps, loss=loss)).model  # fmt: skip
    chosen = np.sort(generator(key).permutation(trained)[: max(12, round(config.share * len(trained)))])
    some, held, counted = recording.data(chosen), recording.data(test), _counted(recording)
    told = {
        arm: decode(fine_tune(trunk, some, speed[chosen], steps=config.tuning_steps, batch=config.batch, key=key), held).ravel()
        for arm, trunk in (("pretrained", pretrained), ("from-scratch", fresh))
    }
    told["ridge"] = plain_decoder("ridge").fit(counted[chosen], speed[chosen, 0]).predict(counted[test])
    true = speed[test].ravel()
    arms = {arm: {"speed_r": float(np.nan_to_num(np.corrcoef(values, true)[0, 1]))} for arm, values in told.items()}
    return Report(arms=arms, arrays={"true": true, **told})


@navigation.figure
def decoded(runs: Runs):
    """Speed over held-out windows."""
    data = runs["system"].arrays
    fig, axis = figure(width=6.0)
    for name, colour in (("true", "k"), ("pretrained", SYSTEM_COLOUR), ("ridge", CONTROL_COLOUR)):
        axis.plot(0.05 * np.arange(len(data[name]))[:600], data[name][:600], color=colour, lw=1, label=name)
    label(axis, "time in held-out windows (s)", "speed (as recorded)")
    return fig
