"""Jointly reinforcing diversity and quality in language model generations (DARLING), arXiv 2509.02534.

A model is trained by GRPO without division by the deviation on quality times diversity: the share of the other answers to a
prompt that mean something else. Rivals at the same budget: quality alone, the diversities of a group dealt out at random, a
bonus for entropy, the wording in place of the meaning, and heat alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from broadsheet.errors import InputError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language.diversity.ngrams import NGramDiversity
from broadsheet.language.diversity.partitions import closed as closed_classes
from broadsheet.language.diversity.problems import Look, Problem, closed, conversations, mathematics
from broadsheet.language.diversity.rewards import DarlingReward
from broadsheet.language.diversity.scores import FUSIONS, Fusion, darling_reward, diversity
from broadsheet.language.diversity.training import Judged, reinforced, trained_classifier
from broadsheet.language.make_number import MANY_WORDS, MakeNumber
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="darling",
    arxiv="2509.02534",
    title="Jointly Reinforcing Diversity and Quality in Language Model Generations",
    published="2025-09-02",
    authors=8,
    basis="code",
    code="github.com/facebookresearch/darling (MIT)",
    summary="Reinforcement learning of a language model on quality times diversity: answers to one prompt are grouped by "
    "meaning, and an answer is paid for quality multiplied by how many others say something else.",
    topics=("reinforcement learning", "diversity", "post-training"),
    parts=(
        "broadsheet.language.diversity.rewards.DarlingReward",
        "broadsheet.language.diversity.classifier.ClassifierPartitioner",
        "broadsheet.language.diversity.scores",
    ),
    requires=("language",),
    verbs=("broadsheet language diversity RESPONSES.jsonl",),
    notes=(
        "Quick runs train a Llama of 88 thousand parameters to complete 7= by a sum, difference or product of two digits, by "
        "TRL's GRPOTrainer; what it answers is computed from its probabilities over all answers, not from draws.",
        "Where each meaning has one wording or two, a bonus for entropy and the n-grams do what the partition does; where a "
        "plus is written in eight ways they spend themselves on wording.",
        "Answers of three characters have no word 4-grams, and no 4-grams of characters: the rival has 2-grams of characters.",
        "In the released trainer a reward that is normalised before it is combined is overwritten by the plain sum, and the "
        "bias that keeps rewards positive is added at every token; here the one is a sum of z-scores, the other is added once.",
        "The official open-ended runs score by Athene-RM-8B, whose model needs code of its own; by name a reward model that "
        "Transformers knows stands here.",
    ),
)


@dataclass(frozen=True)
class Known:
    """Groups whose rewards are known."""

    groups: int = 200
    size: int = 8


@paper.experiment(
    presets={"smoke": Known(groups=10), "quick": Known(), "paper": Known(groups=2000)},
    claims=[
        Claim("D1", "Div of a partition is the share of the others that differ, at least 0.1", kind="check",
              ablation="with-itself", reference="4/7, 6/7, 1, 1 for sizes 4, 2, 1, 1; the mean over the others, pair by pair; "
              "control: an answer counts itself",
              checks=[at_most("div_error", 1e-12), at_most("order_error", 1e-12)]),
        Claim("D2", "union-find closes chains", kind="check", ablation="pairs-alone",
              reference="0~1 and 1~2 of four make a class of three, Div 1/3; control: only who is the same as one counts",
              checks=[at_most("chain_error", 1e-12)]),
        Claim("D3", "a wrong answer gains nothing by being different", kind="check", ablation="additive",
              reference="0 times anything; control: the sum", checks=[at_most("wrong_reward", 0.0)]),
        Claim("D4", "advantages without the deviation keep the scale of the reward", kind="check", ablation="with-deviation",
              reference="classes of 7 and 1, equal quality: Div 1/7 and 1, advantages -3/28 and 3/4, times any factor; "
              "control: divided by the deviation", checks=[at_most("advantage_error", 1e-9)]),
        Claim("D8", "a product ranks a good common answer over a bad rare one, a sum the other way round", kind="check",
              ablation="additive", reference="0.9 · 0.25 > 0.2 · 1; control: 0.9 + 0.25 < 0.2 + 1",
              checks=[at_least("ranks_right", 1.0)]),
    ],
    deterministic=True,
    precision="float64",
    cost=0.5,
)  # fmt: skip
def known(config: Known, key, log: Log) -> Report:
    """Partitions, Div, fusion and advantages where the answer is known."""
    rng = np.random.default_rng(7)
    given = np.array([0, 0, 1, 0, 2, 3, 1, 0])
    wanted = np.array([4, 4, 6, 4, 7, 7, 6, 4]) / 7
    fixed = [(given, wanted), (np.zeros(8, int), np.full(8, 0.1)), (np.arange(8), np.ones(8))]
    drawn = [rng.integers(0, 4, config.size) for _ in range(config.groups)]
    order = [rng.permutation(config.size) for _ in drawn]
    apart = [np.maximum([np.delete(ids != ids[k], k).mean() for k in range(len(ids))], 0.1) for ids in drawn]

    def error(of) -> dict[str, float]:
        return {
            "div_error": max(np.abs(of(ids) - div).max() for ids, div in [*fixed, *zip(drawn, apart, strict=True)]),
            "order_error": max(np.abs(of(ids)[turn] - of(ids[turn])).max() for ids, turn in zip(drawn, order, strict=True)),
        }

    chain, same = [(0, 1), (1, 2)], np.eye(4, dtype=bool)
    for one, other in chain:
        same[one, other] = same[other, one] = True
    third = np.array([1, 1, 1, 3]) / 3
    quality = rng.integers(0, 2, (config.groups, config.size)).astype(float)

    def largest_wrong(fusion: Fusion) -> float:
        paid = [darling_reward(q, ids, fusion) for q, ids in zip(quality, drawn, strict=True)]
        return max((reward[q == 0].max() for reward, q in zip(paid, quality, strict=True) if (q == 0).any()), default=0.0)

    def advantages(scale: float, divided: bool) -> np.ndarray:
        reward = darling_reward(np.full(8, scale), [0] * 7 + [1])
        return (reward - reward.mean()) / (reward.std(ddof=1) if divided else 1.0)

    expected = np.array([-3 / 28] * 7 + [3 / 4])
    scales = (0.1, 1.0, 20.0)
    off = {divided: max(np.abs(advantages(s, divided) / s - expected).max() for s in scales) for divided in (False, True)}
    common, rare = 0, 7  # Div 1/4 and 1
    ways: tuple[Fusion, ...] = ("multiply", "add")
    paid = {way: darling_reward([0.9] * 7 + [0.2, 0.9], [0] * 7 + [1, 2], way) for way in ways}
    return Report(
        arms={
            "system": {
                **error(diversity),
                "chain_error": np.abs(diversity(closed_classes(4, chain)) - third).max(),
                "wrong_reward": largest_wrong("multiply"),
                "advantage_error": off[False],
                "ranks_right": float(paid["multiply"][common] > paid["multiply"][rare]),
            },
            "with-itself": error(lambda ids: np.maximum([(ids != one).mean() for one in ids], 0.1)),
            "pairs-alone": {"chain_error": np.abs(np.maximum((~same).sum(1) / 3, 0.1) - third).max()},
            "additive": {"wrong_reward": largest_wrong("add"), "ranks_right": float(paid["add"][common] > paid["add"][rare])},
            "with-deviation": {"advantage_error": off[True]},
        },
        arrays={"sizes": np.arange(1, 9), "div": [diversity([0] * c + list(range(1, 9 - c)))[0] for c in range(1, 9)]},
    )


@known.figure
def div_of_a_class(runs: Runs):
    """Div of an answer by how many of eight answers mean the same."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.plot(data["sizes"], (8 - data["sizes"]) / 8, "s--", color=CONTROL_COLOUR, label="counting itself")
    axis.plot(data["sizes"], data["div"], "o-", color=SYSTEM_COLOUR, label="Div")
    label(axis, "answers of its class (of 8)", "share of others that differ")
    return fig


