"""Tracing the representation geometry of language models from pretraining to post-training, arXiv 2509.23024.

Two numbers of the spectrum of last-token representations, RankMe (effective rank) and alpha-ReQ (decay), are followed over
training. Controls: words without skew, a model with more dimensions than words or fewer, and readings by the wrong formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ortho_group, spearmanr

from broadsheet.errors import MissingDataError
from broadsheet.files import MIB, read_text
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Chain
from broadsheet.language.geometry import GeometryTrace, alpha_req, plot_trace, rankme, spectrum, spectrum_of
from broadsheet.language.models import features, load, read_log_probabilities
from broadsheet.language.stages.tiny_even_words import even_words
from broadsheet.language.tiny_chain import Recipe, tiny_chain
from broadsheet.language.tiny_model import answer_accuracy, answer_loss, bigram_log_probabilities, truth_accuracy
from broadsheet.language.tiny_world import World
from broadsheet.language.tracking import model_features, track
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="representation-geometry",
    arxiv="2509.23024",
    title="Tracing the Representation Geometry of Language Models from Pretraining to Post-training",
    published="2025-09-26",
    authors=7,
    basis="code",
    code="github.com/melodylizx/Tracing-the-representation-geometry-of-language-models (MIT)",
    summary="While the loss of a language model falls smoothly, the spectrum of its representations collapses, expands, and "
    "slowly compresses. Two spectral numbers, effective rank and power-law decay, trace the three phases of pretraining and "
    "what each kind of post-training does to them.",
    topics=("representation geometry", "training dynamics", "spectra"),
    parts=("broadsheet.language.geometry", "broadsheet.language.tracking.GeometryCallback", "broadsheet.language.tiny_chain"),
    requires=("language",),
    verbs=("broadsheet language geometry MODEL --texts TEXTS.txt",),
    notes=(
        "Quick runs train a Llama of 219 456 parameters on a synthetic corpus; the paper's are OLMo and Pythia up to 12B, "
        "whose checkpoints the paper preset loads by name, with texts from --data.",
        "On even words the rank falls too, later and for good: what is left to learn is one and the same for every context.",
        "Truth is taught with labels that lean for the first 600 steps; the third of it that falls into the expansion is what "
        "the leaning gives away.",
        "Where the agreement with n-grams is largest is no reading here, because it ends on a plateau: what is judged is the "
        "share that is learned by the end of the expansion.",
        "The signs that post-training gives RankMe differ from seed to seed in the tiny model: no claim is made of them there.",
    ),
)


@dataclass(frozen=True)
class Known:
    """Spectra whose readings are known."""

    d: int = 512
    samples: int = 400
    width: int = 64


@paper.experiment(
    presets={"smoke": Known(d=128, samples=80, width=24), "quick": Known(), "paper": Known(d=4096, samples=15_000, width=1024)},
    claims=[
        Claim("R1", "the decay of a power law is its exponent", kind="check", ablation="singular",
              reference="eigenvalues i^-a, a = 0.5, 1, 1.5; control: singular values in place of eigenvalues",
              checks=[at_most("alpha_error", 1e-9)]),
        Claim("R2", "RankMe of a flat spectrum is its size, but for epsilon", kind="check", ablation="no-epsilon",
              reference="64 (1 + 64 eps (ln 64 - 1)) for 64 equal values; control: epsilon left out",
              checks=[at_most("flat_error", 1e-4)]),
        Claim("R9", "rotation, shift and scale change nothing", kind="check", ablation="uncentred",
              reference="the features before; control: without centring", checks=[at_most("invariance_error", 1e-8)]),
    ],
    precision="float64",
    cost=1.0,
)  # fmt: skip
def known_spectra(config: Known, key, log: Log) -> Report:
    """Both readings where the answer is known."""
    rng = generator(key)
    ranks = np.arange(1.0, config.d + 1)
    laws = {a: ranks**-a for a in (0.5, 1.0, 1.5)}
    flat = np.ones(64)
    exact = 64 * (1 + 64e-7 * (np.log(64) - 1))
    x = rng.standard_normal((config.samples, config.width)) * np.arange(1, config.width + 1) ** -0.7
    moved = 3.0 * x @ ortho_group.rvs(config.width, random_state=rng) + rng.standard_normal(config.width)

    def change(**options: Any) -> float:
        before, after = (spectrum(part, **options) for part in (x, moved))
        return max(
            abs(rankme(after) / rankme(before) - 1), abs(alpha_req(after)[0] / alpha_req(before)[0] - 1)
        )  # fmt: skip

    return Report(
        arms={
            "system": {
                "alpha_error": max(abs(alpha_req(law)[0] - a) for a, law in laws.items()),
                "flat_error": abs(rankme(flat) - exact),
                "invariance_error": change(),
            },
            "singular": {"alpha_error": max(abs(alpha_req(np.sqrt(law))[0] - a) for a, law in laws.items())},
            "no-epsilon": {"flat_error": abs(rankme(flat, eps=0.0) - exact)},
            "uncentred": {"invariance_error": change(center=False)},
        }
    )


@dataclass(frozen=True)
class Toy:
    """Free features under a linear read-out: cross-entropy, gradient descent, words by Zipf's law."""

    skew: float = 1.0  # exponent of Zipf's law
    width: int = 8
    words: int = 64
    contexts: int = 256
    rate: float = 0.5
    steps: int = 800
    wide: int = 16  # width of the model with more dimensions than its 8 words


