"""Tülu 3: pushing frontiers in open language model post-training, arXiv 2411.15124.

Fine-tuning, length-normalised preference optimisation and reinforcement learning with verifiable rewards, in that order, on
data that shares nothing with the evaluations. Controls: the start sampled more sharply, more of the same fine-tuning, rejection
sampling, rewards by permuted labels or by a coin, plain DPO, each stage alone, naive verifiers and naive decontamination.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language.decontamination import decontaminate
from broadsheet.language.models import one_thread
from broadsheet.language.planted_overlaps import Planted, exact_matches, planted, shared_ngrams
from broadsheet.language.post_training.evaluation import evaluate
from broadsheet.language.post_training.grounds import CharacterSums, Ground, WordProblems
from broadsheet.language.post_training.looking import Looking
from broadsheet.language.post_training.loss_checks import cut_batches, length_bias, pair_loss_errors
from broadsheet.language.post_training.ppo import reinforce_by_ppo
from broadsheet.language.post_training.rejection import fine_tune_on_verified
from broadsheet.language.post_training.rewards import verified
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings
from broadsheet.language.post_training.suites import STAGES, CharacterSuite, TuluData, post_trained
from broadsheet.language.post_training.trainers import Run, dataset, fine_tune, prefer, reinforce
from broadsheet.language.verifiers import verify
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="tulu3",
    arxiv="2411.15124",
    title="TÜLU 3: Pushing Frontiers in Open Language Model Post-Training",
    published="2024-11-22",
    authors=23,
    basis="code",
    code="github.com/allenai/open-instruct (Apache-2.0)",
    summary="A whole open recipe from a base model to an assistant: prompts for core skills, free of the evaluations; "
    "fine-tuning; preference optimisation that does not favour length; and reinforcement learning in which a program, not a "
    "learned reward model, says whether an answer is right.",
    topics=("post-training", "preference tuning", "verifiable rewards"),
    parts=(
        "broadsheet.language.post_training.pipeline.PostTrain", "broadsheet.language.post_training.ppo.reinforce_by_ppo",
        "broadsheet.language.post_training.losses", "broadsheet.language.verifiers", "broadsheet.language.decontamination",
    ),
    requires=("language",),
    verbs=("broadsheet language posttrain RECIPE.toml", "broadsheet language decontaminate TRAIN --against EVAL"),
    notes=(
        "Quick runs train a Llama of 88 thousand parameters on sums, sayings and greetings of single characters; the paper's "
        "models and data sets are loaded by name at the paper's size.",
        "Where each sum is told right with probability 0.6 alike, drawing more sharply takes accuracy from 0.35 to 0.91 "
        "without any training. Here sums differ in how often they are told right, 0.6 on average, and what is wrong is one "
        "typical error, so that for four in ten of them what is told most often is wrong: what sharpening cannot mend.",
        "Accuracy is computed from the probability of the one right answer, not from draws.",
        "Rejection sampling with as many answers and steps gains as much accuracy as GRPO or PPO, or more: what the tiny model "
        "shows is the worth of a program's verdicts, not of reinforcement learning from them.",
        "A lower rate without an anchor keeps the model near its start too, and costs gain as well: on so short a training the "
        "two can hardly be told apart.",
        "A constant reward gives GRPO no gradient at all; a coin in its place is the control.",
        "That the released checkpoints score 64.8 on the paper's suite, and 87.6 on GSM8K, is known from their model card and "
        "not tested here.",
    ),
    untested=[
        Claim("T10", "fine-tuning, preferences and verifiable rewards together raise GSM8K and IFEval of a real base model by "
              "5 points each", kind="paper", where="main results", published="GSM8K 76.2, 84.3, 87.6 after each stage of 8B",
              untested="a checkpoint of half a billion parameters, its data sets and days of a GPU are needed"),
    ],
)  # fmt: skip

RLVR_TEXTS = (  # verifier, answer, label, what is to be said of it
    ("gsm8k", "so it is 72", "72", 1), ("gsm8k", "72.", "72", 1), ("gsm8k", "1,234 apples", "1234", 1),
    ("gsm8k", "3 and 4 make 7", "7", 1), ("gsm8k", "7 = 3 + 4", "7", 0), ("gsm8k", "10-7", "7", 1), ("gsm8k", "-7", "-7", 0),
    ("gsm8k", "-7", "7", 1), ("gsm8k", "it is -3.5", "-3.5", 1), ("gsm8k", "42.0", "42", 0), ("gsm8k", "= +7", "7", 1),
    ("gsm8k", "+7.5", "7.5", 0), ("gsm8k", "seven", "7", 0), ("gsm8k", "$18", "18", 1), ("gsm8k", "72 of 100", "72", 0),
    ("gsm8k", "172", "72", 0), ("gsm8k", "", "7", 0),
    ("math", r"so \boxed{\frac{1}{2}}", r"\frac12", 1), ("math", r"\boxed{3} and then \boxed{4}", "4", 1),
    ("math", r"\boxed{3} and then \boxed{4}", "3", 0), ("math", "it is $x$ or $2x$", "2x", 1),
    ("ifeval", "ALL OF IT", '{"func_name": "validate_uppercase"}', 1), ("ifeval", "", '{"func_name": "validate_no_commas"}', 0),
    ("ifeval", "a, b", '{"func_name": "validate_no_commas"}', 0),
    ("ifeval", "go went go", '{"func_name": "verify_keyword_frequency", "word": "go", "N": 2}', 1),
    ("ifeval", "<think>a, b</think> a b", '{"func_name": "validate_no_commas"}', 1),
)  # fmt: skip


@dataclass(frozen=True)
class Identities:
    """Random pairs of answers and texts."""

    pairs: int = 8


@paper.experiment(
    presets={"smoke": Identities(pairs=2), "quick": Identities(), "paper": Identities(pairs=64)},
    claims=[
        Claim("T1", "the length-normalised loss is its closed form, and TRL's", kind="check",
              ablation=("prompt-counted", "end-left-out", "sums"),
              reference="a loop over the tokens of each text alone, float64, and TRL's DPOTrainer (sigmoid_norm); controls: "
              "the prompt counted, the end left out, sums in place of means",
              checks=[at_most("error", 1e-6), at_most("trl_error", 1e-5)]),
        Claim("T2", "an answer of which each token is written twice has the same length-normalised loss", kind="check",
              ablation="plain-dpo", reference="the loss before; control: sums in place of means",
              checks=[at_most("length_bias", 1e-9), at_least("length_bias", 0.01, of="plain-dpo")]),
        Claim("T3", "the gradient of fine-tuning does not depend on how a batch is cut", kind="check", ablation="mean-of-means",
              reference="the gradient of the whole batch; control: the mean of the parts' means",
              checks=[at_most("cut_error", 1e-5)]),
    ],
    cost=8.0,
)  # fmt: skip
def identities(config: Identities, key, log: Log) -> Report:
    """Losses of pairs and of fine-tuning against closed forms and TRL."""
    seed = seed_of(key)
    arms: dict[str, dict[str, float]] = {}
    with one_thread():
        for found in (pair_loss_errors(seed, config.pairs), length_bias(seed, config.pairs), cut_batches(seed, config.pairs)):
            for arm, row in found.items():
                arms.setdefault(arm, {}).update(row)
    return Report(arms=arms)


@identities.figure
def wrong_losses(runs: Runs):
    """Error of each way to compute a loss, against the closed form or the whole batch."""
    fig, axis = figure(width=6)
    rows = [(arm, name, value) for arm, found in runs["system"].arms.items() for name, value in found.items()]
    said = {"error": "DPO, closed form", "trl_error": "DPO, TRL", "length_bias": "tokens twice", "cut_error": "batch cut"}
    colours = [SYSTEM_COLOUR if arm == "system" else CONTROL_COLOUR for arm, _, _ in rows]
    axis.barh([f"{said[name]}: {arm}" for arm, name, _ in rows], [max(value, 1e-17) for _, _, value in rows], color=colours)
    axis.set_xscale("log")
    axis.invert_yaxis()
    label(axis, "difference (nats; of gradients relative)", "loss: how computed", legend=False)
    return fig


@dataclass(frozen=True)
class Verdicts:
    """The first texts of the table."""

    texts: int = len(RLVR_TEXTS)


@paper.experiment(
    presets={"smoke": Verdicts(texts=4), "quick": Verdicts(), "paper": Verdicts()},
    claims=[
        Claim("T4", "verifiers read answers as the official program does, traps among them", kind="check",
              ablation=("first-number", "contained", "by-value"),
              reference=f"{len(RLVR_TEXTS)} texts with the official program's verdicts; controls: the first number, the label "
              "anywhere in the text, numbers by value", checks=[at_most("wrong", 0)]),
    ],
    deterministic=True,
    cost=1.0,
)  # fmt: skip
def verdicts(config: Verdicts, key, log: Log) -> Report:
    """Verifiers, and simpler ones, on texts with known verdicts."""
    judges: dict[str, Callable[[str, str, str], float]] = {
        "system": verify,
        "first-number": lambda name, text, wanted: (
            _number(text, 0, text) == wanted if name == "gsm8k" else verify(name, text, wanted)
        ),
        "contained": lambda name, text, wanted: wanted in text if name != "ifeval" else verify(name, text, wanted),
        "by-value": lambda name, text, wanted: _value(text) == float(wanted) if name == "gsm8k" else verify(name, text, wanted),
    }
    table = RLVR_TEXTS[: config.texts]
    return Report(
        arms={
            arm: {"wrong": sum(float(judge(*row[:3])) != row[3] for row in table)} for arm, judge in judges.items()
        }
    )  # fmt: skip


def _number(text: str, which: int, none: str) -> str:
    found = "".join(sign if sign.isdigit() or sign in ".-" else " " for sign in text).split()
    return found[which].rstrip(".") if found else none


def _value(text: str) -> float:
    try:
        return float(_number(text.replace(",", ""), -1, "nan"))
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Overlaps:
    """Conversations of which some hold prompts of an evaluation."""

    items: int = 2000
    planted: int = 200
    prompts: int = 400
    threshold: float = 0.5


@paper.experiment(
    presets={
        "smoke": Overlaps(items=60, planted=10, prompts=20),
        "quick": Overlaps(),
        "paper": Overlaps(items=939_344, planted=9000, prompts=20_000),
    },
    claims=[
        Claim("T5", "what shares more than half of a prompt is found and nothing else, and overlaps are exact", kind="check",
              ablation=("whole-prompts", "any-8-gram"),
              reference="planted prompts, whole and in part, with decoys: half a prompt, its words in another order, in the "
              "answer; controls: whole prompts alone, any 8 words in common",
              checks=[at_least("recall", 1.0), at_least("precision", 1.0), at_most("overlap_error", 1e-9)]),
    ],
    cost=3.0,
)  # fmt: skip
def overlaps(config: Overlaps, key, log: Log) -> Report:
    """Decontamination of planted training sets, and the report of three sets against two evaluations."""
    rng = generator(key)
    data = planted(config.items, config.planted, config.prompts, rng)
    _, found = decontaminate(data.train, data.evaluation, threshold=config.threshold)
    error = max((abs(match.overlap - data.shares[match.item, match.prompt]) for match in found.matches), default=1.0)
    arms = {"system": _found(set(found.removed["train"]), data) | {"overlap_error": error}}
    for name, items in (("whole-prompts", exact_matches(data)), ("any-8-gram", shared_ngrams(data))):
        arms[name] = _found(items, data) | {"overlap_error": _share_error(items, data)}
    log.progress(0.5)
    other = planted(config.items // 4, config.planted // 40, config.prompts, rng)
    third = planted(config.items // 4, 0, config.prompts, rng)
    sets = {"planted": data.train, "a little": other.train, "clean": third.train}
    evaluations = {"first": data.evaluation, "second": other.evaluation}
    table = decontaminate(sets, evaluations, threshold=config.threshold)[1].table()
    percent = np.array([[table[name][one] for one in sets] for name in evaluations])
    shares = np.array([match.overlap for match in found.matches])
    return Report(arms=arms, arrays={"percent": percent, "overlaps": shares})


def _found(items: set[int], data: Planted) -> dict[str, float]:
    right = len(items & data.contaminated)
    return {"recall": right / max(1, len(data.contaminated)), "precision": right / max(1, len(items))}


def _share_error(items: set[int], data: Planted) -> float:
    """Largest error of a rule that knows no shares and says 1 of what it finds, 0 of all else."""
    return max((abs(share - (item in items)) for (item, _), share in data.shares.items()), default=0.0)


@overlaps.figure
def contamination(runs: Runs):
    """Overlaps of what was found, and contaminated prompts of each evaluation by training set."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.hist(data["overlaps"], bins=np.linspace(0.5, 1.0, 13), color=SYSTEM_COLOUR)
    label(left, "share of the prompt in common", "pairs of an item and a prompt", legend=False)
    names = ("planted", "a little", "clean")
    for k, (row, name) in enumerate(zip(data["percent"], ("first evaluation", "second evaluation"), strict=True)):
        right.bar(np.arange(3) + 0.4 * k - 0.2, row, width=0.4, color=COLOURS[k], label=name)
    right.axhline(2, color=CONTROL_COLOUR, linestyle="--", label="2 %: the set is filtered")
    right.set_xticks(range(3), names)
    label(right, "training set", "contaminated prompts (%)")
    return fig