class Dealt(DarlingReward):
    """The control in which the diversities of a group go to its answers at random."""

    def __init__(self, *arguments: Any, seed: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.rng = np.random.default_rng(seed)

    def divs(
        self, groups: Sequence[Sequence[str]], quality: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], list[int]]:  # fmt: skip
        found, classes = super().divs(groups, quality)
        return [self.rng.permutation(div) for div in found], classes


@dataclass(frozen=True)
class Training:
    """A task, a start and a budget; every arm has the same."""

    task: str = "make number"
    model: str = ""  # a folder or name on the Hub; empty for the tiny model of the task
    prompts: str = ""  # of a real model: its data set
    classifier: str = "yimingzhang/deberta-v3-large-generation-similarity"
    reward_model: str = ""
    device: str = "cpu"
    start: int = 900  # steps of fine-tuning before
    steps: int = 150
    group: int = 16
    batch: int = 144
    device_batch: int = 144
    parts: int = 1  # of the answers that are drawn at once, each for an update
    rate: float = 5e-4
    beta: float = 0.0  # weight of the KL divergence
    precision: str = "float32"
    entropy: float = 0.1  # weight of the rival's bonus; of 0.02, 0.05, 0.1 and 0.2 the best
    ngram: int = 2  # the rival's; of characters in tiny tasks, of words else
    draws: int = 16  # answers in which meanings are counted
    looks: int = 1  # looks on the way, the last one at the end