@paper.experiment(
    presets={"smoke": Toy(steps=120), "quick": Toy(), "paper": Toy(steps=12_800)},
    variants={"uniform": {"skew": 0.0}},
    claims=[
        Claim("R5", "skewed words make representations collapse", kind="paper", where="theory: gradient descent under skew",
              ablation="uniform", null=NONE_YET, grows="steps",
              checks=[at_most("collapse", 0.70, over="mean"), at_least("collapse", 0.85, of="uniform", over="mean")], seeds=8),
        Claim("R6", "and compress in the end", kind="paper", where="theory: gradient descent under skew",
              ablation="uniform", null=NONE_YET, grows="steps",
              checks=[at_most("compression", 0.99), at_least("compression", 0.999, of="uniform")]),
        Claim("R7", "with more dimensions than words the rank stays below their number", kind="paper",
              where="theory: bottleneck", ablation=("narrow", "uniform"), null=NONE_YET, grows="steps",
              checks=[at_most("rank_after_collapse", 7.0, over="mean")], seeds=8),
    ],
    cost=5.0,
)  # fmt: skip
def toy(config: Toy, key, log: Log) -> Report:
    """Effective rank of free features under gradient descent, with skewed words and with even ones."""
    ranks = _toy_ranks(key, config.skew, config.width, config.words, config)
    late = ranks[50:]  # from step 100: a look every 2 steps
    wide = _toy_ranks(key, config.skew, config.wide, 8, config, hard=True)
    return Report(
        arms={
            "system" if config.skew else "": {
                "collapse": ranks[:201].min() / ranks[0],
                "compression": late[-1] / late[::25].max(),
                "rank_after_collapse": wide[50:].max(),
            },
            **({"narrow": {"rank_after_collapse": late.max()}} if config.skew else {}),
        },
        arrays={"rankme": ranks, "wide": wide},
    )


def _toy_ranks(key, skew: float, width: int, words: int, config: Toy, *, hard: bool = False) -> np.ndarray:
    """RankMe of the features every 2 steps."""
    return np.array([rankme(spectrum(features)) for features in _toy_features(key, skew, width, words, config, hard=hard)])


