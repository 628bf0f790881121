"""Tracing the representation geometry of language models from pretraining to post-training, arXiv 2509.23024.

Two numbers of the spectrum of last-token representations, RankMe (effective rank) and alpha-ReQ (decay), are followed over
training. Controls: words without skew, words without order, vectors of words without context, a model without a bottleneck,
another loss, a read-out that does not learn, and readings by the wrong formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ortho_group, spearmanr

from broadsheet.errors import MissingDataError
from broadsheet.files import MIB, read_text
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Chain, Link
from broadsheet.language.free_features import Descent, FreeFeatures, descend, start
from broadsheet.language.geometry import alpha_req, plot_trace, rankme, spectrum
from broadsheet.language.models import features, load, read_log_probabilities
from broadsheet.language.stages.tiny_control_words import KINDS, control_batches
from broadsheet.language.text_resampling import log_interval, rank_and_decay, resampled
from broadsheet.language.tiny_chain import Recipe, links, tiny_chain
from broadsheet.language.tiny_model import (
    answer_accuracy,
    answer_loss,
    bigram_log_probabilities,
    fact_accuracy,
)
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
        "On shuffled words the rank falls further than on documents, to 2 of 64 dimensions by step 300 (seed 0), and does not "
        "rise: what is left to learn is one and the same for every context. Their decay stays what it was meanwhile.",
        "A model that sees one word before the next comes near to the phases: on four development seeds its rank falls to 0.70 "
        "to 0.75 and rises by factors of 1.50 to 1.60, and its decay falls by 0.18 to 0.249, where an expansion asks for 0.25.",
        "In the toy of free features the collapse asks for a small start (features of deviation 0.5 keep 0.91 of their rank), "
        "and the compression for targets that mix words: with one word a context nothing is compressed (1.00, 4 seeds). In 64 "
        "dimensions even words collapse to 0.70 and expand too.",
        "With 8 words the rank stays below their number in 16 dimensions (6.6 to 7.1 on 8 seeds), and not in 32 (8.2 to 8.6), "
        "where what the start left in the other dimensions still counts.",
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
    steps: int = 800
    wide: int = 64  # width without a bottleneck: as many dimensions as words


@paper.experiment(
    presets={"smoke": Toy(steps=120), "quick": Toy(), "paper": Toy(steps=12_800)},
    claims=[
        Claim("R5", "skewed words make representations collapse", kind="paper", where="theory: gradient descent under skew",
              ablation="uniform", null=("targets", "squared-error"), grows="steps",
              checks=[at_most("collapse", 0.70, over="mean"), at_least("collapse", 0.85, of="uniform", over="mean")], seeds=8),
        Claim("R6", "and what has expanded compresses in the end", kind="paper", where="theory: gradient descent under skew",
              ablation="uniform", null=("frozen-read-out", "squared-error"), grows="steps",
              answers_to={"uniform": "its rank ends where it is largest, whatever the seed: nothing is compressed"},
              checks=[at_least("expansion", 1.35, over="mean"), at_most("compression", 0.99, over="mean"),
                      at_least("compression", 0.999, of="uniform", over="mean")], seeds=8),
        Claim("R7", "all three phases need a bottleneck: fewer dimensions than words", kind="paper",
              where="abstract (d << |V|)", ablation=("no-bottleneck", "uniform"), null=("frozen-read-out", "squared-error"),
              grows="steps",
              answers_to={"no-bottleneck": "its rank ends where it is largest, whatever the seed: nothing is compressed",
                          "uniform": "its rank ends where it is largest, whatever the seed: nothing is compressed"},
              checks=[at_most("collapse", 0.70, over="mean"), at_least("expansion", 1.35, over="mean"),
                      at_most("compression", 0.99, over="mean")], seeds=8),
    ],
    cost=5.0,
)  # fmt: skip
def toy(config: Toy, key, log: Log) -> Report:
    """Effective rank of free features under gradient descent: with skewed words and even ones, in 8 dimensions and in 64.

    Two models learn the same targets without what the theory asks for: from a fixed random read-out, as long as the learned
    one, and by squared error. `targets` takes no step: the features that a random read-out would hand the targets.
    """
    narrow = FreeFeatures(skew=config.skew, width=config.width, words=config.words, steps=config.steps)
    begin = start(key, narrow)
    learned = descend(begin, narrow)
    even = replace(narrow, skew=0.0)
    wide = replace(narrow, width=config.wide)
    longer = np.linalg.norm(learned.read_out) / np.linalg.norm(begin.read_out)
    fixed = begin._replace(read_out=begin.read_out * longer)
    ranks = {
        "system": _ranks(learned),
        "uniform": _ranks(descend(start(key, even), even)),
        "no-bottleneck": _ranks(descend(start(key, wide), wide)),
        "frozen-read-out": _ranks(descend(fixed, narrow, read_out_learns=False)),
        "squared-error": _ranks(descend(begin, narrow, loss="squared-error")),
    }
    few = {}
    for width in (16, 32):
        sizes = FreeFeatures(skew=config.skew, width=width, words=8, soft=0.0, steps=config.steps)
        few[width] = _ranks(descend(start(key, sizes), sizes))
    handed = rankme(spectrum(np.asarray(begin.targets @ begin.read_out)))
    return Report(
        arms={arm: _toy_phases(each) for arm, each in ranks.items()}
        | {"targets": {"collapse": handed / ranks["system"][0]}}
        | {f"eight-words-d{width}": {"rank_after_collapse": each[LATE:].max()} for width, each in few.items()},
        arrays={arm.replace("-", "_"): each for arm, each in ranks.items()} | {f"eight_words_d{d}": r for d, r in few.items()},
    )


LATE = 50
"""From step 100 on: a look every 2 steps."""


def _ranks(descent: Descent) -> np.ndarray:
    """RankMe of the features every 2 steps."""
    return np.array([rankme(spectrum(features)) for features in descent.features])


def _toy_phases(ranks: np.ndarray) -> dict[str, float]:
    """Collapse until step 400, expansion after the minimum, and compression: the end over the largest after the minimum."""
    low = int(np.argmin(ranks))
    return {
        "collapse": ranks[:201].min() / ranks[0],
        "expansion": ranks[low:].max() / ranks[low],
        "compression": ranks[-1] / ranks[low:].max(),
    }


@toy.figure
def skew(runs: Runs):
    """Effective rank over training: the system and its controls, and with more dimensions than words."""
    fig, (left, middle, right) = figure(3)
    data = runs["system"].arrays
    steps = 2 * np.arange(len(data["system"])) + 1
    for axis, arms in (
        (left, {"uniform": (CONTROL_COLOUR, "even words"), "system": (SYSTEM_COLOUR, "Zipf's law")}),
        (middle, {"no_bottleneck": (CONTROL_COLOUR, "64 dimensions"), "frozen_read_out": (COLOURS[1], "read-out fixed"),
                  "squared_error": (COLOURS[2], "squared error"), "system": (SYSTEM_COLOUR, "8 dimensions, cross-entropy")}),
        (right, {"eight_words_d32": (COLOURS[3], "8 words, 32 dimensions"),
                 "eight_words_d16": (COLOURS[1], "8 words, 16 dimensions")}),
    ):  # fmt: skip
        for arm, (colour, text) in arms.items():
            values = data[arm] / data[arm][0] if axis is middle else data[arm]
            axis.semilogx(steps, values, color=colour, label=text)
        label(axis, "step (+ 1)", "RankMe, over that at the start" if axis is middle else "RankMe")
    right.axhline(7, color=CONTROL_COLOUR, lw=0.8, ls=":", label="words less one")
    right.legend(frameon=False, fontsize="small")
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
        sizes = FreeFeatures(skew=skew, width=width, steps=config.steps)
        spectra = [spectrum(x) for x in descend(start(key, sizes), sizes).features[::5]]
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
    draws: int = 40  # of texts, for intervals


@paper.experiment(
    presets={"smoke": Pretraining(steps=10, texts=100, filler=4, draws=3), "quick": Pretraining(),
             "paper": Pretraining(texts=4000)},
    claims=[
        Claim("R3", "representations collapse in the warm-up", kind="paper", where="abstract (phases)",
              ablation="even-words", null=("shuffled-words", "paired-words", "word-vectors"), grows="steps",
              checks=[at_most("collapse", 0.6), at_least("alpha_rise", 1.6)]),
        Claim("R4", "and then expand", kind="paper", where="abstract (phases)", ablation="even-words",
              null=("shuffled-words", "paired-words", "word-vectors"), grows="steps",
              answers_to={"shuffled-words": "its rank falls and falls, whatever the seed: nothing expands"},
              reason="At this length of training. After four times the steps, on one seed, a model that sees one word before "
              "the next meets it too: 1.59 and 0.34.",
              checks=[at_least("expansion", 1.35), at_least("alpha_fall", 0.25)]),
        Claim("R8", "the loss falls all the while and does not show it", kind="paper", where="introduction",
              ablation="even-words", null=("shuffled-words", "paired-words", "word-vectors"), grows="steps",
              answers_to={"shuffled-words": "its rank falls and falls, whatever the seed: nothing turns back"},
              reason="a rank that turns back by a tenth beside a falling loss is no mark of the phases: on four development "
              "seeds it rises by factors of 1.13 to 1.14 on even words, which do not collapse, of 1.11 to 1.14 in vectors of "
              "words, of 1.41 to 1.54 in a model that sees one word before the next, and of 1.71 to 1.85 on documents",
              checks=[at_most("loss_rises", 0), at_least("reversal", 1.1)]),
        Claim("R10", "n-grams are memorised while the representation expands, facts are learned after", kind="paper",
              where="memorisation", null="loss", grows="steps",
              no_ablation="the expansion cannot be switched off while the same words are learned",
              reason="on four development seeds the agreement with n-grams is largest 150 to 900 steps after the rank is, on a "
              "plateau; of the facts 0.53 to 0.65 are learned by the end of the expansion too, and no fewer without leaning "
              "lessons (0.61 and 0.78 by step 300, two seeds); and the loss makes 0.96 to 0.97 of what is left of its fall by "
              "then, more than the n-grams do of their rise (0.82 to 0.91)",
              checks=[at_most("peak_lag", 0, over="count", count=2), at_least("learned_in_expansion", 0.7),
                      at_most("learned_in_expansion", 0.5, of="facts")]),
    ],
    cost=150.0,
)  # fmt: skip
def pretraining(config: Pretraining, key, log: Log) -> Report:
    """Loss, effective rank and decay of a tiny language model over its pretraining, and of the same on words without a law.

    The phases are read in the first fifth of training, for which the controls are trained too, in the same way.
    Those of `paired-words` see one word of a document before the next. `word-vectors` are the model's own, of each text's
    last word: what is read without any context.
    """
    seed, world, until = seed_of(key), World(0), max(1, config.steps // 5)
    base = Chain(links(_recipe(config.steps))[:1], seed=seed, attention="eager")
    base.build(lambda fraction, metrics: log.progress(0.6 * fraction, **metrics))
    probe, rng = world.probe(config.texts), np.random.default_rng(98)
    filler = np.array([tiny.encode(world.filler(rng)) for _ in range(config.filler)])
    law = bigram_log_probabilities(world, filler).ravel()
    scores: dict[str, list[float]] = {"system": [], "facts": []}
    vectors = []

    def look(model: Any) -> None:
        vectors.append(np.asarray(model.get_input_embeddings().weight.detach())[probe[:, -1]])
        scores["system"].append(float(spearmanr(read_log_probabilities(model, filler).ravel(), law).statistic))
        scores["facts"].append(fact_accuracy(model, world))

    seen = _look(base, probe, probe[:100], look)
    scores["loss"] = [-loss for loss in seen.losses]
    looks = {"system": seen, "word-vectors": seen._replace(states=np.array(vectors))}
    for k, kind in enumerate(KINDS):
        settings = {"kind": kind, "steps": until, "cosine": config.steps}
        control = Chain([Link("base", "tiny_control_words", settings)], seed=seed, attention="eager").build()
        texts = next(control_batches(kind, np.random.default_rng(99), config.texts, probe.shape[1]))
        read = probe[:, -1:] if kind == "paired" else texts
        looks[f"{kind}-words"] = _look(control, read, texts[: 100 * len(texts) // config.texts])
        log.progress(0.6 + 0.1 * (k + 1))
    rank = np.array([rankme(spectrum(states)) for states in seen.states])
    found = {arm: _readings(each.until(until), config.draws) for arm, each in looks.items()}
    arms = {arm: readings for arm, (readings, _) in found.items()}
    for arm, score in scores.items():
        arms[arm] = arms.get(arm, {}) | {
            "learned_in_expansion": _in_expansion(rank, score),
            "peak_lag": int(seen.steps[np.argmax(score)] - seen.steps[_lowest(rank) + np.argmax(rank[_lowest(rank) :])]),
        }
    traces = {f"{arm.replace('-', '_')}_{name}": values for arm, (_, trace) in found.items() for name, values in trace.items()}
    return Report(
        arms=arms,
        arrays=traces | {f"score_{name}": values for name, values in scores.items()} | {
            "steps": seen.steps, "rankme": rank, "spectra": np.array([spectrum(states) for states in seen.states]),
        },
    )  # fmt: skip


class Looks(NamedTuple):
    """Checkpoints on the way: steps, features (checkpoints, texts, width), and the loss on texts."""

    steps: np.ndarray
    states: np.ndarray
    losses: list[float]

    def until(self, step: int) -> Looks:
        """Those made by a step."""
        count = int(np.sum(self.steps <= step))
        return Looks(self.steps[:count], self.states[:count], self.losses[:count])


def _look(chain: Chain, texts: np.ndarray, scored: np.ndarray, more: Callable[[Any], None] | None = None) -> Looks:
    """Last-token features of texts, and the loss of those `scored`, of each checkpoint on the way to a chain's base model;
    `more` is shown each model.
    """
    states, losses = [], []
    for step in chain.steps("base"):
        model = chain.model("base", step)
        states.append(np.concatenate(list(features(model, texts.tolist(), batch=100))))
        losses.append(float(-read_log_probabilities(model, scored).mean()))
        if more is not None:
            more(model)
    return Looks(np.array(chain.steps("base")), np.array(states), losses)


def _recipe(steps: int) -> Recipe:
    """The full recipe, or a short one of the same stages."""
    return Recipe() if steps == Recipe().pretrain else Recipe(steps, 2, 2, 2)


def _in_expansion(rank: np.ndarray, score: list[float]) -> float:
    """Share of a score's rise that is made by the time the rank, after its minimum, has reached 95 % of its largest value.

    Where either is largest says little: both end on a plateau.
    """
    low, values = _lowest(rank), np.asarray(score)
    high = low + int(np.argmax(rank[low:] >= 0.95 * rank[low:].max()))
    rise = values[low:].max() - values[low]
    return float((values[high] - values[low]) / rise) if rise > 0 else np.nan


def _lowest(rank: np.ndarray) -> int:
    """Where the rank is lowest in the first half of the checkpoints."""
    return int(np.argmin(rank[: 1 + len(rank) // 2]))


def _readings(seen: Looks, draws: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Collapse by step 150, expansion after it, reversal by step 150 and the rises of the loss by then; and the traces.

    Each ratio has a 95 % interval over texts (`…_low`, `…_high`): its two checkpoints on the same texts, drawn anew.
    """
    rank, alpha = np.array([rank_and_decay(spectrum(states)) for states in seen.states]).T
    drawn = resampled(list(seen.states), rank_and_decay, draws=draws)
    early = int(np.sum(seen.steps <= 150)) - 1
    low, high = int(np.argmin(rank[: early + 1])), int(np.argmax(alpha[: early + 1]))
    made: dict[str, float] = {"loss_rises": float(np.sum(np.diff(seen.losses[: early + 1]) > 0))}
    for name, values, which, after, before in (
        ("collapse", rank, 0, low, 0),
        ("expansion", rank, 0, low + int(np.argmax(rank[low:])), low),
        ("reversal", rank, 0, early, low),
        ("alpha_rise", alpha, 1, high, 0),
        ("alpha_kept", alpha, 1, high + int(np.argmin(alpha[high:])), high),
    ):
        made[name] = float(values[after] / values[before])
        ratio = drawn[:, after, which] / drawn[:, before, which]
        made[f"{name}_low"], made[f"{name}_high"] = log_interval(made[name], ratio) if after != before else (made[name],) * 2
    kept = {end: made.pop(f"alpha_kept{end}") for end in ("", "_low", "_high")}
    made |= {"alpha_fall": 1 - kept[""], "alpha_fall_low": 1 - kept["_high"], "alpha_fall_high": 1 - kept["_low"]}
    trace = {"steps": seen.steps, "rank": rank, "alpha": alpha, "loss": seen.losses, "rank_sd": drawn[..., 0].std(axis=0)}
    return made, trace