REAL = Training(
    task="mathematics", model="Qwen/Qwen3-4B-Base", prompts="agentica-org/DeepScaleR-Preview-Dataset", device="cuda",
    steps=1560, group=8, batch=512, device_batch=8, parts=4, rate=1e-6, precision="bfloat16", entropy=0.01, ngram=4, draws=64,
)  # fmt: skip
TALK = replace(
    REAL, task="conversations", model="meta-llama/Llama-3.1-8B-Instruct", prompts="allenai/WildChat-1M",
    reward_model="Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", steps=1250, parts=1, beta=0.001, draws=10, looks=5,
)  # fmt: skip
SMOKE = Training(start=2, steps=2, group=4, batch=36, device_batch=36)
TALK_SMOKE = replace(SMOKE, task="name one", batch=16, device_batch=16, draws=10)


def _problem(config: Training, seed: int) -> Problem:
    """What the settings name: a tiny closed task, mathematics or conversations."""
    if config.task == "mathematics":
        return mathematics(config.model, config.prompts, config.classifier, draws=config.draws, device=config.device)
    if config.task == "conversations":
        return conversations(
            config.model, config.prompts, config.reward_model, config.classifier, draws=config.draws, device=config.device
        )
    if config.prompts:
        raise InputError(f"The task {config.task!r} brings its own prompts; --data goes with mathematics and conversations.")
    return closed(config.task, seed, steps=config.start)


def _arms(config: Training, problem: Problem, seed: int) -> dict[str, tuple[DarlingReward, dict[str, Any]]]:
    """Arm -> its reward and what else differs in its training."""
    how: dict[str, Any] = {"bias": problem.shift, "group": config.group}
    wording = NGramDiversity(config.ngram, characters=not config.model)
    alone = DarlingReward(problem.quality, problem.partitioner, floor=1.0, **how)
    return {
        "system": (DarlingReward(problem.quality, problem.partitioner, **how), {}),
        "quality": (alone, {}),
        "dealt": (Dealt(problem.quality, problem.partitioner, seed=seed, **how), {}),
        "entropy": (alone, {"entropy": config.entropy}),
        "wording": (DarlingReward(problem.quality, wording, **how), {}),
    }


def _train(
    config: Training, problem: Problem, arm: tuple[DarlingReward, dict[str, Any]], seed: int, log: Log, number: int, of: int
) -> list[Look]:
    """Looks at a model that is trained by an arm, the `number`-th `of` them; the last look is at its end."""
    names = ("steps", "group", "batch", "device_batch", "rate", "beta", "precision")
    settings = {name: getattr(config, name) for name in names} | {"seed": seed} | arm[1]
    told = {"looks": config.looks, "parts": config.parts}
    return reinforced(problem, arm[0], settings, watch=lambda done: log.progress((number + done) / of), **told)


RIVALS = ("quality", "dealt", "entropy", "wording")
ALLOWED = 0.10
"""What pass@1 may lose, by the claim."""