def _toy_features(key, skew: float, width: int, words: int, config: Toy, *, hard: bool = False) -> np.ndarray:
    """Free features (looks, contexts, width), every 2 steps of gradient descent on their cross-entropy with soft targets."""
    f_key, w_key, y_key = jax.random.split(key, 3)
    law = jnp.arange(1.0, words + 1) ** -skew
    law = law / law.sum()
    labels = jax.nn.one_hot(jax.random.choice(y_key, words, (config.contexts,), p=law), words)
    target = labels if hard else 0.5 * labels + 0.5 * law
    start = (0.05 * jax.random.normal(f_key, (config.contexts, width)), 0.05 * jax.random.normal(w_key, (words, width)))

    def loss(weights):
        contexts, read_out = weights
        return -jnp.sum(target * jax.nn.log_softmax(contexts @ read_out.T)) / 16

    def step(weights, _):
        moved = jax.tree.map(lambda w, g: w - config.rate * g, weights, jax.grad(loss)(weights))
        return moved, None

    def look(weights, _):
        return jax.lax.scan(step, weights, None, length=2)[0], weights[0]

    return np.asarray(jax.jit(lambda start: jax.lax.scan(look, start, None, length=config.steps // 2 + 1)[1])(start))


@toy.figure
def skew(runs: Runs):
    """Effective rank over training, with skewed words and with even ones, and with more dimensions than words."""
    fig, axis = figure()
    steps = 2 * np.arange(len(runs["system"].arrays["rankme"])) + 1
    axis.semilogx(steps, runs["uniform"].arrays["rankme"], color=CONTROL_COLOUR, label="even words")
    axis.semilogx(steps, runs["system"].arrays["rankme"], color=SYSTEM_COLOUR, label="Zipf's law")
    axis.semilogx(steps, runs["system"].arrays["wide"], color=COLOURS[1], label="16 dimensions, 8 words")
    label(axis, "step (+ 1)", "RankMe")
    return fig


@dataclass(frozen=True)
class Grid:
    """The free features for several skews and widths."""

    skews: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    widths: tuple[int, ...] = (4, 8, 16, 64)
    steps: int = 800


@paper.experiment(
    presets={"smoke": Grid(skews=(0.0, 1.0), widths=(4, 8), steps=20), "quick": Grid(), "paper": Grid(steps=12_800)},
    cost=10.0,
)
def toy_grid(config: Grid, key, log: Log) -> Report:
    """Effective rank and decay of free features under gradient descent, by the skew of the words and the width."""
    cells = [(skew, width) for skew in config.skews for width in config.widths]
    ranks, alphas = [], []
    for k, (skew, width) in enumerate(cells):
        spectra = [spectrum(x) for x in _toy_features(key, skew, width, Toy().words, Toy(steps=config.steps))[::5]]
        ranks.append([rankme(values) for values in spectra])
        alphas.append([alpha_req(values)[0] if width > 4 else np.nan for values in spectra])  # a decay needs three ranks
        log.progress((k + 1) / len(cells))
    shape = (len(config.skews), len(config.widths), -1)
    rank = np.reshape(ranks, shape)
    collapse = rank.min(axis=2) / rank[..., 0]
    return Report(
        metrics={
            f"collapse_s{s:g}_d{d}": collapse[i, j] for i, s in enumerate(config.skews) for j, d in enumerate(config.widths)
        },
        arrays={"rankme": rank, "alpha": np.reshape(alphas, shape), "skews": config.skews, "widths": config.widths},
    )


@toy_grid.figure
def skews_and_widths(runs: Runs):
    """Effective rank (above) and decay (below) over training: a column a width, a line a skew; 64 words."""
    data = runs["system"].arrays
    widths = [int(width) for width in data["widths"]]
    fig, axes = figure(len(widths), 2, width=3.2, height=2.6)
    steps = 10 * np.arange(data["rankme"].shape[2]) + 1
    for j, width in enumerate(widths):
        for row, (values, name) in enumerate(((data["rankme"], "RankMe"), (data["alpha"], "decay exponent α"))):
            for i, skew in enumerate(data["skews"]):
                axes[row, j].semilogx(steps, values[i, j], color=COLOURS[i] if skew else CONTROL_COLOUR, label=f"skew {skew:g}")
            label(axes[row, j], "step (+ 1)", name, title=f"width {width}" if row == 0 else "", legend=row == 0 and j == 0)
    return fig


@dataclass(frozen=True)
class Pretraining:
    """The tiny model over its pretraining."""

    steps: int = 1500
    texts: int = 400
    filler: int = 100


@paper.experiment(
    presets={"smoke": Pretraining(steps=10, texts=40, filler=4), "quick": Pretraining(), "paper": Pretraining(texts=4000)},
    claims=[
        Claim("R3", "representations collapse in the warm-up", kind="paper", where="abstract (phases)",
              ablation="even-words", null=NONE_YET, grows="steps",
              checks=[at_most("collapse", 0.6), at_least("alpha_rise", 1.6)]),
        Claim("R4", "and then expand", kind="paper", where="abstract (phases)", ablation="even-words", null=NONE_YET,
              grows="steps",
              checks=[at_least("expansion", 1.35), at_least("alpha_fall", 0.25)]),
        Claim("R8", "the loss falls all the while and does not show it", kind="paper", where="introduction",
              ablation="even-words", null=NONE_YET, grows="steps",
              checks=[at_most("loss_rises", 0), at_least("reversal", 1.1)]),
        Claim("R10", "n-grams are memorised while the representation expands, truth is learned after", kind="paper",
              where="memorisation", ablation="truth", null=NONE_YET, grows="steps",
              checks=[at_least("learned_in_expansion", 0.7),
                                            at_most("learned_in_expansion", 0.5, of="truth")]),
    ],
    cost=60.0,
)  # fmt: skip
def pretraining(config: Pretraining, key, log: Log) -> Report:
    """Loss, effective rank and decay of a tiny language model over its pretraining, and the same on even words."""
    seed, recipe, world = seed_of(key), _recipe(config.steps), World(0)
    chain = tiny_chain(seed, recipe=recipe, report=lambda fraction, metrics: log.progress(0.7 * fraction, **metrics))
    even = tiny_chain(seed, recipe=recipe, skewed=False)
    probe = world.probe(config.texts).tolist()
    rng = np.random.default_rng(98)
    filler = np.array([tiny.encode(world.filler(rng)) for _ in range(config.filler)])
    law = bigram_log_probabilities(world, filler).ravel()
    trace = _trace(chain, probe)
    log.progress(0.85)
    control = _trace(even, even_words(np.random.default_rng(99), config.texts, 40).tolist())
    losses = np.array(chain.record("base")["losses"])
    memory, truth = [], []
    for step in chain.steps("base"):
        model = chain.model("base", step)
        memory.append(float(spearmanr(read_log_probabilities(model, filler).ravel(), law).statistic))
        truth.append(truth_accuracy(model, world))
    return Report(
        arms={
            "system": _readings(trace, losses) | {"learned_in_expansion": _in_expansion(trace["rankme"], memory)},
            "even-words": _readings(control, np.array(even.record("base")["losses"])),
            "truth": {"learned_in_expansion": _in_expansion(trace["rankme"], truth)},
        },
        arrays={
            "steps": trace.steps, "rankme": trace["rankme"], "alpha": trace["alpha"], "loss": losses,
            "memory": memory, "truth": truth, "even_steps": control.steps, "even_rankme": control["rankme"],
            "spectra": np.array(trace.spectra),
        },
    )  # fmt: skip


def _recipe(steps: int) -> Recipe:
    """The full recipe, or a short one of the same stages."""
    return Recipe() if steps == Recipe().pretrain else Recipe(steps, 2, 2, 2)


def _trace(chain: Chain, rows: list[list[int]]) -> GeometryTrace:
    trace = GeometryTrace()
    for step in chain.steps("base"):
        trace.add(step, spectrum_of(features(chain.model("base", step), rows, batch=100)))
    return trace


def _in_expansion(rank: np.ndarray, score: list[float]) -> float:
    """Share of a score's rise that is made by the time the rank, after its minimum, has reached 95 % of its largest value.

    Where either is largest says little: both end on a plateau.
    """
    low, values = int(np.argmin(rank)), np.asarray(score)
    high = low + int(np.argmax(rank[low:] >= 0.95 * rank[low:].max()))
    rise = values.max() - values[low]
    return float((values[high] - values[low]) / rise) if rise > 0 else np.nan


def _readings(trace: GeometryTrace, losses: np.ndarray) -> dict[str, float]:
    """Collapse until step 50, expansion after the minimum, and the loss meanwhile."""
    rank, alpha, steps = trace["rankme"], trace["alpha"], np.array(trace.steps)
    at = int(np.argmin(np.abs(steps - 50)))
    low = int(np.argmin(rank))
    early = steps <= 150
    first = losses[: 50 * (len(losses[:150]) // 50)].reshape(-1, 50).mean(axis=1) if len(losses) >= 50 else losses
    return {
        "collapse": rank[at] / rank[0],
        "alpha_rise": alpha[at] / alpha[0],
        "expansion": rank[low:].max() / rank[low],
        "alpha_fall": 1 - alpha[int(np.argmax(alpha)) :].min() / alpha.max(),
        "loss_rises": int(np.sum(np.diff(first) > 0)),
        "reversal": rank[early][-1] / rank[early].min(),
    }


@pretraining.figure
def three_phases(runs: Runs):
    """Loss, effective rank and decay over pretraining, and spectra on the way."""
    data = runs["system"].arrays
    fig, axes = figure(4)
    axes[0].semilogx(np.arange(1, len(data["loss"]) + 1), data["loss"], color=SYSTEM_COLOUR, lw=0.8)
    label(axes[0], "step", "loss (nats a token)")
    axes[1].semilogx(np.array(data["even_steps"]) + 1, data["even_rankme"], color=CONTROL_COLOUR, label="even words")
    axes[1].semilogx(np.array(data["steps"]) + 1, data["rankme"], "o-", ms=3, color=SYSTEM_COLOUR, label="tiny corpus")
    label(axes[1], "step (+ 1)", "RankMe")
    axes[2].semilogx(np.array(data["steps"]) + 1, data["alpha"], "o-", ms=3, color=SYSTEM_COLOUR, label="tiny corpus")
    label(axes[2], "step (+ 1)", "decay exponent α")
    for k in sorted({0, len(data["steps"]) // 5, len(data["steps"]) // 2, len(data["steps"]) - 1}):
        values = data["spectra"][k]
        axes[3].loglog(np.arange(1, len(values) + 1), values / values.sum(), label=f"step {data['steps'][k]}")
    label(axes[3], "rank", "share of variance")
    return fig


@pretraining.figure
def memorisation(runs: Runs):
    """Agreement with the bigram law of the filler, and labelling truth, beside the effective rank."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.plot(data["steps"], data["memory"], "o-", ms=3, color=SYSTEM_COLOUR, label="bigrams (rank correlation)")
    left.plot(data["steps"], data["truth"], "s-", ms=3, color=CONTROL_COLOUR, label="truth (share right)")
    label(left, "step", "score")
    right.plot(data["steps"], data["rankme"], "o-", ms=3, color=SYSTEM_COLOUR, label="RankMe")
    label(right, "step", "RankMe")
    return fig


@dataclass(frozen=True)
class PostTraining:
    """The tiny model's stages."""

    steps: int = 1500
    texts: int = 400
    samples: int = 8


@paper.experiment(
    presets={"smoke": PostTraining(steps=10, texts=40, samples=2), "quick": PostTraining(), "paper": PostTraining(texts=4000)},
    cost=8.0,
)
def post_training(config: PostTraining, key, log: Log) -> Report:
    """Effective rank, losses and answers of base, SFT, DPO and reinforcement learning."""
    chain = tiny_chain(
        seed_of(key), recipe=_recipe(config.steps), report=lambda fraction, metrics: log.progress(0.8 * fraction)
    )
    world = World(0)
    probe = world.probe(config.texts)
    rng = np.random.default_rng(97)
    chats = [tiny.chat(*tiny.request_and_help(rng, harmful=False)) for _ in range(64)]
    arms = {}
    for stage in chain.names:
        model = chain.model(stage)
        values = spectrum_of(features(model, probe.tolist(), batch=100))
        arms["system" if stage == "base" else stage] = {
            "rankme": rankme(values),
            "alpha": alpha_req(values)[0],
            "chat_loss": answer_loss(model, chats),
            "corpus_loss": -read_log_probabilities(model, probe).mean(),
            "answers": answer_accuracy(model, world),
            "answers_in_many": answer_accuracy(model, world, samples=config.samples),
        }
    return Report(arms=arms)


@post_training.figure
def stages(runs: Runs):
    """Effective rank, losses and right answers by stage."""
    rows = runs["system"].arms
    names = list(rows)
    fig, (left, right, last) = figure(3)
    shown = ["base" if name == "system" else name for name in names]
    for metric, style, title in (("answers", "o-", "greedy"), ("answers_in_many", "s--", "in one of several samples")):
        last.plot(shown, [rows[name][metric] for name in names], style, color=SYSTEM_COLOUR, label=title)
    label(last, "stage", "questions answered right (share)")
    left.bar(shown, [rows[name]["rankme"] for name in names], color=SYSTEM_COLOUR)
    label(left, "stage", "RankMe on the corpus")
    right.plot(shown, [rows[name]["chat_loss"] for name in names], "o-", color=SYSTEM_COLOUR, label="answers (in distribution)")
    right.plot(shown, [rows[name]["corpus_loss"] for name in names], "s-", color=CONTROL_COLOUR, label="corpus (out of it)")
    label(right, "stage", "loss (nats a token)")
    return fig


PYTHIA = (0, 8, 16, 32, 64, 128, 256, 512, *range(1000, 10_000, 1000), *range(10_000, 144_000, 10_000), 143_000)


@dataclass(frozen=True)
class Suite:
    """Checkpoints of a model on the Hub, or in folders; texts, one a line, come from --data."""

    model: str = "EleutherAI/pythia-160m"
    revisions: tuple[str, ...] = tuple(f"step{step}" for step in PYTHIA)
    data: str | None = None
    texts: int = 10_000
    max_length: int = 128


@paper.experiment(
    presets={"smoke": Suite(model="", revisions=(), texts=40), "paper": Suite()},
    claims=[
        Claim("R11", "Pythia collapses, expands and compresses", kind="paper", where="abstract (phases)", null="one-model",
              no_ablation="the models are published ones: nothing of their training can be switched off",
              checks=[at_most("collapse", {"paper": 0.6}), at_least("expansion", {"paper": 1.35}),
                      at_most("compression", {"paper": 0.99})], seeds=1),
    ],
    data="data",
    cost=3600.0,
)  # fmt: skip
def checkpoint_suite(config: Suite, key, log: Log) -> Report:
    """RankMe and decay over the checkpoints of a real model; the control: one checkpoint on random halves of the texts."""
    checkpoints, texts = _suite(config, seed_of(key))
    last = max(step for step, _, _ in checkpoints)
    trace = track(
        checkpoints, texts, max_length=config.max_length, report=lambda step, found: log.progress(step / last, **found)
    )
    states = np.concatenate(list(model_features(*load(*checkpoints[-1][1:]), texts, max_length=config.max_length)))
    halves = [rng.permutation(len(states))[: len(states) // 2] for rng in [generator(key)] for _ in checkpoints]
    noise = np.array([rankme(spectrum(states[half])) for half in halves])
    return Report(
        arms={"system": _three_phases(trace["rankme"]), "one-model": _three_phases(noise)},
        arrays={"steps": trace.steps, "rankme": trace["rankme"], "alpha": trace["alpha"]},
    )


def _three_phases(rank: np.ndarray) -> dict[str, float]:
    """Collapse to the minimum within the first half of the checkpoints, expansion after it, and compression at the end."""
    low = int(np.argmin(rank[: 1 + len(rank) // 2]))
    return {
        "collapse": rank[low] / rank[0],
        "expansion": rank[low:].max() / rank[low],
        "compression": rank[-1] / rank[low:].max(),
    }


def _suite(config: Suite, seed: int) -> tuple[list[tuple[int, str, str | None]], list[str]]:
    """(step, name, revision) of each checkpoint, and the texts."""
    if not config.model:
        chain = tiny_chain(seed, recipe=Recipe(10, 2, 2, 2))
        rng = np.random.default_rng(0)
        folders: list[tuple[int, str, str | None]] = [
            (step, str(chain.folder("base", step)), None) for step in chain.steps("base")
        ]
        return folders, [World(0).filler(rng) for _ in range(config.texts)]
    if config.data is None:
        raise MissingDataError(
            "Probe texts are needed: pass --data FILE with one text a line (the paper: 15 000 of FineWeb sample-10BT)."
        )
    texts = _texts(config.data, config.texts)
    steps = [int("".join(c for c in name if c.isdigit()) or k) for k, name in enumerate(config.revisions)]
    return [(step, config.model, name) for step, name in zip(steps, config.revisions, strict=True)], texts


def _texts(path: str, count: int) -> list[str]:
    """The first texts of a file, one a line."""
    return [line for line in read_text(path, 1024 * MIB).splitlines() if line.strip()][:count]


@checkpoint_suite.figure
def over_checkpoints(runs: Runs):
    """RankMe and decay by checkpoint, with the phases."""
    data = runs["system"].arrays
    return plot_trace(data["steps"], data["rankme"], data["alpha"])


@dataclass(frozen=True)
class Stages:
    """A base model and what was made of it."""

    base: str = "allenai/Llama-3.1-Tulu-3-8B-SFT"
    models: tuple[str, ...] = ("allenai/Llama-3.1-Tulu-3-8B-DPO", "allenai/Llama-3.1-Tulu-3.1-8B")
    start: str = "meta-llama/Llama-3.1-8B"
    data: str | None = None
    texts: int = 10_000
    max_length: int = 512


@paper.experiment(
    presets={"smoke": Stages(base="", models=(), start="", texts=40), "paper": Stages()},
    claims=[
        Claim("R12", "SFT and DPO raise RankMe, reinforcement with verifiable rewards lowers it", kind="paper",
              where="post-training", null="two-halves",
              no_ablation="the models are published ones: nothing of their training can be switched off", seeds=1, checks=[
                  at_least("sft_gain", {"paper": 0.0}), at_least("dpo_gain", {"paper": 0.0}),
                  at_most("rl_gain", {"paper": 0.0})]),
    ],
    data="data",
    cost=3600.0,
)  # fmt: skip
def post_training_suite(config: Stages, key, log: Log) -> Report:
    """RankMe of published stages; the control goes from one half of the texts to the other and back, under one model."""
    if config.start:
        names = [config.start, config.base, *config.models]
        if config.data is None:
            raise MissingDataError("Probe texts are needed: pass --data FILE with one text a line.")
        texts = _texts(config.data, config.texts)
    else:
        chain = tiny_chain(seed_of(key), recipe=Recipe(10, 2, 2, 2))
        names = [str(chain.folder(stage)) for stage in chain.names]
        texts = [World(0).filler(np.random.default_rng(k)) for k in range(config.texts)]
    ranks = []
    halves: list[float] = []
    for name in names:
        model, words = load(name)
        states = np.concatenate(list(model_features(model, words, texts, max_length=config.max_length)))
        ranks.append(rankme(spectrum(states)))
        if not halves:
            halves = [rankme(spectrum(part)) for part in (states[::2], states[1::2])]
        log.progress(len(ranks) / len(names))
    sft, dpo, rl = np.diff(np.log(ranks))
    noise = float(np.log(halves[1] / halves[0]))
    return Report(
        arms={
            "system": {"sft_gain": sft, "dpo_gain": dpo, "rl_gain": rl},
            "two-halves": {"sft_gain": noise, "dpo_gain": -noise, "rl_gain": noise},
        }
    )