@dataclass(frozen=True)
class Rewards:
    """Reinforcement learning with verifiable rewards; without a model's name on sums of characters."""

    steps: int = 120
    prompts_a_step: int = 16
    group: int = 8
    rate: float = 1e-3
    warm_up: float = 0.1  # Adam's first steps would else undo the start
    looks: int = 6
    start: int = 400  # steps of fine-tuning before
    model: str = ""
    prompts: str = "allenai/RLVR-GSM-MATH-IF-Mixed-Constraints"
    problems: str = "openai/gsm8k"
    chats: str = "allenai/tulu-3-sft-mixture"

    def ground(self, seed: int) -> Ground:
        """What it is tried on."""
        if not self.model:
            return CharacterSums(seed, self.start)
        return WordProblems(self.model, self.prompts, self.problems, self.chats)

    def settings(self, seed: int, **changed: Any) -> RLSettings:
        """Of GRPO, at the beta of Tülu 3 8B."""
        common: dict[str, Any] = {
            "steps": self.steps, "batch": self.prompts_a_step * self.group, "group": self.group, "rate": self.rate,
            "schedule": "linear", "warm_up": self.warm_up, "beta": 0.05, "seed": seed, "log_every": max(1, self.steps // 24),
        }  # fmt: skip
        return RLSettings(**common | changed)


RIVALS = ("sharpened", "more-fine-tuning")


@paper.experiment(
    presets={
        "smoke": Rewards(steps=2, prompts_a_step=2, group=4, looks=1, start=4),
        "quick": Rewards(),
        "paper": Rewards(steps=2000, group=16, rate=5e-7, model="allenai/Llama-3.1-Tulu-3-8B-DPO"),
    },
    claims=[
        Claim("T6", "reinforcement learning on a verifier's word raises accuracy", kind="paper", where="RLVR",
              ablation=("permuted", "coin"), null=(*RIVALS, "rejection"), grows="steps", seeds=8,
              published="GSM8K 84.3 before, 87.6 after", checks=[at_least("gain", 0.25, over="mean", within=(-1, 1))],
              reason="Rejection sampling with as many answers and steps gains more: the verdicts teach, by whatever rule. The "
              "gain of GRPO itself is at the bound."),
        Claim("T6p", "so it does by PPO with a value model, as in the paper", kind="paper", where="RLVR",
              ablation=("permuted", "coin"), null=(*RIVALS, "rejection"), about="ppo", grows="steps", seeds=8,
              checks=[at_least("gain", 0.25, of="ppo", over="mean", within=(-1, 1))],
              reason="As T6: rejection sampling gains more."),
        Claim("T6s", "and by what more of the same data and sharper drawing do not teach", kind="paper", where="RLVR",
              ablation=("permuted", "coin"), null=RIVALS, grows="steps", seeds=8,
              checks=[at_least("gain", 0.25, over="mean", within=(-1, 1)),
                      at_least("greedy_gain", 0.2, over="mean", within=(-1, 1))],
              reason="The most probable answers get right as wanted; the gain of drawn ones is at the bound."),
        Claim("T7", "a larger beta keeps the model nearer to where it began, and costs gain", kind="paper", where="RLVR, beta",
              about="anchored", ablation="unanchored", null="slower", grows="steps", seeds=8,
              checks=[at_most("kl_share", 0.75, of="anchored", over="mean"),
                      at_least("gain_lost", 0.05, of="anchored", over="mean")],
              reason="At a beta of .5 the divergence is .4 smaller, but hardly .04 of the gain is lost; a rate of a quarter, "
              "without an anchor, keeps as near and loses .1."),
        Claim("T9", "labels that belong to other prompts bring no such gain", kind="paper", where="RLVR", ablation="coin",
              null=RIVALS, grows="steps", seeds=8, checks=[at_least("gain", 0.25, minus="permuted", within=(-2, 2))],
              reason="Permuted labels harm, so that the start drawn more sharply is as far above them; T6s is without that."),
    ],
    cost=120.0,
)  # fmt: skip
def rlvr(config: Rewards, key, log: Log) -> Report:
    """GRPO and PPO on verified rewards, at three betas, beside what else could raise accuracy."""
    seed = seed_of(key)
    ground = config.ground(seed)
    start = ground.chances(ground.start)
    greedy = ground.chances(ground.start, 0.0)
    rewards = {"verified": verified(None, 1.0), "coin": _coin(seed)}
    curves: dict[str, Any] = {}
    arms: dict[str, dict[str, float]] = {}
    kl, done = {}, 0

    def add(name: str, model: Any) -> None:
        nonlocal done
        kl[name], now = ground.divergence(model), ground.chances(model)
        arms[name] = {
            "gain": (now - start).mean(),
            "greedy_gain": (ground.chances(model, 0.0) - greedy).mean(),
            "pass_at_8_gain": (_pass_at(now, 8) - _pass_at(start, 8)).mean(),
            "kl": kl[name],
        }
        done += 1
        log.progress(done / 10, **{f"{name}_gain": arms[name]["gain"]})

    def trained(name: str, reward: str = "verified", rows: Any = None, train: Any = reinforce, **changed: Any) -> None:
        settings = config.settings(changed.pop("seed", seed), answer_tokens=ground.tokens, **changed)
        looking = Looking(
            max(1, config.steps // config.looks),
            lambda model: {"accuracy": ground.chances(model).mean(), "kl": ground.divergence(model)},
        )
        watched = rows is None and reward == "verified"
        run = Run(callbacks=[looking] if watched else [])
        model = copy.deepcopy(ground.start)
        add(name, train(model, ground.words, rows or ground.rows, rewards[reward], settings, run))
        if watched:
            records = [row for row in run.records if "reward" in row]
            curves[f"{name}_steps"] = [row["step"] for row in records]
            curves[f"{name}_reward"] = [row["reward"] for row in records]
            curves[f"{name}_length"] = [row.get("completions/mean_length", row.get("length")) for row in records]
            curves[f"{name}_looks"] = looking.steps
            curves.update({f"{name}_{what}": looking.curve(what) for what in ("accuracy", "kl")})

    with one_thread():
        trained("system")
        trained("free", beta=0.0)
        trained("tight", beta=0.5)
        trained("again", beta=0.0, seed=seed + 1000)
        trained("slow", beta=0.0, rate=config.rate / 4)
        trained("permuted", rows=_permuted(ground.rows, seed))
        trained("coin", reward="coin")
        trained("ppo", train=reinforce_by_ppo)
        add("rejection", _rejection(config, ground, seed))
        add("more-fine-tuning", _more(config, ground, seed))
    arms["sharpened"] = max(
        ({"gain": (ground.chances(ground.start, heat) - start).mean(), "greedy_gain": 0.0} for heat in (0.7, 0.5, 0.2, 0.0)),
        key=lambda row: row["gain"],
    )
    for name, of in (("anchored", "tight"), ("unanchored", "again"), ("slower", "slow")):
        share = kl[of] / max(kl["free"], 1e-9)
        arms[name] = {"kl_share": share, "gain_lost": arms["free"]["gain"] - arms[of]["gain"]}
    arms["system"] |= {"accuracy": start.mean() + arms["system"]["gain"], "accuracy_before": start.mean()}
    gains = {f"gain_{name}": row["gain"] for name, row in arms.items() if "gain" in row}
    return Report(arms=arms, arrays=curves | gains)


def _coin(seed: int) -> Any:
    rng = np.random.default_rng([seed, 11])
    return lambda prompts, completions, **columns: rng.integers(2, size=len(completions)).astype(float).tolist()


def _permuted(rows: Any, seed: int) -> list[dict[str, Any]]:
    """The rows with their labels, and who verifies them, dealt out among the prompts."""
    order = np.random.default_rng([seed, 12]).permutation(len(rows))
    return [
        row | {name: rows[int(other)][name] for name in ("label", "verifier")} for row, other in zip(rows, order, strict=True)
    ]


def _rejection(config: Rewards, ground: Ground, seed: int) -> Any:
    """The start after rejection sampling with as many answers and steps."""
    rounds = min(6, config.steps)
    settings = config.settings(seed)
    samples = max(1, round(settings.batch * config.steps / (rounds * len(ground.rows))))
    tuning = SFTSettings(steps=config.steps, batch=settings.batch, rate=config.rate, seed=seed, warm_up=0.0)
    model = copy.deepcopy(ground.start)
    return fine_tune_on_verified(model, ground.words, ground.rows, tuning, rounds=rounds, samples=samples, tokens=ground.tokens)


def _more(config: Rewards, ground: Ground, seed: int) -> Any:
    """The start after as many more steps of what it was fine-tuned on."""
    settings = SFTSettings(steps=config.steps, batch=config.settings(seed).batch, rate=config.rate, seed=seed)
    rows = ground.more_of_the_same(config.steps * settings.batch)
    return fine_tune(copy.deepcopy(ground.start), ground.words, rows, settings)


def _pass_at(chances: np.ndarray, k: int) -> np.ndarray:
    return 1 - (1 - chances) ** k


@rlvr.figure
def dynamics(runs: Runs):
    """Reward, divergence, length and accuracy over the training, for three betas and PPO."""
    data = runs["system"].arrays
    fig, axes = figure(4, width=3.4)
    arms = {"free": "GRPO, beta 0", "system": "GRPO, beta 0.05", "tight": "GRPO, beta 0.5", "ppo": "PPO, beta 0.05"}
    for colour, (name, said) in zip(COLOURS, arms.items(), strict=False):
        for axis, what, at in zip(
            axes, ("reward", "kl", "length", "accuracy"), ("steps", "looks", "steps", "looks"), strict=True
        ):
            axis.plot(data[f"{name}_{at}"], data[f"{name}_{what}"], color=colour, label=said)
    for axis, said in zip(axes, ("reward", "KL (nats an answer)", "answer (tokens)", "accuracy"), strict=True):
        label(axis, "step", said, legend=said == "reward")
    return fig


@rlvr.figure
def gains(runs: Runs):
    """Gain in accuracy of drawn answers by what the model was given."""
    data = runs["system"].arrays
    fig, axis = figure(width=6)
    names = {
        "system": "GRPO, beta 0.05", "free": "GRPO, beta 0", "tight": "GRPO, beta 0.5", "ppo": "PPO, beta 0.05",
        "rejection": "rejection sampling", "more-fine-tuning": "more fine-tuning", "sharpened": "start, drawn sharply",
        "permuted": "labels permuted", "coin": "reward by a coin",
    }  # fmt: skip
    ours = ("system", "free", "tight", "ppo")
    axis.barh(
        list(names.values()),
        [float(data[f"gain_{name}"]) for name in names],
        color=[SYSTEM_COLOUR if name in ours else CONTROL_COLOUR for name in names],
    )
    axis.axvline(0.25, color=COLOURS[1], linestyle="--", label="claimed")
    axis.invert_yaxis()
    label(axis, "gain in accuracy", "training")
    return fig


@dataclass(frozen=True)
class Preferences:
    """Preference optimisation of the tiny suite on its own answers."""

    steps: int = 60
    batch: int = 32
    rate: float = 5e-4
    looks: int = 6
    start: int = 1000  # steps of training before


@paper.experiment(
    presets={"smoke": Preferences(steps=2, batch=4, looks=1, start=4), "quick": Preferences(), "paper": Preferences(steps=600)},
    cost=25.0,
)
def preferences(config: Preferences, key, log: Log) -> Report:
    """Reward margin and length of answers under DPO, length-normalised DPO and SimPO, on the same pairs."""
    seed = seed_of(key)
    suite = CharacterSuite(seed, config.start)
    arms: dict[str, dict[str, float]] = {}
    curves: dict[str, Any] = {}
    with one_thread():
        pairs = suite.on_policy()(suite.base, suite.words, dataset(suite.prompts(config.steps * config.batch)))
        for number, (name, loss, beta) in enumerate(
            (("system", "sigmoid_norm", 5.0), ("plain-dpo", "sigmoid", 0.1), ("simpo", "simpo", 2.0)), 1
        ):
            looking = Looking(max(1, config.steps // config.looks), lambda model: _manners(suite, model))
            run = Run(callbacks=[looking])
            settings = DPOSettings(
                steps=config.steps,
                batch=config.batch,
                rate=config.rate,
                loss=loss,
                beta=beta,
                seed=seed,
                log_every=min(5, config.steps),
            )
            model = prefer(copy.deepcopy(suite.base), suite.words, pairs, settings, run)
            records = [row for row in run.records if "rewards/margins" in row]
            margins = [row["rewards/margins"] for row in records]
            lengths = looking.curve("length")
            arms[name] = {
                "mean_score": suite.scores(model)["mean"],
                "length_drift": lengths[-1] - lengths[0],
                "margin": margins[-1],
            }
            curves |= {f"{name}_looks": looking.steps, f"{name}_length": lengths, f"{name}_taste": looking.curve("taste")}
            curves |= {f"{name}_steps": [row["step"] for row in records], f"{name}_margin": margins}
            log.progress(number / 3)
    return Report(arms=arms, arrays=curves)


def _manners(suite: CharacterSuite, model: Any) -> dict[str, float]:
    replies = suite.replies(model)
    tastes = [verify("courtesy", text, "") for text in replies]
    return {"length": float(np.mean([len(text) for text in replies])), "taste": float(np.mean(tastes))}


@preferences.figure
def length_drift(runs: Runs):
    """Reward margin, length of answers to greetings and how they please, over the training."""
    data = runs["system"].arrays
    fig, axes = figure(3, width=3.8)
    for name, said, colour in (
        ("system", "length-normalised DPO", SYSTEM_COLOUR),
        ("plain-dpo", "DPO", CONTROL_COLOUR),
        ("simpo", "SimPO", COLOURS[1]),
    ):
        axes[0].plot(data[f"{name}_steps"], data[f"{name}_margin"], color=colour, label=said)
        axes[1].plot(data[f"{name}_looks"], data[f"{name}_length"], color=colour)
        axes[2].plot(data[f"{name}_looks"], data[f"{name}_taste"], color=colour)
    for axis, said in zip(axes, ("margin of rewards", "answer (characters)", "taste (0 to 1)"), strict=True):
        label(axis, "step", said, legend=said.startswith("margin"))
    return fig


@dataclass(frozen=True)
class Pipeline:
    """The whole post-training; without a model's name of the tiny suite."""

    steps: int = 40  # of a stage; a single stage has three times as many
    start: int = 1000  # steps of training before
    model: str = ""
    chats: str = "allenai/tulu-3-sft-mixture"
    pairs: str = "allenai/llama-3.1-tulu-3-8b-preference-mixture"
    prompts: str = "allenai/RLVR-GSM-MATH-IF-Mixed-Constraints"
    problems: str = "openai/gsm8k"

    def ground(self, seed: int) -> CharacterSuite | TuluData:
        """What it is tried on."""
        if not self.model:
            return CharacterSuite(seed, self.start)
        return TuluData(self.model, self.chats, self.pairs, self.prompts, self.problems)


SINGLE = tuple(f"{name}-alone" for name in STAGES)


@paper.experiment(
    presets={
        "smoke": Pipeline(steps=1, start=4),
        "quick": Pipeline(),
        "paper": Pipeline(steps=2000, model="meta-llama/Llama-3.1-8B"),
    },
    claims=[
        Claim("T8", "fine-tuning, then preferences, then verifiable rewards end no lower than any of them alone", kind="paper",
              where="overview; the tables by stage", ablation="reversed", null=SINGLE, grows="steps", seeds=8,
              published="average 60.4, 64.4, 64.8 after each stage",
              checks=[*(at_least("mean_score", -0.02, minus=name) for name in SINGLE),
                      at_least("smallest_rise", -0.02, over="mean")],
              reason="The three end above each alone on average, by .02 to .08; but the smallest rise of a stage is 0, give or "
              "take .03, and reinforcement alone, with all the steps, comes near."),
    ],
    cost=95.0,
)  # fmt: skip
def pipeline(config: Pipeline, key, log: Log) -> Report:
    """Scores after each stage, and after each stage alone with as many steps in all."""
    ground = config.ground(seed_of(key))
    orders = {"system": STAGES, "reversed": STAGES[::-1]} | {f"{name}-alone": (name,) for name in STAGES}
    arms, table = {}, {}
    with one_thread():
        for number, (arm, order) in enumerate(orders.items()):
            steps = config.steps * len(STAGES) // len(order)
            found = post_trained(ground, order, steps, lambda share, n=number: log.progress((n + share) / len(orders)))
            means = [row["mean"] for row in found]
            arms[arm] = found[-1] | {"mean_score": means[-1], "smallest_rise": float(np.diff(means).min())}
            table[arm] = [list(row.values()) for row in found]
    return Report(arms=arms, arrays={f"scores_{arm}": rows for arm, rows in table.items()})


@pipeline.figure
def stages(runs: Runs):
    """Scores by task after each stage, and of the whole order beside each stage alone."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2, width=5)
    tasks = ("sums", "sayings", "greetings", "mean")
    rows = np.asarray(data["scores_system"])
    for k, (row, name) in enumerate(zip(rows, ("base", "SFT", "DPO", "RLVR"), strict=True)):
        left.bar(np.arange(rows.shape[1]) + 0.2 * k - 0.3, row, width=0.2, color=(CONTROL_COLOUR, *COLOURS)[k], label=name)
    left.set_xticks(range(rows.shape[1]), tasks if rows.shape[1] == 4 else ("GSM8K", "mean"))
    label(left, "task", "score on what was held out")
    arms = {"system": "all, in order", "reversed": "reversed", **{name: name.replace("-", " ") for name in SINGLE}}
    right.barh(
        list(arms.values()),
        [np.asarray(data[f"scores_{arm}"])[-1, -1] for arm in arms],
        color=[SYSTEM_COLOUR] + [CONTROL_COLOUR] * (len(arms) - 1),
    )
    right.invert_yaxis()
    label(right, "mean score", "stages")
    return fig


@pipeline.figure
def radar(runs: Runs):
    """Scores by task of the base model and after each stage, each task a direction."""
    from matplotlib.figure import Figure

    rows = np.asarray(runs["system"].arrays["scores_system"])[:, :-1]
    names = ("sums", "sayings", "greetings") if rows.shape[1] == 3 else ("GSM8K",)
    angles = np.append(np.linspace(0, 2 * np.pi, len(names), endpoint=False), 0.0)
    fig = Figure(figsize=(4.2, 4.2), layout="constrained")
    axis = fig.add_subplot(projection="polar")
    for k, (row, name) in enumerate(zip(rows, ("base", "SFT", "DPO", "RLVR"), strict=True)):
        axis.plot(angles, np.append(row, row[0]), color=(CONTROL_COLOUR, *COLOURS)[k], label=name)
    axis.set_xticks(angles[:-1], names)
    axis.set_ylim(0, 1)
    axis.set_xlabel("score on what was held out")
    axis.set_ylabel("score, from the centre", labelpad=24)
    axis.legend(frameon=False, fontsize="small", loc="lower right")
    return fig


@dataclass(frozen=True)
class Harness:
    """The suite's base model on dev and unseen tasks."""

    samples: int = 32
    start: int = 1000  # steps of training before
    model: str = ""


@paper.experiment(
    presets={
        "smoke": Harness(samples=2, start=4),
        "quick": Harness(),
        "paper": Harness(samples=8, model="allenai/Llama-3.1-Tulu-3-8B"),
    },
    cost=8.0,
)
def harness(config: Harness, key, log: Log) -> Report:
    """Greedy and drawn accuracy, pass@k, maj@k, constraints read strictly and loosely; on dev tasks and unseen ones."""
    seed = seed_of(key)
    settings = replace(Pipeline(), model=config.model, start=config.start)
    ground = settings.ground(seed)
    ks = [k for k in (1, 2, 4, 8, 16, 32) if k <= config.samples]
    metrics: dict[str, float] = {}
    curves: dict[str, Any] = {"k": ks}
    splits = dict.fromkeys(task.split for task in ground.evaluation())
    with one_thread():
        for split in splits:
            found = evaluate(
                ground.base, ground.words, ground.evaluation(), samples=config.samples, k=ks,
                tokens=30 if not config.model else 1024, unseen=split == "unseen", batch=512, seed=seed,
            )  # fmt: skip
            for task, row in found["tasks"].items():
                metrics |= {f"{split}_{task}_{name}": value for name, value in row.items() if name != "prompts"}
                curves |= {f"{split}_{task}_{vote}": [row[f"{vote}@{k}"] for k in ks] for vote in ("maj", "pass")}
            log.progress(len(curves) / 12)
    return Report(metrics=metrics, arrays=curves)


@harness.figure
def votes(runs: Runs):
    """Accuracy of the commonest of k answers (lines) and of the best of k (dashed), by task."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=4.2)
    for axis, split in zip(axes, ("dev", "unseen"), strict=True):
        tasks = [name[len(split) + 1 : -4] for name in data if name.startswith(split) and name.endswith("_maj")]
        for task, colour in zip(tasks, COLOURS, strict=False):
            axis.semilogx(data["k"], data[f"{split}_{task}_maj"], color=colour, label=task, base=2)
            axis.semilogx(data["k"], data[f"{split}_{task}_pass"], color=colour, linestyle="--", base=2)
        label(axis, "answers, k", "maj@k (line), pass@k (dashed)", title=split)
    return fig