def _rivals(config: Training, key, log: Log) -> Report:
    """Pass@1 and different right answers of each arm, as it is and at the system's pass@1."""
    seed, k = seed_of(key), config.draws
    problem = _problem(config, seed)
    arms = _arms(config, problem, seed)
    looks = {}
    for number, (name, arm) in enumerate(arms.items()):
        looks[name] = _train(config, problem, arm, seed, log, number, len(arms))[-1]
    own = {"start": problem.look(problem.model()).at()} | {name: look.at() for name, look in looks.items()}
    own["heat"] = looks["quality"].at_pass(own["quality"].pass_at(1) - 0.95 * ALLOWED)
    wanted = own["system"].pass_at(1)
    equal = {name: look.at_pass(wanted) for name, look in looks.items()} | {"system": own["system"]}
    equal["heat"] = equal["quality"]
    ks = [2**n for n in range(int(np.log2(4 * k)) + 1)] if not config.model else [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= k]
    curves = {name: np.array([answers.pass_at(n) for n in ks]) for name, answers in own.items()}

    def readings(name: str) -> dict[str, float]:
        found = {
            "pass1": own[name].pass_at(1), "distinct": own[name].distinct(k), "share": own[name].share(k),
            "distinct_ratio": own[name].distinct(k) / max(1e-9, own["quality"].distinct(k)),
            "pass_gain": min((curves[name] - curves["quality"])[np.array(ks) >= min(8, k)]),
            "share_of_start": own[name].share(k) / max(1e-9, own["start"].share(k)),
        }  # fmt: skip
        if name in equal:
            at = equal[name]
            found |= {
                "distinct_at_pass": at.distinct(k), "pass_off": abs(at.pass_at(1) - wanted),
                "share_ratio": at.share(k) / max(1e-9, equal["quality"].share(k)),
            }  # fmt: skip
        return found

    names = [*own]
    return Report(
        arms={name: readings(name) for name in names},
        arrays={
            "pass1": [own[name].pass_at(1) for name in names], "distinct": [own[name].distinct(k) for name in names],
            "at_pass": [equal.get(name, own[name]).distinct(k) for name in names],
            "k": ks, "curves": [curves[name] for name in names],
        },
    )  # fmt: skip


SHOWN = {
    "start": "start", "system": "DARLING", "quality": "quality alone", "dealt": "Div dealt out", "entropy": "entropy bonus",
    "wording": "n-grams", "heat": "quality alone, hotter",
}  # fmt: skip


def _draw_rivals(runs: Runs) -> Any:
    """Different right answers by pass@1 for each arm, at the system's pass@1, and pass@k."""
    data = runs["system"].arrays
    fig, (left, middle, right) = figure(3, width=4.4)
    for number, (name, shown) in enumerate(SHOWN.items()):
        colour = SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR if name == "start" else COLOURS[number - 1]
        left.plot(data["pass1"][number], data["distinct"][number], "o", ms=8, color=colour, label=shown)
        if name == "system" or name in RIVALS:
            middle.barh(shown, data["at_pass"][number], color=colour)
        right.semilogx(data["k"], data["curves"][number], color=colour, base=2, label=shown)
    label(left, "pass@1", "different right answers in 16 draws")
    middle.invert_yaxis()
    label(middle, "different right answers at DARLING's pass@1", "trained by")
    label(right, "k (draws)", "pass@k", legend=False)
    return fig


@paper.experiment(
    presets={"smoke": SMOKE, "quick": Training(), "paper": REAL},
    claims=[
        Claim("D5", "more different right answers than by quality alone, and hardly fewer right ones", kind="paper",
              where="abstract; experiments on mathematics", ablation="quality", null=("dealt", "heat", "entropy", "wording"),
              grows="steps", seeds=8, published="pass@1 and pass@k both above GRPO",
              reason="A bonus for entropy may do it too, at nearly the loss of pass@1 that is allowed: here a meaning has one "
              "wording or two; see D10 for many.",
              checks=[at_least("distinct_ratio", 1.3, over="mean"), at_least("pass1", -ALLOWED, minus="quality")]),
        Claim("D6", "training narrows what is right, DARLING less, at equal pass@1", kind="paper", where="introduction",
              ablation="quality", null=("dealt", "entropy", "wording"), grows="steps", seeds=8,
              reason="2-grams of characters and a bonus for entropy do it too: here a meaning has one wording or two; see D10.",
              checks=[at_least("share_ratio", 1.3, over="mean"), at_most("pass_off", 0.05),
                      at_most("share_of_start", 0.99, of="quality")]),
        Claim("D9", "more right at pass@k for every k from 8 on", kind="paper", where="experiments on mathematics",
              ablation="quality", null=("dealt", "entropy", "wording"),
              checks=[at_least("pass_gain", {"paper": 0.005}, over="mean")]),
    ],
    cost=50.0,
)  # fmt: skip
def make_number(config: Training, key, log: Log) -> Report:
    """DARLING and its rivals on a task with many right answers, from one start and with one budget."""
    return _rivals(config, key, log)


