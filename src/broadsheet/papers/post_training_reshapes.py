"""How post-training reshapes language models, arXiv 2504.02904.

A base model and what was post-trained from it are compared from inside, on four axes: where knowledge is stored and whether it
carries over (activation patching), the direction of truth, the direction of refusal, and confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from broadsheet.errors import DataError, MissingDataError
from broadsheet.files import MIB, read_text
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language import tiny_world as tiny
from broadsheet.language.anatomy import matrix, unembedding
from broadsheet.language.chain import Chain
from broadsheet.language.confidence import (
    entropy_neurons,
    iou,
    last_vectors,
    mean_ablated,
    mean_activations,
    read_confidence,
    select,
)
from broadsheet.language.directions import cosine, cosines, mass_mean, mass_mean_by_block, plane, transfer_table
from broadsheet.language.interventions import as_long_as, random_directions
from broadsheet.language.labelled import few_shot, read_examples, read_labelled, read_requests
from broadsheet.language.models import load_on, read_log_probabilities, tokenize
from broadsheet.language.patch_maps import PatchMap, draw_map, normalise, similarity
from broadsheet.language.patched_runs import difference, patched, read, says
from broadsheet.language.patching import activation_patching, noise_patching
from broadsheet.language.refusal import PHRASES, Requests, Steering
from broadsheet.language.statement_pairs import Pair, Question, TokenPairs, read_statement_pairs, tokenize_pairs
from broadsheet.language.suite import Suite
from broadsheet.language.tiny_chain import Recipe, links, tiny_chain
from broadsheet.language.tiny_model import answer_loss, measure
from broadsheet.language.tiny_tasks import CHAT, PLAIN, REFUSAL, SITES, truth_task
from broadsheet.language.tiny_tasks import requests as tiny_requests
from broadsheet.language.tiny_world import World
from broadsheet.language.truth import Exchange, Site, TruthTask, balanced_labels, choose_site
from broadsheet.numerics import seed_of

paper = Paper(
    slug="post-training-reshapes",
    arxiv="2504.02904",
    title="How Post-Training Reshapes LLMs: A Mechanistic View on Knowledge, Truthfulness, Refusal, and Confidence",
    published="2025-04-03",
    authors=8,
    basis="code",
    code="github.com/HZD01/post-training-mechanistic-analysis (MIT)",
    summary="What post-training changes inside a language model: where knowledge is stored stays, the direction of truth "
    "carries over, the direction of refusal changes, and confidence is not explained by entropy neurons.",
    topics=("interpretability", "post-training", "refusal"),
    parts=(
        "broadsheet.language.patching.activation_patching",
        "broadsheet.language.statement_pairs",
        "broadsheet.language.directions.Direction",
        "broadsheet.language.interventions.intervene",
        "broadsheet.language.refusal.Steering",
        "broadsheet.language.confidence.entropy_neurons",
    ),
    verbs=(
        "broadsheet language patch BASE POST --pairs PAIRS.csv",
        "broadsheet language directions MODEL --texts LABELLED.csv --transfer OTHER",
    ),
    requires=("language",),
    notes=(
        "Quick runs compare the stages of a Llama of 219 456 parameters on a synthetic corpus; the paper's are Llama-3.1-8B, "
        "Llama-2-13B and Mistral-7B, which the paper preset loads by name, with statements from --data.",
        "With a question, patching shows where the verdict is: states of another pair's true statement, which know nothing of "
        "the pair, turn it as well. Whether facts carry over is judged on prompts that end where the object is to be said.",
        "In three blocks much of a map is the same for any model: what goes in at the subject's embedding and comes out of the "
        "last block is fixed. K1 therefore looks between the ends as well; there the base of another seed has come out between "
        "0.44 and 0.99, so that in some seeds it meets the bounds, in others not.",
        "Directions of truth are read where the tiny base model uses them: at the block and token of the largest effect on its "
        "answers and accuracy on topics held out, which is mostly the colon before the answer.",
    ),
)


def _recipe(steps: int) -> Recipe:
    """The full recipe, or a short one of the same stages."""
    return Recipe() if steps == Recipe().pretrain else Recipe(steps, 2, 2, 2)


@dataclass(frozen=True)
class Stages:
    """The tiny model's stages."""

    steps: int = 1500  # of pretraining
    windows: int = 200  # of the corpus, for its loss
    chats: int = 64


@paper.experiment(
    presets={"smoke": Stages(steps=10, windows=20, chats=4), "quick": Stages(), "paper": Stages(windows=4000, chats=1000)},
    cost=8.0,
)
def fixture_chain(config: Stages, key, log: Log) -> Report:
    """Losses and abilities of base, SFT, DPO and reinforcement learning: what the other experiments compare."""
    recipe, world = _recipe(config.steps), World(0)
    chain = tiny_chain(seed_of(key), recipe=recipe, report=lambda fraction, metrics: log.progress(0.8 * fraction))
    probe, rng = world.probe(config.windows), np.random.default_rng(97)
    chats = [tiny.chat(*tiny.request_and_help(rng, harmful=False)) for _ in range(config.chats)]
    arms = {}
    for stage in chain.names:
        model = chain.model(stage)
        arms["system" if stage == "base" else stage] = {
            "corpus_loss": -read_log_probabilities(model, probe).mean(),
            "chat_loss": answer_loss(model, chats),
            **measure(model, world),
        }
    return Report(arms=arms)


