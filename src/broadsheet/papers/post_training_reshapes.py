"""How post-training reshapes language models, arXiv 2504.02904.

A base model and what was post-trained from it are compared from inside, on four axes: where knowledge is stored and whether it
carries over (activation patching), the direction of truth, the direction of refusal, and confidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from broadsheet.errors import MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Chain
from broadsheet.language.models import load_on, read_log_probabilities
from broadsheet.language.patch_maps import PatchMap, draw_map, normalise, similarity
from broadsheet.language.patched_runs import difference, patched, read, says
from broadsheet.language.patching import activation_patching, noise_patching
from broadsheet.language.statement_pairs import Pair, Question, TokenPairs, read_statement_pairs, tokenize_pairs
from broadsheet.language.tiny_chain import Recipe, links, tiny_chain
from broadsheet.language.tiny_model import answer_loss, measure
from broadsheet.language.tiny_world import World
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
    parts=("broadsheet.language.patching.activation_patching", "broadsheet.language.statement_pairs"),
    verbs=("broadsheet language patch BASE POST --pairs PAIRS.csv",),
    requires=("language",),
    notes=(
        "Quick runs compare the stages of a Llama of 219 456 parameters on a synthetic corpus; the paper's are Llama-3.1-8B, "
        "Llama-2-13B and Mistral-7B, which the paper preset loads by name, with statements from --data.",
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
    subject, known = (np.array([name.startswith(kind) for name in own.columns]) for kind in ("[subject", ("[object", ":")))
    made = np.zeros_like(own.mean)
    made[1:-1] = 0.5 * known
    made[0], made[-1, -1] = subject, 1.0
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

    return {
        "own_change": tuple(change(s, as_it_is, all_cells=True) for s in (false.states, false.states.roll(1, 2))),
        "whole_error": tuple(change(s, wanted, together=True) for s in (true.states, true.states.roll(1, 2))),
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
    fig.colorbar(image, ax=difference_axis, label="difference")
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
        label(axis, "post-trained model", title, legend=metric == "pearson")
    return fig