@make_number.figure
def quality_and_diversity(runs: Runs):
    """Different right answers by pass@1 for each arm; the same at DARLING's pass@1; pass@k."""
    return _draw_rivals(runs)


@paper.experiment(
    presets={"smoke": TALK_SMOKE, "quick": Training("make number in many words"), "paper": REAL},
    claims=[
        Claim("D10", "where one meaning has many wordings, the meaning is what has to be counted: more different right answers "
              "than of any rival at equal pass@1", kind="paper", where="comparison with 4-grams", grows="steps", seeds=8,
              ablation=("quality", "wording"), null=("dealt", "entropy"),
              published="4-grams vary the wording and lose accuracy",
              checks=[at_least("distinct_at_pass", 0.25, minus=rival) for rival in RIVALS]),
    ],
    cost=50.0,
)  # fmt: skip
def wordings(config: Training, key, log: Log) -> Report:
    """The same where a plus may be written in eight ways, so that answers differ in wording and not in meaning."""
    return _rivals(config, key, log)


@wordings.figure
def meaning_and_wording(runs: Runs):
    """Different right answers by pass@1 for each arm; the same at DARLING's pass@1; pass@k."""
    return _draw_rivals(runs)


@paper.experiment(
    presets={
        "smoke": TALK_SMOKE,
        "quick": Training("name one", batch=64, device_batch=64, draws=10, looks=5), "paper": TALK,
    },
    cost=18.0,
)  # fmt: skip
def open_ended(config: Training, key, log: Log) -> Report:
    """Requests that have no right answer, only better and worse ones: quality and variety over training."""
    seed, k = seed_of(key), config.draws
    problem = _problem(config, seed)
    arms = _arms(config, problem, seed)
    start = problem.look(problem.model()).at()
    found, arrays = {"start": {"quality": start.quality, "distinct": start.distinct(k)}}, {}
    for number, name in enumerate(("system", "quality")):
        answers = [start, *(look.at() for look in _train(config, problem, arms[name], seed, log, number, 2))]
        arrays[name] = np.array([[one.quality, one.distinct(k)] for one in answers])
        found[name] = {"quality": answers[-1].quality, "distinct": answers[-1].distinct(k)}
    return Report(arms=found, arrays=arrays | {"steps": np.linspace(0, config.steps, len(arrays["system"]))})


@open_ended.figure
def over_training(runs: Runs):
    """Mean quality and different answers in 10 draws over training, with the diversity and without."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    names = ("mean quality (0 to 1 in the tiny task)", "different answers in 10 draws")
    for axis, column, name in zip(axes, (0, 1), names, strict=True):
        axis.plot(data["steps"], data["quality"][:, column], "o-", color=CONTROL_COLOUR, label="quality alone")
        axis.plot(data["steps"], data["system"][:, column], "o-", color=SYSTEM_COLOUR, label="DARLING")
        label(axis, "step", name)
    return fig


@paper.experiment(
    presets={"smoke": TALK_SMOKE, "quick": Training(), "paper": REAL},
    cost=50.0,
)
def fusion(config: Training, key, log: Log) -> Report:
    """Product, sum and sum of z-scores, each with the deviation and without."""
    seed, k = seed_of(key), config.draws
    problem = _problem(config, seed)
    cells = [(way, scale) for way in FUSIONS for scale in ("none", "group")]
    grid = np.zeros((2, 3, 2))
    for number, (way, scale) in enumerate(cells):
        reward = DarlingReward(problem.quality, problem.partitioner, fusion=way, bias=problem.shift, group=config.group)
        answers = _train(config, problem, (reward, {"scale": scale}), seed, log, number, len(cells))[-1].at()
        grid[:, number // 2, number % 2] = answers.pass_at(1), answers.distinct(k)
    names = ["system" if cell == ("multiply", "none") else "-".join(cell) for cell in cells]
    return Report(
        arms={name: {"pass1": grid[0, n // 2, n % 2], "distinct": grid[1, n // 2, n % 2]} for n, name in enumerate(names)},
        arrays={"grid": grid},
    )  # fmt: skip


@fusion.figure
def product_and_sum(runs: Runs):
    """Pass@1 and different right answers by how quality and diversity are put together."""
    grid = runs["system"].arrays["grid"]
    fig, axes = figure(2, width=3.6)
    for axis, values, name in zip(axes, grid, ("pass@1", "different right answers in 16 draws"), strict=True):
        image = axis.imshow(values, cmap="viridis", aspect="auto")
        for row, column in np.ndindex(values.shape):
            light = values[row, column] > (values.min() + values.max()) / 2
            axis.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color="k" if light else "w")
        axis.set_xticks((0, 1), ("none", "deviation"))
        axis.set_yticks(range(3), ("product", "sum", "z-scores"))
        fig.colorbar(image)
        label(axis, "advantages divided by", "fusion", title=name)
    return fig


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of answers; a plus is written in eight ways."""

    pairs: int = 5000
    held_out: int = 2000
    steps: int = 400
    groups: int = 60  # of 16 answers, whose classes are counted
    model: str = ""  # a trained classifier by folder or name, in place of the tiny one
    plus: str = MANY_WORDS