@fixture_chain.figure
def abilities(runs: Runs):
    """Losses, and what each stage can do."""
    rows = {"base" if name == "system" else name: row for name, row in runs["system"].arms.items()}
    fig, (left, right) = figure(2)
    for metric, style, colour, title in (
        ("chat_loss", "o-", SYSTEM_COLOUR, "answers in chat"), ("corpus_loss", "s--", CONTROL_COLOUR, "corpus"),
    ):  # fmt: skip
        left.plot(list(rows), [row[metric] for row in rows.values()], style, color=colour, label=title)
    label(left, "stage", "loss (nats a token)")
    shares = {
        "facts": "facts completed", "truth": "true and false told apart", "answers": "questions answered in chat",
        "refuses_harmful": "harmful requests refused", "refuses_harmless": "harmless requests refused",
    }  # fmt: skip
    for k, (metric, title) in enumerate(shares.items()):
        right.plot(list(rows), [row[metric] for row in rows.values()], "os^vD"[k] + "-", color=COLOURS[k], label=title)
    label(right, "stage", "share")
    return fig


STAGES = ("sft", "dpo", "rl")
LIKE = [(metric, stage) for stage in STAGES for metric in ("pearson", "inner")]
EXAMPLES = (
    ("The city of Dar es Salaam is in Tanzania.", True), ("The city of Kozhikode is in India.", True),
    ("The city of Dar es Salaam is in Italy.", False), ("The city of Kozhikode is in the United States.", False),
)  # fmt: skip


@dataclass(frozen=True)
class Knowledge:
    """Pairs of a true and a false statement on cities, with the same country; a base model and those made from it."""

    pairs: int = 40
    steps: int = 1500  # of the tiny model's pretraining
    base: str = ""  # a folder, or a name on the Hugging Face Hub; empty: the tiny chain
    posts: tuple[str, ...] = STAGES
    data: str | None = None  # statements with labels, as the paper's code has them
    device: str = "cpu"
    precision: str = "float32"


@paper.experiment(
    presets={
        "smoke": Knowledge(pairs=3, steps=10),
        "quick": Knowledge(),
        "paper": Knowledge(
            pairs=238, base="meta-llama/Llama-3.1-8B", device="cuda", precision="bfloat16",
            posts=("meta-llama/Llama-3.1-8B-Instruct", "allenai/Llama-3.1-Tulu-3-8B-SFT"),
        ),
    },
    claims=[
        Claim("K1", "post-training leaves the places where knowledge is stored as they are", kind="paper",
              where="knowledge: patching within a model", ablation=("other-seed", "other-statement"), null="by-token",
              checks=[at_least(f"{metric}_{stage}", 0.9, within=(-1, 1)) for metric, stage in LIKE]),
        Claim("K2", "the base model's representation of a fact works in the post-trained model", kind="paper",
              where="knowledge: patching across models", ablation="other-statement", null="other-seed",
              checks=[*(at_least(f"carried_{stage}", 0.9, within=(0, 1)) for stage in STAGES),
                      *(at_least(f"cross_{stage}", 2.0, minus="other-seed") for stage in STAGES)]),
        Claim("K3", "a run's own states change nothing in it", kind="check", ablation="late",
              reference="the run as it is; control: each state one token late", checks=[at_most("own_change", 1e-5)]),
        Claim("K4", "with all states after a block the false statement's run becomes the true one's", kind="check",
              ablation="late", reference="D of the true statement; control: each state one token late",
              checks=[at_most("whole_error", 1e-4)]),
    ],
    data="data",
    cost=15.0,
)  # fmt: skip
def knowledge_patching(config: Knowledge, key, log: Log) -> Report:
    """Where states of a true statement turn the verdict on a false one, within each model and from the base into the others.

    Controls: the base of another seed; the true statement of another pair; a map that is drawn from the kinds of tokens alone;
    and, for what is exact, states that are put in one token late.
    """
    seed = seed_of(key)
    words, base, other, posts = _compared(config, seed, log)
    asked, unasked = _prompts(config, words)
    maps = {"base": activation_patching(base, base, asked), "noise": noise_patching(base, asked)}
    maps["other statement"] = activation_patching(base, base, asked.with_other_sources())
    if other is not None:
        maps["other seed"] = activation_patching(other, other, asked)
    exact = [_exactness(base, asked[:8])]
    arms: dict[str, dict[str, float]] = {"system": {}, "other-seed": {}, "other-statement": {}, "by-token": {}, "late": {}}
    sources = {"system": (base, asked, "base"), "other-statement": (base, asked.with_other_sources(), "other statement")}
    if other is not None:
        sources["other-seed"] = (other, asked, "other seed")
    stages = []
    for stage, post in posts:
        stages.append(stage)
        own = maps[stage] = activation_patching(post, post, asked)
        apart = similarity(maps["base"], own)
        arms["system"] |= {f"{name}_{stage}": apart[name] for name in ("largest_difference", "largest_at_knowledge")}
        arms["system"][f"noise_{stage}"] = similarity(maps["noise"], noise_patching(post, asked))["pearson"]
        arms["by-token"] |= _alike(_by_token(own), own, stage)
        for arm, (model, pairs, kind) in sources.items():
            cross = activation_patching(model, post, pairs)
            maps[f"{kind} into {stage}"] = cross
            arms[arm] |= _alike(maps[kind].mean, own, stage) | {f"cross_{stage}": cross.mean[1:].max()}
            told = unasked.with_other_sources() if arm == "other-statement" else unasked
            arms[arm][f"carried_{stage}"] = _carried(model, post, told)
        exact.append(_exactness(post, asked[:8]))
        log.progress(0.6 + 0.4 * len(stages) / len(config.posts))
    for arm, column in (("system", 0), ("late", 1)):
        arms[arm] |= {name: max(row[name][column] for row in exact) for name in exact[0]}
    return Report(
        arms={arm: row for arm, row in arms.items() if row},
        arrays={name.replace(" ", "_"): found.mean for name, found in maps.items()}
        | {"layers": maps["base"].layers, "columns": np.array(asked.names), "stages": np.array(stages)},
    )


