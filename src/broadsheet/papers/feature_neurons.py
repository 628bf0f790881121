"""Decoding specialised feature neurons in LLMs with the final projection layer, arXiv 2501.02688.

A neuron of a gated MLP is named by the tokens that its row of the up-projection points to, and tested by holding it at a
value. The tiny chain's models stand for the paper's; controls are the other two vectors of a neuron, names by chance,
directions that mean nothing, and random neurons that move the residual stream as far.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from broadsheet.errors import MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language import tiny_world as tiny
from broadsheet.language.anatomy import blocks, mlp
from broadsheet.language.clamp_effects import clamp_curve, concept_changes, pushed_changes
from broadsheet.language.clamps import mentions, side_effects, steered
from broadsheet.language.feature_neurons import NeuronMap, agreement, decode_neurons, directions_of, furthest, token_z
from broadsheet.language.models import load, load_tokenizer, one_thread
from broadsheet.language.neuron_checks import among, blocked_names, clamp_identity, found_plants, planted_curves, scrambled
from broadsheet.language.tiny_chain import Recipe, tiny_chain
from broadsheet.language.tiny_world import IDS, RELATIONS, World
from broadsheet.language.token_directions import NORMS
from broadsheet.language.word_variants import share_of_one_word, token_texts, variants
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="feature-neurons",
    arxiv="2501.02688",
    title="Decoding specialised feature neurons in LLMs with the final projection layer",
    published="2025-01-05",
    authors=1,
    basis="reconstructed",
    summary="A neuron of a language model's MLP is named without any text: its row of the up-projection is put through the "
    "unembedding, and the tokens that score highest are its names. Holding a named neuron at a value shows whether the model's "
    "words follow; a base model and its instruction-tuned version can be compared neuron by neuron.",
    topics=("interpretability", "feature neurons", "steering"),
    parts=(
        "broadsheet.language.feature_neurons.decode_neurons",
        "broadsheet.language.feature_neurons.NeuronMap",
        "broadsheet.language.clamps.clamp",
        "broadsheet.language.clamp_effects.clamp_curve",
    ),
    requires=("language",),
    verbs=("broadsheet language neurons MODEL --token TEXT",),
    notes=(
        "After the idea of the abstract. Whether rows are compared by their product with the unembedding, through the final "
        "norm or by cosine is not said there; all three are run.",
        "Quick runs take a Llama of 219 456 parameters with 463 words; the paper's is Llama 3.1 8B, which the paper preset "
        "loads by name (gated). HuggingFaceTB/SmolLM2-135M and Qwen/Qwen2.5-0.5B with their -Instruct are open stand-ins: "
        "--set base=… --set model=….",
        "A clamp replaces what the up-projection computes. What it does to the words is decided by the gate and the column of "
        "the down-projection, never by the row that gave the neuron its name.",
        "The random neurons of N5 are held at the same value. Made to push the residual stream as far as the planted neuron "
        "does, they move log p as much as it does or more, mostly down: a large push in any direction derails the model.",
    ),
)
SITES = {"system": "up", "gate": "gate", "key-value": "down"}
"""Arm -> the vector that is decoded: the paper's, the gate's row, and the usual reading of a neuron as what it writes."""


def _chain(key: Any, steps: int, log: Log | None = None) -> Any:
    """The tiny chain of a seed, or a short one of the same stages."""
    recipe = Recipe() if steps == Recipe().pretrain else Recipe(steps, 2, 2, 2)
    return tiny_chain(seed_of(key), recipe=recipe, report=lambda share, found: log.progress(0.8 * share) if log else None)


def _real(name: str) -> tuple[Any, Any]:
    """A model of the Hub or a folder, and its tokenizer."""
    try:
        return load(name)
    except MissingDataError as error:
        raise MissingDataError(
            f"{error} The paper's models are gated; others: --set model=HuggingFaceTB/SmolLM2-135M-Instruct, "
            "--set base=HuggingFaceTB/SmolLM2-135M, or a folder."
        ) from None


def _prompts(rng: np.random.Generator, relation: str, without: int, count: int) -> list[list[int]]:
    """Beginnings of statements on a relation whose true object is another than `without`: `the city of S is in`."""
    world = World(0)
    others = [s for s in range(tiny.SUBJECTS) if world.objects[relation][s] != without]
    chosen = rng.choice(others, min(count, len(others)), replace=False)
    return [[tiny.BOS, *tiny.encode(world.statement(relation, int(s)))[:-2]] for s in chosen]


@dataclass(frozen=True)
class Known:
    """Neurons and scores whose answers are known."""

    steps: int = 1500  # of the tiny model's pretraining
    plants: int = 20
    lengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)  # a: of a planted row
    words: int = 48  # with directions at right angles
    tokens: int = 12_000  # of a vocabulary for which scores are made in bfloat16 first


@paper.experiment(
    presets={"smoke": Known(steps=10, plants=3, tokens=400), "quick": Known(), "paper": Known(plants=200, tokens=32_000)},
    claims=[
        Claim("N1", "the decode finds a planted neuron", kind="check", ablation=("unplanted", "gate"),
              reference="the token whose direction was planted; controls: the neuron as it was, and the row of its gate",
              checks=[at_least("found_orthonormal", 1.0), at_least("found_cosine", 1.0), at_least("smallest_rise", 1e-9)]),
        Claim("N2", "names found in blocks are those of the whole product", kind="check", ablation="bfloat16",
              reference="the whole product in float64, ties within 1e-6 aside; control: scores in bfloat16 alone",
              checks=[at_most("wrong_names", 0), at_most("value_error", 1e-4)]),
        Claim("N3", "a clamp moves the stream along the neuron's column by gate times change", kind="check",
              ablation=("ungated", "row"), reference="E W_down[:, i] g_i (c - u_i); controls: without g_i, and along the row",
              checks=[at_most("identity_error", 1e-5)]),
    ],
    cost=4.0,
)  # fmt: skip
def known_answers(config: Known, key, log: Log) -> Report:
    """Planted neurons are found, blocks agree with the whole product, and a clamp does what it says."""
    rng, model = generator(key), _chain(key, config.steps, log).model("base")
    with one_thread():
        arms, shares = found_plants(model, rng, plants=config.plants, lengths=config.lengths, words=config.words, reserved=6)
        log.progress(0.9)
        for found in (blocked_names(model, rng, config.tokens), clamp_identity(model, World(0).probe(1, 12), rng)):
            for arm, metrics in found.items():
                arms.setdefault(arm, {}).update(metrics)
    return Report(arms=arms, arrays={"lengths": config.lengths, "shares": shares})


@known_answers.figure
def planted_rows(runs: Runs):
    """Share of plants that each decode finds, and the probability of the planted token by the length of the row."""
    run = runs["system"]
    fig, (left, right) = figure(2)
    names, at = ("orthonormal", *NORMS), np.arange(4)
    left.bar(at - 0.2, [run.arms["system"][f"found_{name}"] for name in names], 0.4, color=SYSTEM_COLOUR, label="planted")
    left.bar(at + 0.2, [run.arms["unplanted"][f"found_{name}"] for name in names], 0.4, color=CONTROL_COLOUR, label="as it was")
    left.set_xticks(at, ["directions at\nright angles", *(name.replace("_", " ") for name in NORMS)], fontsize="small")
    left.set_ylim(0, 1.3)
    label(left, "decode", "planted token found (share)")
    for n, norm in enumerate(NORMS):
        p = np.sort(run.arrays["shares"][n], axis=1)
        right.loglog(run.arrays["lengths"], np.median(p, axis=1), "o-", ms=3, color=COLOURS[n], label=norm.replace("_", " "))
        right.fill_between(run.arrays["lengths"], p[:, 0], p[:, -1], color=COLOURS[n], alpha=0.15, lw=0)
    right.axhline(1 / len(tiny.WORDS), color=CONTROL_COLOUR, ls="--", lw=1, label="chance")
    right.set_xticks(run.arrays["lengths"], [f"{length:g}" for length in run.arrays["lengths"]])
    right.minorticks_off()
    label(right, "length of the planted row", "p of the token (median, range)")
    return fig


VALUES = (-20.0, -10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Curves:
    """A neuron that writes a token, planted in the last layer, and one that the decode names for it."""

    steps: int = 1500
    objects: int = 3
    column: float = 1.0  # length of the planted column
    gate: float = 1.0  # what the gate's row gives at the last token, before SiLU
    controls: int = 20
    values: tuple[float, ...] = VALUES
    model: str = ""  # a real one, for the paper's size
    prompt: str = "My favourite animal is the"
    concept: str = "dog"


@paper.experiment(
    presets={
        "smoke": Curves(steps=10, objects=1, controls=2, values=(-5.0, 0.0, 5.0, 20.0)),
        "quick": Curves(),
        "paper": Curves(model="meta-llama/Llama-3.1-8B"),
    },
    claims=[
        Claim("N4", "clamping a neuron steers the probability of its token", kind="paper", where="abstract",
              ablation="own-column", null=("key-value", "pushed"),
              checks=[at_least("p_at_most", 0.75), at_most("p_at_zero", 0.12), at_least("smallest_rise", 0.0),
                      at_most("rise_with_closed_gate", 0.0)],
              reason="The row that names the neuron plays no part: one with any row and the same gate and column is steered "
              "alike to the last digit, since the clamp replaces what the row computes.",
              published="the probability of the concept in the output follows the clamp (Llama 3.1 8B)"),
        Claim("N5", "random neurons at the same value do little", kind="check",
              no_ablation="it is itself what the effect of a clamp is compared with",
              no_null="random neurons are the null model",
              checks=[at_most("random_share", {"quick": 0.10})]),
    ],
    cost=6.0,
)  # fmt: skip
def clamping(config: Curves, key, log: Log) -> Report:
    """p and rank of a token over the value at which a neuron is held, beside random neurons."""
    rng = generator(key)
    if config.model:
        model, words = _real(config.model)
        tokens = variants(words, config.concept)
        prompts = {token: [words(config.prompt)["input_ids"]] for token in tokens[:1]}
    else:
        model, words = _chain(key, config.steps, log).model("base"), None
        chosen = [(relation, int(rng.integers(tiny.OBJECTS))) for relation in list(RELATIONS)[: config.objects]]
        prompts = {IDS[f"{relation}_object_{k}"]: _prompts(rng, relation, k, 4) for relation, k in chosen}
        tokens = list(prompts)
    last, found, named = len(blocks(model)) - 1, [], []
    with one_thread():
        for k, (token, texts) in enumerate(prompts.items()):
            found.append(planted_curves(
                model, last, token, texts, k, values=config.values, column=config.column, gate=config.gate,
                controls=config.controls,
            ))  # fmt: skip
            best = furthest(token_z(model, tokens if config.model else [token])[1], 1)[0]
            named.append(clamp_curve(model, None, texts[0], token, best, config.values, controls=config.controls, seed=k))
            log.progress(0.8 + 0.2 * (k + 1) / len(prompts))
    arms = {arm: _steering([each[arm] for each in found]) for arm in ("system", "own-column", "key-value", "pushed")}
    own = [each["system"][0] for each in found]
    arms["system"] |= {
        "random_share": max(float(np.median(np.abs(each.change[:, -1]))) / _gain(each) for each in own),
        "pushed_share": max(float(np.median(np.abs(each.matched[:, -1]))) / _gain(each) for each in own),
        "unclamped": max(each.plain for each in own),
    }
    arrays = {f"{which}_{name}": getattr(curve, name) for which, curve in (("planted", own[0]), ("named", named[0]))
              for name in ("p", "rank", "change", "matched", "plain", "kl")}  # fmt: skip
    return Report(arms=arms, arrays=arrays | {"values": config.values, "start": own[0].p[np.argmin(np.abs(config.values))]})


def _steering(curves: list[list[Any]]) -> dict[str, float]:
    """How far p goes, over the plants: the least and the most that matter."""
    opened, closed = zip(*curves, strict=True)
    zero = int(np.argmin(np.abs(opened[0].values)))
    return {
        "p_at_most": float(min(curve.p[-1] for curve in opened)),
        "p_at_zero": float(max(curve.p[zero] for curve in opened)),
        "smallest_rise": min(float(np.diff(np.log(curve.p)).min()) for curve in opened),
        "rise_with_closed_gate": max(float(np.diff(np.log(curve.p)).max()) for curve in closed),
    }


def _gain(curve: Any) -> float:
    """Rise of log p from the clamp at 0 to the highest."""
    return float(np.log(curve.p[-1] / curve.p[np.argmin(np.abs(curve.values))]))


@clamping.figure
def curves(runs: Runs):
    """p and rank over the value of the clamp: of a planted neuron and of the one that the decode names, with random neurons."""
    data = runs["system"].arrays
    fig, axes = figure(3)
    for axis, which, title in ((axes[0], "planted", "planted in the last layer"), (axes[1], "named", "named by its up row")):
        start = data["start"] if which == "planted" else data["named_plain"]
        for k, (name, text) in enumerate((("change", "random, same value"), ("matched", "random, same push"))):
            band = start * np.exp(np.quantile(data[f"{which}_{name}"], [0.1, 0.5, 0.9], axis=0))
            colour = (CONTROL_COLOUR, COLOURS[1])[k]
            axis.fill_between(data["values"], band[0], band[2], color=colour, alpha=0.25, lw=0)
            axis.plot(data["values"], band[1], "--", color=colour, lw=1, label=f"{text} (median, 80 %)")
        axis.plot(data["values"], data[f"{which}_p"], "o-", ms=3, color=SYSTEM_COLOUR, label="the neuron")
        axis.axhline(float(data[f"{which}_plain"]), color="black", lw=0.6, ls=":", label="no clamp")
        axis.set_ylim(0, 1.05)
        label(axis, "value of the clamp (units of u)", "p of the token", title)
    for which, colour in (("planted", SYSTEM_COLOUR), ("named", COLOURS[2])):
        axes[2].plot(data["values"], data[f"{which}_rank"] + 1, "o-", ms=3, color=colour, label=which)
    axes[2].set_yscale("log")
    label(axes[2], "value of the clamp (units of u)", "rank of the token (1 the first)")
    return fig


@dataclass(frozen=True)
class Search:
    """Neurons that are named for concepts, and what holding them does."""

    steps: int = 1500
    concepts: int = 12  # objects of the tiny world
    neurons: int = 5
    draws: int = 20  # random neurons that the named ones are compared with
    prompts: int = 4
    value: float = 10.0
    model: str = ""
    words: tuple[str, ...] = (
        "dog",
        "cat",
        "horse",
        "bird",
        "California",
        "Texas",
        "London",
        "Paris",
        "red",
        "blue",
        "gold",
        "king",
    )
    texts: tuple[str, ...] = ("My favourite animal is the", "I live in", "The most beautiful of all is", "He spoke about the")


@paper.experiment(
    presets={
        "smoke": Search(steps=10, concepts=2, neurons=2, draws=3, prompts=2),
        "quick": Search(),
        "paper": Search(model="meta-llama/Llama-3.1-8B"),
    },
    claims=[
        Claim("N7", "neurons that are named by their up-projection are causal beyond chance", kind="paper", where="abstract",
              ablation="other-concept", null=("key-value", "pushed", "frequent"), seeds=8,
              checks=[at_least("wins", 9.0, over="mean"), at_least("change", 0.02, minus="other-concept")],
              reason="The usual reading, by what a neuron writes, finds neurons that move their concept further: the decode of "
              "the up-projection adds nothing to it. Neurons named for another concept come close to as many wins, too."),
        Claim("N9", "gate rows and down columns name causal neurons", kind="check", about="gate",
              ablation="other-concept", null=("pushed", "frequent"), seeds=8,
              checks=[at_least("wins", {"quick": 9.0}, over="mean", of="gate"),
                      at_least("wins", {"quick": 9.0}, over="mean", of="key-value"),
                      at_least("change", {"quick": 0.02}, of="gate", minus="other-concept")]),
    ],
    cost=15.0,
)  # fmt: skip
def concept_search(config: Search, key, log: Log) -> Report:
    """The neurons that each decode names for a concept, by layer, and how much clamping them moves its probability."""
    rng = generator(key)
    if config.model:
        model, words = _real(config.model)
        groups = [variants(words, text) for text in config.words]
        prompts = [[words(text)["input_ids"] for text in config.texts]] * len(groups)
        common = [ids[-1] for ids in words(["the", "of", "and", "to", "in"])["input_ids"]]
    else:
        model = _chain(key, config.steps, log).model("base")
        pairs = [(relation, k) for relation in RELATIONS for k in rng.permutation(tiny.OBJECTS)[:3]]
        pairs = [pairs[k] for k in rng.permutation(len(pairs))[: config.concepts]]
        groups = [[IDS[f"{relation}_object_{k}"]] for relation, k in pairs]
        prompts = [_prompts(rng, relation, int(k), config.prompts) for relation, k in pairs]
        counts = np.bincount(World(0).probe(100).ravel(), minlength=len(tiny.WORDS))
        common = np.argsort(-counts)[:5].tolist()
    with one_thread():
        return _causal(config, model, groups, prompts, common, rng, log)


def _causal(
    config: Search, model: Any, groups: Any, prompts: Any, common: list[int], rng: np.random.Generator, log: Log
) -> Report:
    """Wins of each arm over random neurons, by norm, and the layers of the neurons found."""
    flat = [token for group in groups for token in group]
    starts = np.cumsum([0, *(len(group) for group in groups)])
    named: dict[tuple[str, str], list[list[tuple[int, int]]]] = {}
    for arm, site in SITES.items():
        for norm in NORMS:
            z = token_z(model, [*flat, *common], site, norm)[1]
            named[arm, norm] = [furthest(z[..., a:b], config.neurons) for a, b in pairwise(starts)]
            if arm == "system":
                frequent = furthest(z[..., len(flat) :], config.neurons)
                named["frequent", norm] = [frequent] * len(groups)
                named["other-concept", norm] = named[arm, norm][len(groups) // 2 :] + named[arm, norm][: len(groups) // 2]
    effects: dict[tuple[str, str], list[float]] = {where: [] for where in named}
    effects |= {("pushed", norm): [] for norm in NORMS}
    chance = []
    layers, neurons = len(blocks(model)), mlp(model, 0).neurons
    for k, (tokens, texts) in enumerate(zip(groups, prompts, strict=True)):
        others = [(int(rng.integers(layers)), int(rng.integers(neurons))) for _ in range(config.draws)]
        chance.append(np.mean(concept_changes(model, texts, tokens, others, config.value)[0]))
        for where, found in named.items():
            effect, pushes = concept_changes(model, texts, tokens, found[k], config.value)
            effects[where].append(float(np.mean(effect)))
            if where[0] == "system":
                chosen = [others[each % len(others)] for each in range(len(found[k]))]
                effects["pushed", where[1]].append(float(np.mean(pushed_changes(model, texts, tokens, chosen, pushes))))
        log.progress(0.8 + 0.2 * (k + 1) / len(groups))
    arms: dict[str, dict[str, float]] = {}
    for (arm, norm), changes in effects.items():
        end = "" if norm == "raw" else f"_{norm}"
        wins = float(np.sum(np.array(changes) > np.array(chance))) * 12 / len(groups)
        arms.setdefault(arm, {}).update({f"wins{end}": wins, f"change{end}": float(np.mean(changes))})
    arms["system"]["chance_change"] = float(np.mean(chance))
    counts = [np.bincount([layer for found in named[arm, norm] for layer, _ in found], minlength=layers)
              for arm in SITES for norm in NORMS]  # fmt: skip
    return Report(arms=arms, arrays={"layers": np.array(counts), "effects": np.array(list(effects.values()))})


@concept_search.figure
def named_neurons(runs: Runs):
    """Where named neurons are, and what clamping them does, by the vector that is decoded and the norm."""
    run = runs["system"]
    fig, axes = figure(3)
    shares = run.arrays["layers"]
    for k, (arm, site) in enumerate(SITES.items()):
        total = shares[3 * k]
        axes[0].plot(np.arange(len(total)), total / max(total.sum(), 1), "o-", ms=3, color=COLOURS[k], label=f"{site} (raw)")
        wins = [run.arms[arm][f"wins{end}"] for end in ("", "_final_norm", "_cosine")]
        axes[1].bar(np.arange(3) + 0.27 * (k - 1), wins, 0.25, color=COLOURS[k], label=site)
    axes[0].set_xticks(range(len(shares[0])))
    label(axes[0], "layer", "share of named neurons")
    axes[1].axhline(6, color=CONTROL_COLOUR, ls="--", lw=1, label="chance")
    axes[1].axhline(9, color="black", ls=":", lw=1, label="bound")
    axes[1].set_xticks(np.arange(3), [norm.replace("_", " ") for norm in NORMS])
    axes[1].set_ylim(0, 21)
    label(axes[1], "decode", "concepts moved further (of 12)", "than by random neurons", legend=False)
    axes[1].legend(frameon=False, fontsize="small", ncols=2)
    arms = ("system", "gate", "key-value", "pushed", "frequent", "other-concept")
    colours = [*COLOURS[:3], *[CONTROL_COLOUR] * 3]
    shown = ("up", "gate", "down", "same push", "frequent", "other")
    axes[2].bar(shown, [run.arms[arm]["change"] for arm in arms], color=colours)
    axes[2].axhline(run.arms["system"]["chance_change"], color="black", ls="--", lw=1, label="random neurons, same value")
    axes[2].tick_params(axis="x", labelsize="x-small")
    axes[2].margins(y=0.2)
    label(axes[2], "neurons named by", "mean change of log p (nats)")
    return fig


@dataclass(frozen=True)
class Pair:
    """A base model and what was made of it by instruction tuning."""

    steps: int = 1500
    frequent: int = 20  # most frequent tokens, for a control that names neurons by these alone
    base: str = ""
    model: str = ""


@paper.experiment(
    presets={
        "smoke": Pair(steps=10),
        "quick": Pair(),
        "paper": Pair(base="meta-llama/Llama-3.1-8B", model="meta-llama/Llama-3.1-8B-Instruct"),
    },
    claims=[
        Claim("N6", "fine-tuning keeps the names of most neurons", kind="paper", where="abstract",
              ablation=("shuffled", "other-seed"), null=("random-directions", "frequent", "key-value"),
              checks=[at_least("agreement", 0.60), at_least("margin", 0.4)],
              reason="Any fixed set of directions agrees as well: what is measured is that fine-tuning moves the rows little."),
        Claim("N8", "base and instruct model share three quarters of their names", kind="paper", where="abstract",
              ablation="shuffled", null=("random-directions", "frequent", "key-value"), seeds=1,
              checks=[at_least("agreement", {"paper": 0.75})],
              published="over 75 % (Llama 3.1 8B and Instruct, up-projection)"),
    ],
    cost=5.0,
)  # fmt: skip
def base_vs_instruct(config: Pair, key, log: Log) -> Report:
    """The share of neurons with the same first name before and after post-training, in all and by layer."""
    rng = generator(key)
    other = None
    if config.model:
        first: Any = config.base
        second: Any = config.model
        common = np.arange(config.frequent)  # byte-level vocabularies begin with single characters
        later: dict[str, Any] = {}
    else:
        chain = _chain(key, config.steps, log)
        first, second = chain.model("base"), chain.model("sft")
        later = {stage: chain.model(stage) for stage in ("dpo", "rl")}
        other = tiny_chain(seed_of(key) ^ 1, recipe=Recipe() if config.steps == 1500 else Recipe(config.steps, 2, 2, 2)).model(
            "base"
        )
        common = np.argsort(-np.bincount(World(0).probe(100).ravel(), minlength=len(tiny.WORDS)))[: config.frequent]
    with one_thread() if not config.model else contextlib.nullcontext():
        return _agreements(config, first, second, later, other, common, rng, log)


def _agreements(
    config: Pair, first: Any, second: Any, later: dict[str, Any], other: Any, common: Any, rng: np.random.Generator, log: Log
) -> Report:
    """Arm -> agreement of first names, and its margin over that with a model of another seed."""
    namings: dict[str, dict[str, Any]] = {arm: {"site": site} for arm, site in SITES.items()}
    namings |= {norm: {"norm": norm} for norm in NORMS[1:]}
    namings["random-directions"] = {"directions": (scrambled(directions_of(first), rng),) * 3}
    namings["frequent"] = {"directions": [model and among(directions_of(model), common)
                                          for model in (first, second, other)]}  # fmt: skip
    arms: dict[str, dict[str, float]] = {}
    layers = {}
    maps: dict[str, NeuronMap] = {}
    for k, (arm, how) in enumerate(namings.items()):
        given = how.pop("directions", (None,) * 3)
        one, two = (decode_neurons(model, topk=1, directions=each, **how)
                    for model, each in zip((first, second), given[:2], strict=True))  # fmt: skip
        arms[arm] = {"agreement": agreement(one, two)[0]}
        layers[arm] = agreement(one, two)[1]
        if arm == "system":
            maps = {"base": one, "tuned": two}
        if other is not None:
            three = decode_neurons(other, topk=1, directions=given[2], **how)
            arms[arm]["margin"] = arms[arm]["agreement"] - agreement(one, three)[0]
            maps.setdefault("other", three)
        log.progress(0.8 + 0.2 * (k + 1) / len(namings))
    order = rng.permutation(maps["tuned"].ids.shape[1])
    shuffled = replace(maps["tuned"], ids=maps["tuned"].ids[:, order])
    arms["shuffled"] = {"agreement": agreement(maps["base"], shuffled)[0]}
    layers["shuffled"] = agreement(maps["base"], shuffled)[1]
    if "other" in maps:
        chance, layers["other-seed"] = agreement(maps["base"], maps["other"])
        arms["other-seed"] = {"agreement": chance, "margin": 0.0}
        arms["shuffled"]["margin"] = arms["shuffled"]["agreement"] - chance
    for norm in NORMS[1:]:
        arms["system"] |= {f"{name}_{norm}": value for name, value in arms.pop(norm).items()}
    for stage, model in later.items():
        arms["system"][f"agreement_{stage}"] = agreement(maps["base"], decode_neurons(model, topk=1))[0]
    return Report(arms=arms, arrays={"layers": np.array(list(layers.values())), "arms": np.array(list(layers))})


@base_vs_instruct.figure
def shared_names(runs: Runs):
    """The share of neurons that keep their first name: in all, and by layer."""
    run = runs["system"]
    fig, (left, right) = figure(2, width=4.8)
    names = [name for name in run.arms if name != "frequent"] + ["frequent"]
    shown = {"system": "up", "key-value": "down", "random-directions": "random\ndirections", "other-seed": "other\nseed"}
    colours = [SYSTEM_COLOUR if name == "system" else COLOURS[1] if name in SITES else CONTROL_COLOUR for name in names]
    left.bar([shown.get(name, name) for name in names], [run.arms[name]["agreement"] for name in names], color=colours)
    left.tick_params(axis="x", labelsize="x-small")
    left.set_ylim(0, 1)
    label(left, "named by", "same first name as tuned (share)")
    for k, (arm, row) in enumerate(zip(run.arrays["arms"], run.arrays["layers"], strict=True)):
        grey = str(arm) in ("shuffled", "other-seed")
        right.plot(np.arange(len(row)), row, "o--" if grey else "o-", ms=3, color=CONTROL_COLOUR if grey else COLOURS[k % 6],
                   label=str(arm).replace("system", "up, raw"))  # fmt: skip
    right.set_ylim(0, 1)
    right.set_xticks(range(run.arrays["layers"].shape[1]))
    label(right, "layer", "same first name (share)", legend=False)
    right.legend(frameon=False, fontsize="x-small", ncols=2)
    return fig


@dataclass(frozen=True)
class Steering:
    """What a model writes while a neuron is held that is named for a concept."""

    steps: int = 1500
    concepts: int = 6
    prompts: int = 4
    samples: int = 4
    tokens: int = 8
    draws: int = 3  # random neurons
    values: tuple[float, ...] = (-20.0, -10.0, 10.0, 20.0)
    model: str = ""
    concept: str = "dog"
    question: str = "What is your favourite animal?"


@paper.experiment(
    presets={
        "smoke": Steering(steps=10, concepts=1, prompts=1, samples=2, tokens=2, draws=1, values=(10.0,)),
        "quick": Steering(),
        "paper": Steering(model="meta-llama/Llama-3.1-8B-Instruct", samples=10, tokens=100),
    },
    claims=[
        Claim("N8b", "with its neuron held the instruct model always talks of dogs", kind="paper", where="abstract",
              ablation="no-clamp", null=("key-value", "random"), seeds=1,
              checks=[at_least("mentions", {"paper": 0.9})], published="always (Llama 3.1 8B Instruct)"),
    ],
    cost=15.0,
)  # fmt: skip
def steered_generation(config: Steering, key, log: Log) -> Report:
    """The share of answers that have the concept while a neuron is held at the best of some values, and the side effects."""
    rng = generator(key)
    if config.model:
        model, words = _real(config.model)
        asked = words.apply_chat_template([{"role": "user", "content": config.question}], add_generation_prompt=True)
        asked = asked["input_ids"] if hasattr(asked, "keys") else asked
        cases = [(variants(words, config.concept), [list(asked)])]
        texts = [words(text)["input_ids"] for text in Search().texts]
    else:
        model = _chain(key, config.steps, log).model("sft")
        pairs = [(relation, int(k)) for relation in RELATIONS for k in rng.permutation(tiny.OBJECTS)[:2]]
        asked = {pair: [tiny.chat(f"tell me about {pair[0]}_{s} ?") for s in _others(*pair, config)] for pair in pairs}
        cases = [([IDS[f"{relation}_object_{k}"]], asked[relation, k]) for relation, k in pairs[: config.concepts]]
        texts = [tiny.encode(World(0).filler(rng)) for _ in range(8)]
    named = {arm: token_z(model, [token for tokens, _ in cases for token in tokens], site)[1] for arm, site in SITES.items()}
    rows: dict[str, list[dict[str, float]]] = {}
    at = 0
    for k, (tokens, prompts) in enumerate(cases):
        chosen = {arm: furthest(z[..., at : at + len(tokens)], 1) for arm, z in named.items()}
        chosen["random"] = [
            (int(rng.integers(len(blocks(model)))), int(rng.integers(mlp(model, 0).neurons))) for _ in range(config.draws)
        ]
        at += len(tokens)
        rows.setdefault("no-clamp", []).append(_talk(config, model, prompts, tokens, None, texts))
        for arm, neurons in chosen.items():
            found = [_talk(config, model, prompts, tokens, neuron, texts) for neuron in neurons]
            rows.setdefault(arm, []).append({name: float(np.mean([each[name] for each in found])) for name in found[0]})
        log.progress(0.8 + 0.2 * (k + 1) / len(cases))
    return Report(
        arms={arm: {name: float(np.mean([row[name] for row in each])) for name in each[0]} for arm, each in rows.items()},
        arrays={arm: [row["mentions"] for row in each] for arm, each in rows.items()},
    )


def _others(relation: str, without: int, config: Steering) -> list[int]:
    """Subjects of other objects."""
    return [s for s in range(tiny.SUBJECTS) if World(0).objects[relation][s] != without][: config.prompts]


def _talk(
    config: Steering, model: Any, prompts: Any, tokens: list[int], neuron: tuple[int, int] | None, texts: Any
) -> dict[str, float]:
    """Share of sampled and of greedy answers that have the concept, with a neuron held at the value with most mentions, and
    what that does to other texts."""
    clamps = [{} if neuron is None else {neuron: value} for value in (config.values if neuron else (0.0,))]

    def share(held: Any, temperature: float) -> float:
        samples = config.samples if temperature else 1
        return mentions(steered(model, prompts, held, tokens=config.tokens, samples=samples, temperature=temperature), tokens)

    sampled = [share(held, 1.0) for held in clamps]
    best = clamps[int(np.argmax(sampled))]
    return {"mentions": max(sampled), "greedy_mentions": share(best, 0.0), **side_effects(model, texts, best)}


@steered_generation.figure
def answers(runs: Runs):
    """The share of answers with the concept, and the divergence on other texts, by what names the neuron that is held."""
    rows = runs["system"].arms
    fig, (left, right) = figure(2)
    order = [arm for arm in ("no-clamp", "random", "system", "gate", "key-value") if arm in rows]
    shown = [{"system": "up", "key-value": "down"}.get(arm, arm) for arm in order]
    colours = [
        CONTROL_COLOUR if arm in ("no-clamp", "random") else SYSTEM_COLOUR if arm == "system" else COLOURS[1] for arm in order
    ]
    at = np.arange(len(order))
    left.bar(at - 0.2, [rows[arm]["mentions"] for arm in order], 0.4, color=colours, label="sampled at temperature 1")
    left.bar(at + 0.2, [rows[arm]["greedy_mentions"] for arm in order], 0.4, color=colours, alpha=0.5, label="greedy")
    left.set_xticks(at, shown)
    left.set_ylim(0, 1)
    label(left, "neuron named by", "answers with the concept (share)")
    right.bar(shown, [rows[arm]["kl"] for arm in order], color=colours)
    label(right, "neuron named by", "KL on other texts (nats a token)")
    return fig


@dataclass(frozen=True)
class Whole:
    """All neurons of a model."""

    steps: int = 1500
    model: str = ""


@paper.experiment(
    presets={"smoke": Whole(steps=10), "quick": Whole(), "paper": Whole(model="meta-llama/Llama-3.1-8B")},
    cost=3.0,
)
def neuron_map(config: Whole, key, log: Log) -> Report:
    """How far first names stand out, by layer; how much they are one word; and what the norm before the MLP changes."""
    if config.model:
        source, texts = config.model, token_texts(load_tokenizer(config.model))
    else:
        source, texts = _chain(key, config.steps, log).model("base"), list(tiny.WORDS)
    arms, zmax = {}, []
    raw = None
    for k, (arm, norm) in enumerate(zip(("system", *NORMS[1:]), NORMS, strict=True)):
        made = decode_neurons(source, norm=norm)
        raw = raw or made
        folded = decode_neurons(source, norm=norm, fold_layer_norm=True)
        wordlike = np.array([any(c.isalpha() for c in text) for text in texts])
        arms[arm] = {
            "median_z": float(np.median(made.zmax)),
            "one_word": float(share_of_one_word(made.ids, texts).mean()),
            "wordlike": float(wordlike[made.ids[..., 0]].mean()),
            "names": len(np.unique(made.ids[..., 0])),
            "as_raw": float((made.ids[..., 0] == raw.ids[..., 0]).mean()),
            "as_folded": agreement(replace(made, folded=True), folded)[0],
        }
        zmax.append(made.zmax)
        log.progress(0.8 + 0.2 * (k + 1) / len(NORMS))
    return Report(arms=arms, arrays={"zmax": np.array(zmax, dtype=np.float32)})


@neuron_map.figure
def standing_out(runs: Runs):
    """How many neurons of each layer have a first name that stands out so far, for each decode."""
    zmax = runs["system"].arrays["zmax"]
    fig, axes = figure(3)
    edges = np.linspace(zmax.min(), np.quantile(zmax, 0.999), 25)
    for axis, values, norm in zip(axes, zmax, NORMS, strict=True):
        counts = np.array([np.histogram(np.clip(row, None, edges[-1]), edges)[0] for row in values])
        shown = axis.imshow(counts / values.shape[1], aspect="auto", origin="lower", cmap="viridis",
                            extent=(edges[0], edges[-1], -0.5, len(values) - 0.5))  # fmt: skip
        axis.set_yticks(range(0, len(values), max(1, len(values) // 8)))
        label(axis, "z of the first name (standard deviations)", "layer", norm.replace("_", " "))
    fig.colorbar(shown, ax=axes, label="share of the layer's neurons")
    return fig