@paper.experiment(
    presets={
        "smoke": Pairs(pairs=40, held_out=20, steps=2, groups=2), "quick": Pairs(),
        "paper": Pairs(model="yimingzhang/deberta-v3-large-generation-similarity"),
    },
    claims=[
        Claim("D7", "a learned partition agrees with the true classes on pairs that it has not seen", kind="paper",
              where="the classifier of pairs", ablation="untrained", null=("wording", "always"), grows="steps", seeds=8,
              checks=[at_least("f1", 0.9, over="mean", within=(0.0, 1.0))]),
    ],
    cost=12.0,
)  # fmt: skip
def classifier(config: Pairs, key, log: Log) -> Report:
    """A classifier of pairs: agreement with the truth, ROC curve, and the number of classes by its threshold."""
    seed, task = seed_of(key), MakeNumber(config.plus)
    pairs, labels = task.labelled_pairs(config.pairs, 2 * seed)
    seen = {frozenset(pair) for pair in pairs}
    others = zip(*task.labelled_pairs(config.held_out, 2 * seed + 1), strict=True)
    new = [(pair, one) for pair, one in others if frozenset(pair) not in seen]
    asked, truth = [pair for pair, _ in new], np.array([one for _, one in new])
    untrained, trained = trained_classifier(pairs, labels, steps=config.steps, seed=seed, name=config.model)
    found = {
        "system": Judged(trained.probabilities(asked), truth), "untrained": Judged(untrained.probabilities(asked), truth),
        "wording": Judged(_overlap(asked), truth, _threshold(_overlap(pairs), np.array(labels))),
        "always": Judged(np.ones(len(asked)), truth),
    }  # fmt: skip
    rng = generator(key)
    groups = [[task.answers[k] for k in rng.integers(0, len(task.answers), 16)] for _ in range(config.groups)]
    groups = [[*group[:10], *(answer[::-1] for answer in group[:6])] for group in groups]
    thresholds = np.linspace(0.02, 0.98, 13)
    counts = [np.mean([len(set(ids)) for ids in trained.at(float(one)).partition_groups(groups)]) for one in thresholds]
    right = np.mean([len({task.meaning(answer) for answer in group}) for group in groups])
    return Report(
        arms={name: {"f1": one.f1, "auc": one.auc} for name, one in found.items()},
        arrays={
            **{f"{name}_roc": one.roc for name, one in found.items()}, "thresholds": thresholds, "counts": counts,
            "right": right,
        },
    )  # fmt: skip


def _overlap(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Characters in common over all of two answers."""
    return np.array([len(set(one) & set(other)) / len(set(one) | set(other)) for one, other in pairs])


def _threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold below one of the scores that is best on labelled pairs."""
    marks = np.unique(scores) - 1e-9
    return float(marks[np.argmax([Judged(scores, labels, mark).f1 for mark in marks])])


@classifier.figure
def roc_and_classes(runs: Runs):
    """ROC curves of the classifier and of simpler ones, and the number of classes of 16 answers by the threshold."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for name, colour, shown in (
        ("untrained", CONTROL_COLOUR, "before training"), ("wording", COLOURS[1], "characters in common"),
        ("system", SYSTEM_COLOUR, "classifier"),
    ):  # fmt: skip
        left.plot(*data[f"{name}_roc"], color=colour, label=shown)
    label(left, "different pairs called the same", "same pairs called the same")
    right.axhline(data["right"], color=CONTROL_COLOUR, label="true classes")
    right.plot(data["thresholds"], data["counts"], "o-", color=SYSTEM_COLOUR, label="classifier")
    label(right, "threshold (probability)", "classes of 16 answers")
    return fig