@pretraining.figure
def three_phases(runs: Runs):
    """Loss, effective rank and decay over the first part of pretraining, with the controls, and spectra on the way."""
    data = runs["system"].arrays
    fig, axes = figure(4)
    arms = {"even_words": (CONTROL_COLOUR, "even words"), "shuffled_words": (COLOURS[1], "shuffled words"),
            "paired_words": (COLOURS[3], "pairs of words"), "word_vectors": (COLOURS[2], "word vectors"),
            "system": (SYSTEM_COLOUR, "tiny corpus")}  # fmt: skip
    for axis, name, title in zip(
        axes, ("loss", "rank", "alpha"), ("loss (nats a token)", "RankMe", "decay exponent α"), strict=False
    ):
        for arm, (colour, text) in arms.items():
            if name == "loss" and arm == "word_vectors":
                continue
            steps, values = np.array(data[f"{arm}_steps"]) + 1, np.array(data[f"{arm}_{name}"])
            axis.semilogx(steps, values, "o-", ms=3, color=colour, label=text)
            if name == "rank":
                spread = 1.96 * np.array(data[f"{arm}_rank_sd"])
                axis.fill_between(steps, values - spread, values + spread, color=colour, alpha=0.2, lw=0)
        label(axis, "step (+ 1)", title, legend=False)
    axes[0].legend(*axes[1].get_legend_handles_labels(), loc="lower left", frameon=False, fontsize="small")
    for k in sorted({0, len(data["steps"]) // 5, len(data["steps"]) // 2, len(data["steps"]) - 1}):
        values = data["spectra"][k]
        axes[3].loglog(np.arange(1, len(values) + 1), values / values.sum(), label=f"step {data['steps'][k]}")
    label(axes[3], "rank", "share of variance")
    return fig


@pretraining.figure
def memorisation(runs: Runs):
    """Agreement with the bigram law of the filler, facts and the loss, beside the effective rank."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for name, mark, colour, text in (
        ("loss", ":", "k", "loss (share of its fall)"),
        ("facts", "^-", COLOURS[1], "facts (share right)"),
        ("system", "o-", SYSTEM_COLOUR, "bigrams (rank correlation)"),
    ):
        values = np.array(data[f"score_{name}"])
        values = (values - values.min()) / max(np.ptp(values), 1e-9) if name == "loss" else values
        left.plot(data["steps"], values, mark, ms=3, color=colour, label=text)
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
    draws: int = 100  # of texts, for intervals


@paper.experiment(
    presets={
        "smoke": PostTraining(steps=10, texts=40, samples=2, draws=3),
        "quick": PostTraining(),
        "paper": PostTraining(texts=4000),
    },
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
        states = np.concatenate(list(features(model, probe.tolist(), batch=100)))
        values = spectrum(states)
        low, high = log_interval(rankme(values), resampled([states], draws=config.draws))
        arms["system" if stage == "base" else stage] = {
            "rankme": rankme(values),
            "rankme_low": low,
            "rankme_high": high,
            "alpha": alpha_req(values)[0],
            "chat_loss": answer_loss(model, chats),
            "corpus_loss": -read_log_probabilities(model, probe).mean(),
            "answers": answer_accuracy(model, world),
            "answers_in_many": answer_accuracy(model, world, samples=config.samples),
        }
    return Report(arms=arms)


@post_training.figure
def stages(runs: Runs):
    """Effective rank with its 95 % interval over texts, losses and right answers by stage."""
    rows = runs["system"].arms
    names = list(rows)
    fig, (left, right, last) = figure(3)
    shown = ["base" if name == "system" else name for name in names]
    for metric, style, title in (("answers", "o-", "greedy"), ("answers_in_many", "s--", "in one of several samples")):
        last.plot(shown, [rows[name][metric] for name in names], style, color=SYSTEM_COLOUR, label=title)
    label(last, "stage", "questions answered right (share)")
    ends = [[abs(rows[name][f"rankme_{end}"] - rows[name]["rankme"]) for name in names] for end in ("low", "high")]
    left.bar(shown, [rows[name]["rankme"] for name in names], yerr=ends, color=SYSTEM_COLOUR)
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
    presets={"smoke": Suite(model="", revisions=(), texts=100), "paper": Suite()},
    claims=[
        Claim("R11", "Pythia collapses, expands and compresses", kind="paper", where="abstract (phases)",
              null=("one-model", "word-vectors"),
              no_ablation="the models are published ones: nothing of their training can be switched off",
              checks=[at_most("collapse", {"paper": 0.6}), at_least("expansion", {"paper": 1.35}),
                      at_most("compression", {"paper": 0.99})], seeds=1),
    ],
    data="data",
    cost=3600.0,
)  # fmt: skip
def checkpoint_suite(config: Suite, key, log: Log) -> Report:
    """RankMe and decay over the checkpoints of a real model; the controls: one checkpoint on random halves of the texts, which
    is what the texts alone make of it, and the last words' own vectors, without any context.
    """
    checkpoints, texts = _suite(config, seed_of(key))
    last = max(step for step, _, _ in checkpoints)
    trace = track(
        checkpoints, texts, max_length=config.max_length, report=lambda step, found: log.progress(0.6 * step / last, **found)
    )
    vectors = track(checkpoints, texts, max_length=config.max_length, layer=0)
    states = np.concatenate(list(model_features(*load(*checkpoints[-1][1:]), texts, max_length=config.max_length)))
    halves = [rng.permutation(len(states))[: len(states) // 2] for rng in [generator(key)] for _ in checkpoints]
    noise = np.array([rankme(spectrum(states[half])) for half in halves])
    return Report(
        arms={
            "system": _three_phases(trace["rankme"]),
            "one-model": _three_phases(noise),
            "word-vectors": _three_phases(vectors["rankme"]),
        },
        arrays={"steps": trace.steps, "rankme": trace["rankme"], "alpha": trace["alpha"], "vectors": vectors["rankme"]},
    )


def _three_phases(rank: np.ndarray) -> dict[str, float]:
    """Collapse to the minimum within the first half of the checkpoints, expansion after it, and compression at the end."""
    low = _lowest(rank)
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
    draws: int = 20  # of texts, for intervals


@paper.experiment(
    presets={"smoke": Stages(base="", models=(), start="", texts=100, draws=3), "paper": Stages()},
    claims=[
        Claim("R12", "SFT and DPO raise RankMe, reinforcement with verifiable rewards lowers it", kind="paper",
              where="post-training", null=("other-texts", "word-vectors"),
              no_ablation="the models are published ones: nothing of their training can be switched off", seeds=1, checks=[
                  at_least("sft_gain_low", {"paper": 0.0}), at_least("dpo_gain_low", {"paper": 0.0}),
                  at_most("rl_gain_high", {"paper": 0.0})]),
    ],
    data="data",
    cost=3 * 3600.0,
)  # fmt: skip
def post_training_suite(config: Stages, key, log: Log) -> Report:
    """RankMe of published stages, as intervals over texts of the gains from stage to stage.

    The controls: the first model on four parts of the texts, one after another, and the last words' own vectors in each
    stage, without any context.
    """
    if config.start:
        names = [config.start, config.base, *config.models]
        if config.data is None:
            raise MissingDataError("Probe texts are needed: pass --data FILE with one text a line.")
        texts = _texts(config.data, config.texts)
    else:
        chain = tiny_chain(seed_of(key), recipe=Recipe(10, 2, 2, 2))
        names = [str(chain.folder(stage)) for stage in chain.names]
        texts = [World(0).filler(np.random.default_rng(k)) for k in range(config.texts)]
    read: dict[str, list[np.ndarray]] = {"system": [], "word-vectors": []}
    parts: list[np.ndarray] = []
    for name in names:
        model, words = load(name)
        for arm, layer in (("system", -1), ("word-vectors", 0)):
            states = np.concatenate(list(model_features(model, words, texts, max_length=config.max_length, layer=layer)))
            read[arm].append(_drawn_ranks(states, config.draws))
            if not parts:
                parts = [_drawn_ranks(states[k : len(states) // 4 * 4 : 4], config.draws) for k in range(4)]
        log.progress(len(read["system"]) / len(names))
    return Report(arms={arm: _gains(stages) for arm, stages in {**read, "other-texts": parts}.items()})


def _drawn_ranks(states: np.ndarray, draws: int) -> np.ndarray:
    """ln RankMe (draws + 1): on all texts, and on texts drawn anew, the same of as many texts."""
    return np.log([rankme(spectrum(states)), *resampled([states], draws=draws)[:, 0]])


def _gains(stages: list[np.ndarray]) -> dict[str, float]:
    """Gain of ln RankMe from stage to stage, with its 95 % interval over texts."""
    made: dict[str, float] = {}
    for name, before, after in zip(("sft", "dpo", "rl"), stages, stages[1:], strict=False):
        gain, spread = (after - before)[0], 1.96 * np.std((after - before)[1:], ddof=1)
        made |= {f"{name}_gain": gain, f"{name}_gain_low": gain - spread, f"{name}_gain_high": gain + spread}
    return made


@post_training_suite.figure
def published_stages(runs: Runs):
    """Gain of RankMe from stage to stage with its 95 % interval over texts, beside the controls."""
    rows = runs["system"].arms
    fig, axis = figure()
    looks = (("system", SYSTEM_COLOUR), ("other-texts", CONTROL_COLOUR), ("word-vectors", COLOURS[1]))
    for k, (arm, colour) in enumerate(looks):
        gains = np.array([rows[arm][f"{stage}_gain"] for stage in ("sft", "dpo", "rl")])
        high = np.array([rows[arm][f"{stage}_gain_high"] for stage in ("sft", "dpo", "rl")])
        axis.errorbar(np.arange(3) + 0.15 * (k - 1), gains, high - gains, fmt="o", color=colour, capsize=3, label=arm)
    axis.axhline(0, color="k", lw=0.8, ls=":")
    axis.set_xticks(range(3), ["SFT", "DPO", "RL"])
    label(axis, "stage", "gain of ln RankMe")
    return fig