def _compared(config: Knowledge, seed: int, log: Log) -> tuple[Any, Any, Any, Iterator[tuple[str, Any]]]:
    """Tokenizer, the base, the base of another seed where there is one, and the others by name, one at a time."""
    if config.base:
        options = {"precision": config.precision}
        base, words = load_on(config.device, config.base, **options)
        posts = ((name.rsplit("/")[-1], load_on(config.device, name, **options)[0]) for name in config.posts)
        return words, base, None, posts
    recipe = _recipe(config.steps)
    chain = tiny_chain(seed, recipe=recipe, report=lambda fraction, metrics: log.progress(0.4 * fraction))
    other = Chain(links(recipe)[:1], seed=seed + 1, attention="eager").build(lambda share, _: log.progress(0.4 + 0.2 * share))
    return chain.words("base"), chain.model("base"), other.model("base"), ((name, chain.model(name)) for name in config.posts)


def _prompts(config: Knowledge, words: Any) -> tuple[TokenPairs, TokenPairs]:
    """The pairs as prompts, asked whether they are true, and ending where the country is to be said."""
    if not config.base:
        pairs = _tiny_pairs(World(0), config.pairs + 2)
        question = Question(" this statement is :", start="<bos> ", between=" ")
        spoken = [Pair(pair.true.removesuffix(" ."), pair.false.removesuffix(" .")) for pair in pairs]
        forms = ((pairs, question), (spoken, replace(question, asked=False)))
        asked, unasked = (tokenize_pairs(words, some, question=form)[0][0] for some, form in forms)
        return asked, unasked
    if config.data is None:
        raise MissingDataError("Statements are needed: pass --data FILE.csv (the paper: cities.csv of its code's datasets).")
    found = read_statement_pairs(config.data, words)[0][: config.pairs]
    asked, unasked = (
        tokenize_pairs(words, found, examples=EXAMPLES, question=Question(asked=form))[0][0] for form in (True, False)
    )
    return asked, unasked


def _tiny_pairs(world: World, count: int, seed: int = 0) -> list[Pair]:
    """Statements on cities of the tiny world: two subjects of different objects, and the first one's object said of both."""
    objects = world.objects["city"]
    apart = [(a, b) for a in range(tiny.SUBJECTS) for b in range(tiny.SUBJECTS) if objects[a] != objects[b]]
    drawn = np.random.default_rng(seed).permutation(apart)[:count]
    return [
        Pair(world.statement("city", a), world.statement("city", b, int(objects[a] - objects[b]) % tiny.OBJECTS))
        for a, b in drawn.tolist()
    ]


def _alike(values: np.ndarray, own: PatchMap, stage: str) -> dict[str, float]:
    """Correlations of a map with a model's own: in steps, over all cells; and as it is, over those that differ between models.

    What goes in at the embedding, and what comes out of the last block, is the same in every model by construction.
    """
    inner = slice(1, -1)
    return {
        f"pearson_{stage}": np.corrcoef(normalise(values).ravel(), own.normalised.ravel())[0, 1],
        f"inner_{stage}": np.corrcoef(values[inner].ravel(), own.mean[inner].ravel())[0, 1],
    }


def _by_token(own: PatchMap) -> np.ndarray:
    """A map without a model: all at the subject in the embedding and at the last token in the end, half at objects and the last
    token between."""
    made = np.zeros_like(own.mean)
    made[0] = [name.startswith("[subject") for name in own.columns]
    made[1:-1] = [0.5 * name.startswith("[object") for name in own.columns]
    made[1:-1, -1], made[-1, -1] = 0.5, 1.0
    return made


def _carried(source: Any, target: Any, pairs: TokenPairs) -> float:
    """Share of pairs in which the target says the source's true object when one state of its own is the source's: at the best
    place below the last block, where that state would be an answer rather than the way to one."""
    found = []
    for start in range(0, len(pairs), 64):
        some = pairs[start : start + 64]
        assert some.objects is not None
        true, false = read(source, some.true, some.columns), read(target, some.false, some.columns)
        found.append(patched(target, false, true.states, says(some.objects))[:, 1:-1].cpu().numpy())
    return float(np.concatenate(found).mean(0).max())


def _exactness(model: Any, pairs: TokenPairs) -> dict[str, tuple[float, float]]:
    """Largest changes of D in identities of patching: as it is, and with each state one token late."""
    assert pairs.answers is not None
    true, false = (read(model, ids, pairs.columns) for ids in (pairs.true, pairs.false))
    score = difference(*(pairs.true.new_full((len(pairs),), answer) for answer in pairs.answers))
    every = pairs.true.new_tensor(range(len(pairs))).to(false.logits.device)
    as_it_is, wanted = (score(run.logits, every)[:, None, None] for run in (false, true))

    def change(states: Any, than: Any, **options: Any) -> float:
        return float((patched(model, false, states, score, **options) - than).abs().max())

    own, whole = ((states, states.roll(1, 2)) for states in (false.states, true.states))
    return {
        "own_change": (change(own[0], as_it_is, all_cells=True), change(own[1], as_it_is, all_cells=True)),
        "whole_error": (change(whole[0], wanted, together=True), change(whole[1], wanted, together=True)),
    }


@knowledge_patching.figure
def maps(runs: Runs):
    """D after patching, by block and token: within each model, across models, and in the controls."""
    data = runs["system"].arrays
    stages = [str(stage) for stage in data["stages"]]
    last = stages[-1]
    shown = ["base", *stages, f"base into {last}"]
    shown += [
        f"{kind} into {last}" for kind in ("other statement", "other seed") if f"{kind}_into_{last}".replace(" ", "_") in data
    ]
    columns = 4
    rows = -(-(len(shown) + 1) // columns)
    fig, axes = figure(columns, rows, width=3.6, height=2.9)
    found = {name: data[name.replace(" ", "_")] for name in shown}
    limit = max(np.abs(values).max() for values in found.values())
    layers, tokens = [int(layer) for layer in data["layers"]], [str(name) for name in data["columns"]]
    for axis, (name, values) in zip(axes.flat, found.items(), strict=False):
        image = draw_map(axis, values, layers, tokens, limit, name)
    fig.colorbar(image, ax=axes, label="D = logit(TRUE) - logit(FALSE)", shrink=0.6)
    difference_axis = axes.flat[len(found)]
    image = draw_map(
        difference_axis, normalise(found["base"]) - normalise(found[last]), layers, tokens, 1.0, f"base less {last}, in steps"
    )
    fig.colorbar(image, ax=difference_axis, location="top", shrink=0.8)
    for axis in axes.flat[len(found) + 1 :]:
        axis.remove()
    return fig


@knowledge_patching.figure
def likeness(runs: Runs):
    """How alike the maps are, what the base's states do in the others, and the controls beside them."""
    rows = {name: row for name, row in runs["system"].arms.items() if name != "late"}
    stages = [str(stage) for stage in runs["system"].arrays["stages"]]
    metrics = {
        "pearson": "correlation of the maps, in steps", "inner": "correlation between the ends",
        "cross": "largest D across models", "carried": "facts carried over (share)",
    }  # fmt: skip
    fig, axes = figure(4, width=3.4)
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        there = {name: row for name, row in rows.items() if f"{metric}_{stages[0]}" in row}
        for k, (name, row) in enumerate(there.items()):
            places = np.arange(len(stages)) + 0.8 * (k - (len(there) - 1) / 2) / len(there)
            colour = SYSTEM_COLOUR if name == "system" else ("#c8c8c8", CONTROL_COLOUR, "#6e6e6e")[k - 1]
            axis.bar(places, [row[f"{metric}_{stage}"] for stage in stages], 0.8 / len(there), color=colour, label=name)
        axis.set_xticks(range(len(stages)), stages)
        axis.axhline(0, color="black", lw=0.6)
        label(axis, "post-trained model", title, legend=False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return fig


LLAMA = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "allenai/Llama-3.1-Tulu-3-8B-SFT")
IN_THE_ANSWER = (
    "in the tiny model truth is settled where the answer is given: the difference of TRUE and FALSE in the unembedding, which "
    "no statement is needed for, does what the fitted direction does"
)


@dataclass(frozen=True)
class Truth:
    """Labelled statements on several topics, one of them kept for the test."""

    steps: int = 1500  # of pretraining, of the tiny chain
    models: tuple[str, ...] = ()  # the base first, in folders or on the Hub; none: the tiny chain
    data: str | None = None  # a folder of CSV files of statements, with few_shot_samples.json
    train: tuple[str, ...] = ("sp_en_trans", "animal_class", "inventors", "element_symb", "facts")
    test: str = "cities"
    first: int = 8  # of the blocks after which the direction is added
    layer: int = 12  # the last of them, after which it is fitted
    draws: int = 5  # sets of random directions
    device: str = "cpu"
    precision: str = "float32"


@paper.experiment(
    presets={
        "smoke": Truth(steps=10, draws=1),
        "quick": Truth(),
        "paper": Truth(models=LLAMA, device="cuda", precision="bfloat16"),
    },
    claims=[
        Claim("T1", "the direction of truth is nearly the same after post-training", kind="paper", where="truthfulness",
              ablation="other-label", null=("answer-words", "foreign", "random"), checks=[at_least("cosine", 0.9)],
              reason=IN_THE_ANSWER),
        Claim("T2", "a probe of truth carries over to the other model", kind="paper", where="truthfulness",
              ablation="other-label", null=("bag-of-words", "embedding", "answer-words", "random"), reason=IN_THE_ANSWER,
              checks=[at_least("own_base", 0.9), at_most("forward_loss", 0.08), at_most("backward_loss", 0.2)]),
        Claim("T3", "an intervention along it carries over to the other model", kind="paper", where="truthfulness",
              ablation="other-label", null=("answer-words", "foreign", "random"), reason=IN_THE_ANSWER,
              checks=[at_least("nie_least", 0.75), at_most("nie_gap", 0.2)]),
        Claim("P1", "what both directions do in Llama-3.1-8B and in Instruct, on cities", kind="paper", where="truthfulness",
              ablation="other-label", null=("answer-words", "random"), seeds=1,
              published="0.829, 0.822, 0.896, 0.877 (base in base, instruct in base, base in instruct, instruct in instruct)",
              checks=[equals(f"nie_{pair}", {"paper": value}, tol=0.05) for pair, value in
                      (("base_base", 0.829), ("post_base", 0.822), ("base_post", 0.896), ("post_post", 0.877))]),
    ],
    data="data",
    cost=20.0,
)  # fmt: skip
def truthfulness(config: Truth, key, log: Log) -> Report:
    """Directions of truth of a base model and of what was made of it: alike, and exchangeable as probes and interventions."""
    seed = seed_of(key)
    suite = _suite(config, seed, log)
    task, sites = _truth_task(config, suite.words)
    site, scores = choose_site(suite[suite.base], task, sites)
    here = Exchange(suite, suite.names, task, site)
    other = balanced_labels(task.labels, task.groups, seed)
    arms = {
        "system": here.own,
        "other-label": {name: task.fit(states, site, other) for name, states in here.states.items()},
        "answer-words": here.words,
    }
    if not config.models:
        stranger = Suite.tiny(seed + 1, recipe=_recipe(config.steps))
        arms["foreign"] = here.own | {suite.base: task.fit(task.states(stranger[stranger.base], site), site)}
    for k in range(config.draws):
        vectors = random_directions(here.own[suite.base].vector, len(suite.names), seed * 1000 + k)
        arms[f"random {k}"] = {name: here.along(name, vector) for name, vector in zip(suite.names, vectors, strict=True)}
    log.progress(0.7)
    here.prepare(arms.values())
    found = {arm: here.readings(directions) for arm, directions in arms.items()}
    drawn = [found.pop(arm) for arm in list(found) if arm.startswith("random")]
    found["random"] = {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}
    table = transfer_table(here.states, task.labels, task.groups)
    by_block = {
        (name, kind): mass_mean_by_block(suite[name], task.rows, labels, task.groups, position=site.position)
        for name in suite.names
        for kind, labels in (("truth", task.labels), ("other", other))
    }
    stays = {
        kind: [cosines(by_block[suite.base, kind], by_block[name, kind]) for name in suite.post] for kind in ("truth", "other")
    }
    return Report(
        arms=found | {"bag-of-words": here.from_words(), "embedding": here.from_embeddings()},
        arrays={
            "models": suite.names, "site": (site.layer, site.position), "scores": scores, "labels": task.labels,
            "table": [[table[a, b] for b in suite.names] for a in suite.names], "cosines": stays["truth"],
            "other_cosines": stays["other"], "plain": [here.plain[name] for name in suite.names],
            "planes": [plane(here.states[name], task.groups) for name in suite.names[:2]],
        },
    )  # fmt: skip


@truthfulness.figure
def statements_apart(runs: Runs):
    """True and false statements in the plane of most variance, in the base and in the first model made of it."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    for axis, name, points in zip(axes, data["models"], data["planes"], strict=False):
        for truth, title, colour in ((1, "true", SYSTEM_COLOUR), (0, "false", COLOURS[1])):
            some = points[data["labels"] == truth]
            axis.plot(some[:, 0], some[:, 1], "o", ms=3, alpha=0.6, color=colour, label=title)
        label(axis, "first principal component", "second", title=f"{name}, after block {data['site'][0]}")
    return fig


@truthfulness.figure
def directions_alike(runs: Runs):
    """Cosine of the base's direction and each other model's by block, and accuracy of each model's direction in each."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for k, name in enumerate(data["models"][1:]):
        left.plot(data["cosines"][k], "o-", ms=4, color=COLOURS[k], label=f"truth, {name}")
        left.plot(data["other_cosines"][k], "s--", ms=3, color=CONTROL_COLOUR, label="labels without truth" if k == 0 else None)
    left.set_xticks(range(len(data["cosines"][0])))
    label(left, "block", "cosine to the base's direction")
    _matrix(fig, right, data["table"], list(map(str, data["models"])), "accuracy (topics held out)")
    return fig


@truthfulness.figure
def answers_turned(runs: Runs):
    """What a direction does to the answers, by whose it is and in which model, beside the controls."""
    arms = runs["system"].arms
    shown = [arm for arm in ("system", "answer-words", "foreign", "other-label", "random") if arm in arms]
    pairs = {"base_base": "base in base", "post_base": "post in base", "base_post": "base in post", "post_post": "post in post"}
    fig, axis = figure(width=7.5)
    for k, arm in enumerate(shown):
        at = np.arange(len(pairs)) + 0.16 * (k - (len(shown) - 1) / 2)
        colour = SYSTEM_COLOUR if arm == "system" else CONTROL_COLOUR
        named = "fitted" if arm == "system" else arm
        axis.bar(at, [arms[arm][f"nie_{pair}"] for pair in pairs], 0.14, color=colour, alpha=1 - 0.2 * max(k - 1, 0),
                 hatch=["", "", "//", "..", "xx"][k], edgecolor="white", label=named)  # fmt: skip
    axis.set_xticks(range(len(pairs)), list(pairs.values()))
    axis.set_ylim(top=1.45)
    label(axis, "whose direction, in which model", "normalised effect on the answer")
    return fig


@dataclass(frozen=True)
class Refusing:
    """Harmful and harmless requests."""

    steps: int = 1500  # of pretraining, of the tiny chain
    models: tuple[str, ...] = ()  # the base first; none: the tiny chain
    data: str | None = None  # a folder with harmful_behaviors.csv, alpaca_data.json and the statements
    train: tuple[str, ...] = Truth.train
    test: str = Truth.test
    layer: int = 2  # block after which the directions that are compared are read
    target: str = "dpo"  # model that they are carried to
    requests: int = 128  # of each kind, for the directions
    asked: int = 100  # of each kind, for the test
    tokens: int = 2  # of an answer
    plain: str = PLAIN  # the base's template
    chat: str = CHAT  # the others'
    positions: tuple[int, int] = (-1, -1)  # where states are read, in the plain template and in the other
    draws: int = 5  # random directions
    device: str = "cpu"
    precision: str = "float32"


LLAMA_CHAT = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


@paper.experiment(
    presets={
        "smoke": Refusing(steps=10, requests=12, asked=6, draws=1),
        "quick": Refusing(),
        "paper": Refusing(models=LLAMA[:2], layer=10, target="Llama-3.1-8B-Instruct", tokens=16, plain="User: {}\nAssistant:",
                          chat=LLAMA_CHAT, positions=(-4, -2), device="cuda", precision="bfloat16"),
    },
    claims=[
        Claim("R1", "refusal is one direction of a post-trained model", kind="paper", where="refusal", ablation="halves",
              null=("random", "first-words", "foreign"),
              checks=[at_least("added", 0.8), at_least("before", 0.95), at_most("ablated", 0.2)]),
        Claim("R2", "the base's direction of refusal carries over to the post-trained model in part only", kind="paper",
              where="refusal", ablation="own-in-plain", null="random",
              checks=[at_least("forward_gap", 0.5), at_least("sft_added", 0.8)],
              reason="where the tiny base has learned from its documents what is refused, its direction makes the post-trained "
              "model refuse as much as that model's own does; only a base that has not learned it has nothing to carry over"),
        Claim("R3", "post-training turns the direction of refusal more than that of truth", kind="paper", where="refusal",
              ablation="after-sft", null="halves", checks=[at_least("turned", 0.1, over="mean")], seeds=8,
              reason="the difference of two halves of the harmless requests, which stands for nothing, turns at least as much: "
              "a short direction turns easily"),
    ],
    data="data",
    cost=20.0,
)  # fmt: skip
def refusal(config: Refusing, key, log: Log) -> Report:
    """Directions of refusal of a base model and of what was made of it: what they do, and how far they are the same."""
    seed = seed_of(key)
    suite = _suite(config, seed, log)
    layer, target, base = config.layer, config.target, suite.base
    plain, chat = (_requests(config, suite, template, at) for template, at in
                   zip((config.plain, config.chat), config.positions, strict=True))  # fmt: skip
    stranger = suite if config.models else Suite.tiny(seed + 1, recipe=_recipe(config.steps))
    steer = {
        name: Steering(suite[name], suite.words, chat, tokens=config.tokens, phrases=PHRASES if config.models else REFUSAL)
        for name in suite.post
    }
    own, nothing = _by_model(chat, suite, suite.names)
    own_plain, nothing_plain = _by_model(plain, suite, suite.names)
    foreign, _ = _by_model(chat, stranger, suite.post)
    log.progress(0.7)

    def effects(vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The smallest share of harmless requests refused with a vector added, at the length of the model's own, and the share
        of harmful ones refused by the target with and without its component; each after the block that is best for it."""
        long = {
            name: np.array([as_long_as(*pair) for pair in zip(own[name], vectors[name], strict=True)]) for name in suite.post
        }
        best = {name: steer[name].best(long[name], [layer] if config.models else None) for name in suite.post}
        return {
            "added": min(steer[name].added(long[name][at], at) for name, (at, _) in best.items()),
            "ablated": steer[target].ablated(vectors[target][best[target][1]]),
            "before": steer[target].before()[0],
        }

    def into_target(vector: np.ndarray) -> float:
        return steer[target].added(as_long_as(own[target][layer], vector), layer)

    blocks = len(own[base])
    drawn = [random_directions(own[base][0], 2 * blocks, seed * 1000 + k).reshape(2, blocks, -1) for k in range(config.draws)]
    chance = [effects(dict.fromkeys(suite.post, one)) for one, _ in drawn]
    words = {name: np.tile(steer[name].first_words(), (blocks, 1)) for name in suite.post}
    added = {
        "own": into_target(own[target][layer]), "base": into_target(own_plain[base][layer]),
        "base-in-chat": into_target(own[base][layer]), "own-in-plain": into_target(own_plain[target][layer]),
        "random": float(np.mean([into_target(other[layer]) for _, other in drawn])),
        **{name: into_target(own[name][layer]) for name in suite.post if name != target},
    }  # fmt: skip
    gap = {source: {"forward_gap": added["own"] - added[source], "sft_added": added.get("sft", np.nan)} for source in added}
    log.progress(0.9)

    task, sites = _truth_task(config, suite.words)
    truth = {name: mass_mean(task.states(suite[name], Site.one(layer, sites[-1].position)), task.labels, task.groups)
             for name in suite.names}  # fmt: skip

    def turned(directions: Mapping[str, np.ndarray], start: str) -> float:
        """How much less a direction stays than that of truth does, from a model to those after it."""
        after = suite.names[suite.names.index(start) + 1 :]
        stays = [
            cosine(truth[start], truth[name]) - cosine(directions[start][layer], directions[name][layer]) for name in after
        ]
        return float(np.mean(stays))

    first = suite.post[0] if len(suite.post) > 1 else base
    arms = {
        "system": effects(own) | gap["base"] | {
            "turned": turned(own_plain, base), "turned_by_templates": turned(own | {base: own_plain[base]}, base),
        },
        "halves": effects(nothing) | {"turned": turned(nothing_plain, base)},
        "first-words": effects(words), "foreign": effects(foreign),
        "random": {name: float(np.mean([one[name] for one in chance])) for name in chance[0]} | gap["random"],
        "own-in-plain": gap["own-in-plain"], "base-in-chat": gap["base-in-chat"],
        "after-sft": {"turned": turned(own_plain, first)},
    }  # fmt: skip
    return Report(
        arms=arms,
        arrays={
            "models": suite.names, "sources": list(added), "added": list(added.values()), "site": (layer,),
            "before": [steer[name].before() for name in suite.post],
            "norms": [[np.linalg.norm(found[name], axis=1) for name in suite.names] for found in (own_plain, own)],
            "cosines": [cosines(own_plain[base], own_plain[name]) for name in suite.post],
            "template_cosines": [cosines(own_plain[base], own[name]) for name in suite.post],
            "nothing_cosines": [cosines(nothing_plain[base], nothing_plain[name]) for name in suite.post],
        },
    )  # fmt: skip


def _by_model(requests: Requests, models: Suite, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Directions of refusal of models by block, and those of nothing."""
    found = {name: requests.directions(models[name]) for name in names}
    return {name: pair[0] for name, pair in found.items()}, {name: pair[1] for name, pair in found.items()}


@refusal.figure
def refusal_by_block(runs: Runs):
    """Cosine of the base's direction of refusal and each other model's by block: in one template, and each in its own."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2, width=4.8, height=3.6)
    left.set_ylim(top=1.9)
    for k, name in enumerate(data["models"][1:]):
        left.plot(data["cosines"][k], "o-", ms=4, color=COLOURS[k], label=f"{name}, the base's template")
        left.plot(data["template_cosines"][k], "^:", ms=4, color=COLOURS[k], label=f"{name}, its own")
        left.plot(data["nothing_cosines"][k], "s--", ms=3, color=CONTROL_COLOUR, label=None if k else "halves of harmless ones")
    left.set_xticks(range(len(data["cosines"][0])))
    label(left, "block", "cosine to the base's direction")
    for k, name in enumerate(data["models"]):
        right.semilogy(data["norms"][0][k], "o-", ms=4, color=([SYSTEM_COLOUR, *COLOURS[1:]] * 2)[k], label=name)
    right.set_xticks(range(len(data["cosines"][0])))
    label(right, "block", "length of the direction")
    return fig


@refusal.figure
def steered_into_refusal(runs: Runs):
    """Requests refused with directions added or taken out; and with directions of other models added to the target."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, (left, right) = figure(2, width=5.2)
    shown = ["system", "first-words", "foreign", "halves", "random"]
    for k, (metric, title) in enumerate((("added", "harmless, added"), ("ablated", "harmful, taken out"))):
        left.bar(np.arange(len(shown)) + 0.4 * k - 0.2, [arms[arm][metric] for arm in shown], 0.36, label=title,
                 color=[SYSTEM_COLOUR, COLOURS[1]][k])  # fmt: skip
    left.axhline(arms["system"]["before"], color=CONTROL_COLOUR, ls="--", label="harmful, unchanged")
    left.set_ylim(top=1.5)
    left.set_xticks(range(len(shown)), ["own", *shown[1:]])
    label(left, "direction", "requests refused (share)")
    plain = ("base", "random", "own-in-plain", "base-in-chat")
    right.barh(
        data["sources"], data["added"], color=[CONTROL_COLOUR if name in plain else SYSTEM_COLOUR for name in data["sources"]]
    )
    label(right, "harmless requests refused (share)", "direction added to the target")
    return fig


@dataclass(frozen=True)
class Sureness:
    """Texts to be sure or unsure of."""

    steps: int = 1500  # of pretraining, of the tiny chain
    models: tuple[str, ...] = ()  # the base first; none: the tiny chain
    data: str | None = None  # texts, one a line
    texts: int = 100
    max_length: int = 128
    neurons: int = 10  # candidates
    draws: int = 5  # random sets of neurons, and random statistics
    device: str = "cpu"
    precision: str = "float32"


@paper.experiment(
    presets={
        "smoke": Sureness(steps=10, texts=6, draws=1),
        "quick": Sureness(),
        "paper": Sureness(models=LLAMA, texts=1000, device="cuda", precision="bfloat16"),
    },
    claims=[
        Claim("C1", "the entropy neurons stay the same ones", kind="paper", where="confidence", ablation="other-seed",
              null=("other-statistic", "random-neurons"), checks=[at_least("overlap", 0.25)],
              reason="neurons chosen by a statistic that means nothing stay as much the same ones: the weights hardly move"),
        Claim("C2", "entropy neurons do not explain how confidence changes", kind="paper", where="confidence",
              no_ablation="the claim is that an ablation does little", null="random-neurons",
              checks=[at_most("explained", {"quick": 0.5, "paper": 0.5})],
              reason="as many neurons drawn at random explain as little: that they do not explain it sets no neurons apart"),
    ],
    data="data",
    cost=20.0,
)  # fmt: skip
def confidence(config: Sureness, key, log: Log) -> Report:
    """Entropy neurons of a base model and of what was made of it, and what they have to do with how sure each is."""
    seed = seed_of(key)
    suite = _suite(config, seed, log)
    rows, rng = _rows_to_read(config, suite), np.random.default_rng(seed)
    found = {name: entropy_neurons(suite[name], n=config.neurons) for name in suite.names}
    sure = {name: read_confidence(suite[name], rows) for name in suite.names}
    means = {name: mean_activations(suite[name], rows) for name in suite.names}
    log.progress(0.7)
    base, post = suite.base, suite.post
    chosen = {name: here.candidates for name, here in found.items()}
    width = matrix(unembedding(suite[base])).shape[1]

    def overlap(sets: Mapping[str, np.ndarray]) -> float:
        return float(np.mean([iou(sets[base], sets[name]) for name in post]))

    def by(statistic: np.ndarray) -> dict[str, np.ndarray]:
        """Neurons chosen as entropy neurons are, by the cosine with any direction in place of the variance."""
        return {name: select(here.norms, np.abs(last_vectors(suite[name]) @ statistic) / here.norms, n=config.neurons)
                for name, here in found.items()}  # fmt: skip

    def held(name: str, neurons: np.ndarray) -> float:
        """Mean entropy with neurons held at their mean activations."""
        with mean_ablated(suite[name], neurons, means[name]):
            return float(read_confidence(suite[name], rows).entropy.mean())

    def drawn() -> np.ndarray:
        return rng.choice(len(found[base].norms), config.neurons, replace=False)

    entropy = {name: float(here.entropy.mean()) for name, here in sure.items()}
    ablated = {name: held(name, chosen[name]) for name in suite.names}
    rows_drawn = [{name: held(name, one) for name in suite.names} for one in (drawn() for _ in range(config.draws))]
    gaps = {name: entropy[name] - entropy[base] for name in post}

    def explained(after: Mapping[str, float]) -> float:
        """Share of the sum of the gaps in entropy between the base and the others that is gone."""
        left = sum(abs(after[name] - after[base]) for name in post)
        return 1 - left / sum(map(abs, gaps.values()))

    arms = {
        "system": {
            "overlap": overlap(chosen), "explained": explained(ablated),
            "ratio_change": float(np.mean([np.abs(found[name].ratio / found[base].ratio - 1).mean() for name in post])),
            **{f"{kind}_{'base' if name == base else 'post'}": value for name in (base, post[-1])
               for kind, value in sure[name].summary().items()},
        },
        "other-statistic": {
            "overlap": float(np.mean([overlap(by(rng.standard_normal(width))) for _ in range(config.draws)]))},
        "random-neurons": {
            "overlap": float(np.mean([overlap({name: drawn() for name in suite.names}) for _ in range(config.draws)])),
            "explained": float(np.mean([explained(one) for one in rows_drawn])),
        },
    }  # fmt: skip
    if not config.models:
        stranger = Suite.tiny(seed + 1, recipe=_recipe(config.steps))
        foreign = entropy_neurons(stranger[stranger.base], n=config.neurons).candidates
        arms["other-seed"] = {"overlap": overlap(chosen | {base: foreign})}
    return Report(
        arms=arms,
        arrays={
            "models": suite.names, "norms": [here.norms for here in found.values()],
            "logit_var": [here.logit_var for here in found.values()], "candidates": list(chosen.values()),
            "entropy": list(entropy.values()), "ablated": list(ablated.values()),
            "drawn": np.mean([list(one.values()) for one in rows_drawn], axis=0),
            "ece": [here.ece for here in sure.values()], "largest": [here.largest.mean() for here in sure.values()],
        },
    )  # fmt: skip


@confidence.figure
def long_and_even(runs: Runs):
    """Length of each neuron's output vector of the last block and variance of its cosine with the words, in each model."""
    data = runs["system"].arrays
    fig, axes = figure(len(data["models"]), width=3.4)
    marks = {"mfc": "none", "ms": 7, "color": COLOURS[1]}
    for k, (axis, name) in enumerate(zip(axes, data["models"], strict=True)):
        norms, variances = data["norms"][k], data["logit_var"][k]
        old, own = data["candidates"][0], data["candidates"][k]
        axis.semilogy(norms, variances, "o", ms=3, alpha=0.5, color=CONTROL_COLOUR, label="neurons")
        axis.semilogy(norms[old], variances[old], "s", **marks, label="candidates of the base")
        axis.semilogy(norms[own], variances[own], "o", ms=4, color=SYSTEM_COLOUR, label="of this model")
        label(axis, "length of the output vector", "LogitVar", title=str(name), legend=k == 0)
    return fig


@confidence.figure
def how_sure(runs: Runs):
    """Entropy of the next token, as it is and with neurons held at their means; and calibration."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    at = np.arange(len(data["models"]))
    for k, (name, title, colour) in enumerate((
        ("entropy", "as it is", SYSTEM_COLOUR), ("ablated", "without entropy neurons", COLOURS[1]),
        ("drawn", "without neurons drawn at random", CONTROL_COLOUR),
    )):  # fmt: skip
        left.bar(at + 0.27 * (k - 1), data[name], 0.25, color=colour, label=title)
    left.set_xticks(at, data["models"])
    left.set_ylim(0, 1.35 * max(data["entropy"]))
    label(left, "model", "entropy (nats a token)")
    right.plot(data["models"], data["ece"], "o-", color=SYSTEM_COLOUR, label="calibration error")
    right.plot(data["models"], data["largest"], "s--", color=COLOURS[1], label="largest probability")
    right.set_ylim(0, 1)
    label(right, "model", "mean over tokens")
    return fig


def _suite(config: Truth | Refusing | Sureness, seed: int, log: Log) -> Suite:
    """The tiny chain, or the models that are named."""
    if config.models:
        if config.data is None:
            raise MissingDataError(
                "Data are needed: pass --data FOLDER with the statements of the paper's code (cities.csv, …, "
                "few_shot_samples.json), and for refusal harmful_behaviors.csv of AdvBench and alpaca_data.json; "
                "for confidence --data FILE with one text a line."
            )
        return Suite.named(config.models, device=config.device, precision=config.precision, keep=len(config.models))
    return Suite.tiny(seed, recipe=_recipe(config.steps), report=lambda fraction, _: log.progress(0.4 * fraction))


def _truth_task(config: Truth | Refusing, words: Any) -> tuple[TruthTask, list[Site]]:
    """Statements with their prompts, and the places that are tried for a direction."""
    if not config.models:
        return truth_task(World(0)), SITES
    folder, question, rows = Path(str(config.data)), Question(), {}
    statements = {topic: read_labelled(folder / f"{topic}.csv") for topic in (*config.train, config.test)}
    examples = read_examples(folder / "few_shot_samples.json")
    if config.test not in examples:
        raise DataError(f"{folder / 'few_shot_samples.json'} has no examples for {config.test}.")
    for truth in (1, 0):
        some = statements[config.test].where(statements[config.test].labels == truth)
        rows[truth] = words(few_shot(some.texts, examples[config.test], question))["input_ids"]
    texts = [text for found in statements.values() for text in found.texts]
    asked = words([text + question.text for text in texts])["input_ids"]
    suffix = len(asked[0]) - len(words(texts[0])["input_ids"])
    site = Site(config.layer, -suffix - 1, tuple(range(getattr(config, "first", config.layer), config.layer + 1)),
                (-suffix - 2, -suffix - 1))  # fmt: skip
    labels = np.concatenate([found.labels for found in statements.values()])
    groups = np.repeat(list(statements), [len(found) for found in statements.values()])
    answers = tuple(words(answer, add_special_tokens=False)["input_ids"][-1] for answer in (question.true, question.false))
    return TruthTask(asked, labels, groups, {config.test: (rows[1], rows[0])}, answers, config.test), [site]


def _requests(config: Refusing, suite: Suite, template: str, position: int) -> Requests:
    """Requests of both kinds under a template, four fifths of them for directions."""

    def parts(kind: str, file: str) -> tuple[list[list[int]], list[list[int]]]:
        found = read_requests(Path(str(config.data)) / file) if config.models else tiny_requests(kind)
        fit, test = train_test_split(found, test_size=0.2, random_state=42)
        fit, test = (
            suite.rows([template.format(text) for text in some]) for some in (fit[: config.requests], test[: config.asked])
        )
        return fit, test

    return Requests(parts("harmful", "harmful_behaviors.csv"), parts("harmless", "alpaca_data.json"), position=position)


def _rows_to_read(config: Sureness, suite: Suite) -> list[list[int]]:
    """Token ids of the texts."""
    if not config.models:
        return World(0).probe(config.texts).tolist()
    texts = [line for line in read_text(str(config.data), 1024 * MIB).splitlines() if line.strip()]
    return tokenize(suite.words, texts[: config.texts], config.max_length, min_tokens=2)


def _matrix(fig: Any, axis: Any, values: np.ndarray, names: Sequence[str], title: str) -> None:
    """A square table of models by models."""
    image = axis.imshow(values, vmin=0.5, vmax=1, cmap="Blues")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axis.text(
                j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.8 else "black", fontsize="small"
            )
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    label(axis, "looked at in", "fitted on")
    fig.colorbar(image, ax=axis, label=title)
