"""Visual Jigsaw post-training, arXiv 2509.25190.

Pictures, videos and depths are cut into pieces and shuffled; a model that sees writes the permutation that restores them, which
alone gives the reward of GRPO. Controls: a reward that says nothing, fine-tuning on right answers, grey pictures, and solvers
that know seams alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language.jigsaw.depth_puzzles import lower_is_nearer
from broadsheet.language.jigsaw.learners import Learners, Start, binary, random_reward
from broadsheet.language.jigsaw.permutations import places_of, target_of
from broadsheet.language.jigsaw.probes import digits_in_quadrants, linear_probe, tower_features
from broadsheet.language.jigsaw.puzzle_checks import REWARD_TABLE, distinct_alone, pairs_in_order, restored, ungated, violations
from broadsheet.language.jigsaw.puzzle_sets import PuzzleSet
from broadsheet.language.jigsaw.puzzles import reassemble
from broadsheet.language.jigsaw.rewards import as_trl_reward, chance_accuracy, chance_exact, chance_of_signal, jigsaw_reward
from broadsheet.language.jigsaw.seams import solve_clips, solve_tiles
from broadsheet.language.jigsaw.training import judged, labels_in, permutation_in
from broadsheet.language.jigsaw.vision_models import vision_model, written
from broadsheet.language.models import one_thread
from broadsheet.language.post_training.settings import RLSettings
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="visual-jigsaw",
    arxiv="2509.25190",
    title="Visual Jigsaw Post-Training Improves MLLMs",
    published="2025-09-29",
    authors=6,
    basis="code",
    code="github.com/penghao-wu/visual_jigsaw (Apache-2.0)",
    summary="A multimodal model learns to see better by solving jigsaws: it writes the permutation that restores shuffled "
    "tiles, clips or depths, and the permutation alone gives the reward.",
    topics=("multimodal models", "reinforcement learning", "self-supervision"),
    parts=(
        "broadsheet.language.jigsaw.puzzles.JigsawTask",
        "broadsheet.language.jigsaw.rewards.jigsaw_reward",
        "broadsheet.language.jigsaw.training.post_train",
        "broadsheet.language.jigsaw.seams.solve_tiles",
        "broadsheet.language.jigsaw.probes.linear_probe",
    ),
    requires=("language",),
    verbs=("broadsheet language jigsaw FOLDER --out DATASET",),
    notes=(
        "Quick runs train a Qwen2.5-VL of 159 840 parameters on puzzles of three or four tiles of colour ramps, from a "
        "start that was fine-tuned on answers of which two in five are drawn at random; the paper's models are "
        "Qwen2.5-VL-7B and ThinkLite-VL on COCO, LLaVA-Video-178K and ScanNet, which the paper preset loads by name and "
        "from --data.",
        "A solver that knows the colours at the seams alone puts every ramp together, and fine-tuning on the right "
        "answers learns them as well as reinforcement does: at this size puzzles show that the training works, not that "
        "it is needed.",
        "The tiny model does not get from the noisy answers to puzzles of six or nine pieces: after 350 steps it guesses. "
        "What credit in part is worth there (VJ7) is judged at the paper's size; of the four pieces that quick size looks at, "
        "a binary reward teaches as much.",
        "Videos and depths are run for a few steps at quick size, to exercise the whole way; the tiny model learns "
        "little of them.",
        "Clips lose 5 % at both ends, as the paper says; the released code takes 10 %, wants its answers in \\boxed{}, "
        "and gives credit in part only above four pieces, to any list of K distinct numbers.",
    ),
    untested=[
        Claim("VJ9", "puzzles of pictures improve perception and grounding", kind="paper", where="table 1",
              published="MMVP 54.66 -> 60.66, HR-Bench-8K 67.38 -> 71.13, V* 76.96 -> 80.63",
              untested="benchmarks of a model of 7 billion parameters after 256 000 prompts"),
        Claim("VJ10", "puzzles of videos improve the understanding of time", kind="paper", where="table 2",
              published="AoTBench +5.23, Vinoground +3.40, CVBench +3.00",
              untested="benchmarks of a model of 7 billion parameters after 128 000 prompts"),
        Claim("VJ11", "puzzles of depths improve the understanding of space", kind="paper", where="table 3",
              published="SAT-Real 48.66 -> 64.00, DA-2K 54.45 -> 71.56",
              untested="benchmarks of a model of 7 billion parameters; ScanNet is given out by a form"),
    ],
)  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """The reward and the permutations, without a model."""

    draws: int = 200
    permutations: int = 200_000
    groups: int = 4000  # of 16 answers, K = 9


@paper.experiment(
    presets={"smoke": Rules(20, 500, 50), "quick": Rules(), "paper": Rules(2000, 2_000_000, 40_000)},
    claims=[
        Claim("VJ1", "the reward follows the rule", kind="check", ablation=("no-gate", "distinct"),
              reference="values by hand; controls: accuracy without the format, and any list of K distinct numbers taken for a "
              "permutation, as the released code has it",
              checks=[at_most("reward_error", 1e-9)]),
        Claim("VJ2", "the target is the permutation, and puts pictures, videos and points together again bit for bit",
              kind="check", ablation="inverse", reference="what was cut; control: the inverse permutation",
              checks=[at_least("restored", 1.0)]),
        Claim("VJ3", "random permutations earn what the closed form says", kind="check", ablation="with-repeats",
              reference="1/K! + 0.2 (1/K - 1/K!); control: labels drawn with repeats",
              checks=[at_most("mean_error_4", 1.5e-3), at_most("mean_error_6", 4e-4), at_most("mean_error_9", 2e-4)]),
        Claim("VJ4", "credit in part gives a signal where a binary reward gives none", kind="paper", where="reward design",
              ablation="binary", null="noise", checks=[
                  at_least("signal", 0.99), at_least("agreement", 0.9), at_most("signal", 1e-3, of="binary")],
              answers_to={"binary": "of nine pieces one permutation in 362 880 is right: that there is nothing to learn "
                          "from is what the claim is about"}),
    ],
    cost=15.0,
)  # fmt: skip
def rules(config: Rules, key, log: Log) -> Report:
    """The reward's table, re-assembly, what guessing earns, and how often a group of guesses says anything."""
    rng = generator(key)
    arms: dict[str, dict[str, Any]] = {
        name: {"reward_error": max(abs(rule(text, target) - value) for text, target, value in REWARD_TABLE)}
        for name, rule in {
            "system": lambda text, target: jigsaw_reward(text, target).total,
            "no-gate": ungated,
            "distinct": distinct_alone,
        }.items()
    }
    answers = {"system": target_of, "inverse": places_of}
    arms["inverse"] = {}
    for name, answer in answers.items():
        arms[name]["restored"] = np.mean([restored(k, seed_of(key), answer) for k in range(config.draws)])
    log.progress(0.3)
    arms["with-repeats"] = {}
    for pieces in (4, 6, 9):
        drawn = np.argsort(rng.random((config.permutations, pieces)), axis=1)
        earned = _accuracy(drawn)
        arms["system"][f"mean_error_{pieces}"] = abs(earned.mean() - chance_accuracy(pieces))
        repeated = _accuracy(rng.integers(pieces, size=drawn.shape))
        arms["with-repeats"][f"mean_error_{pieces}"] = abs(repeated.mean() - chance_accuracy(pieces))
    log.progress(0.8)
    drawn = np.argsort(rng.random((config.groups, 16, 9)), axis=2)
    right = (drawn == np.arange(9)).sum(2)
    given = {"system": _accuracy(drawn), "binary": _accuracy(drawn, 0.0), "noise": rng.random(right.shape)}
    for name, rewards in given.items():
        arms.setdefault(name, {})
        arms[name] |= {"signal": (np.ptp(rewards, axis=1) > 0).mean(), "agreement": _agreement(rewards, right)}
    sizes, groups = list(range(2, 10)), (8, 16)
    curves = [[[chance_of_signal(k, group, part) for k in sizes] for group in groups] for part in (True, False)]
    return Report(
        arms=arms, arrays={"sizes": sizes, "signal": curves, "measured": [arms["system"]["signal"], arms["binary"]["signal"]]}
    )


def _accuracy(answers: np.ndarray, gamma: float = 0.2) -> np.ndarray:
    """Accuracy of answers (…, K) to puzzles whose right answer is 0, 1, …, as the rule has it."""
    pieces = answers.shape[-1]
    right = (answers == np.arange(pieces)).sum(-1)
    valid = (np.sort(answers, axis=-1) == np.arange(pieces)).all(-1)
    return np.where(right == pieces, 1.0, np.where(valid, gamma * right / pieces, 0.0))


def _agreement(rewards: np.ndarray, right: np.ndarray) -> float:
    """Mean correlation, over groups, of rewards and right places; 0 where either is the same for all."""
    x, y = (values - values.mean(1, keepdims=True) for values in (rewards, right.astype(float)))
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return float(np.where(scale > 0, (x * y).sum(1) / np.where(scale > 0, scale, 1), 0).mean())


@rules.figure
def signal(runs: Runs):
    """How often the rewards of a group of guesses differ, by the number of pieces."""
    data = runs["system"].arrays
    fig, axis = figure()
    for rewards, colour, name in zip(
        data["signal"], (SYSTEM_COLOUR, CONTROL_COLOUR), ("credit in part", "binary"), strict=True
    ):
        for share, style, group in zip(rewards, ("--", "-"), (8, 16), strict=True):
            axis.semilogy(data["sizes"], share, style, color=colour, label=f"{name}, groups of {group}")
    axis.semilogy([9], data["measured"][:1], "o", color=SYSTEM_COLOUR, label="measured")
    axis.set_ylim(1e-5, 2)
    label(axis, "pieces", "groups whose rewards differ (share)")
    return fig


@dataclass(frozen=True)
class Training:
    """A model that sees, the puzzles it is trained on, and how. Quick sizes are those of the tiny model."""

    puzzles: str = "strips"  # made here; coco, llava-video, scannet, nyu, pictures: read from `data`
    data: str | None = None  # a folder
    grid: tuple[int, ...] = ()  # rows and columns, where not the puzzles' own
    model: str = ""  # on the Hub, or a folder; none for the tiny one after `start` steps on noisy answers
    start: int = 350
    steps: int = 60
    prompts: int = 8  # of a step
    group: int = 8  # answers to each
    at_once: int = 64  # answers that go through the model at once
    rate: float = 1e-3
    schedule: str = "linear"
    tokens: int = 11  # of an answer
    adapter: int = 0  # rank of a LoRA adapter, 0 for all weights
    precision: str = "float32"
    device: str = "cpu"
    train: int = 600  # puzzles
    test: int = 256
    probes: int = 1200  # pictures that ask what the training did not


PAPER = Training(
    puzzles="coco", model="Qwen/Qwen2.5-VL-7B-Instruct", steps=1000, prompts=256, group=16, at_once=16, rate=1e-6,
    schedule="constant", tokens=2048, precision="bfloat16", device="cuda", train=118_287, test=1000,
)  # fmt: skip
SMOKE = Training(start=2, steps=1, prompts=2, group=2, at_once=4, tokens=3, train=4, test=4, probes=64)


def _learners(config: Training, key, log: Log, stages: int) -> Learners:
    """Trainings of a config; each of the `stages` that are to come moves the progress on by as much."""
    seed, done = seed_of(key), [0, 0.0]

    def watch(share: float, record: dict[str, float]) -> None:
        done[0] += share < done[1]
        done[1] = share
        log.progress(min(1.0, (done[0] + share) / stages), **{k: v for k, v in record.items() if k in ("loss", "reward")})

    settings = RLSettings(
        steps=config.steps, batch=config.prompts * config.group, device_batch=config.at_once, group=config.group,
        rate=config.rate, schedule=config.schedule, answer_tokens=config.tokens, adapter=config.adapter, beta=0.0,
        precision=config.precision, seed=seed,
    )  # fmt: skip
    start = Start(config.model, config.start, precision=config.precision, device=config.device)
    grid = (config.grid[0], config.grid[1]) if config.grid else None
    return Learners(start, PuzzleSet(config.puzzles, config.data, grid, seed), settings, config.train, config.test, seed, watch)


@paper.experiment(
    presets={"smoke": SMOKE, "quick": Training(), "paper": PAPER},
    claims=[
        Claim("VJ5", "reinforcement works on a model that sees: it solves puzzles it could not", kind="paper",
              where="section 4, image jigsaw", ablation="random-reward", null=("imitation", "seams"), grows="steps", seeds=8,
              checks=[at_least("gain", 0.15, over="mean"),
                      at_least("exact", 0.8, over="mean", within=(0.0, 1.0), chance=1 / 6)],
              reason="Ramps are solved by the colours at their seams without a model, and fine-tuning on right answers ends as "
              "high as reinforcement or higher on every seed. On three of eight seeds the noisy start gets .02 to .18 right, "
              "and rewards hardly say anything: gains of .00, .01 and .14 there, of .25 to .37 on the others."),
        Claim("VJ6", "the picture is used: with grey in its place the model guesses", kind="paper", where="section 3",
              ablation=("trained-blind", "start"), null="guess", grows="steps", seeds=8,
              checks=[at_most("exact_blind", 0.30, over="mean", within=(0.0, 1.0)),
                      at_least("sight", 0.5, over="mean")],
              reason="On the three seeds whose start is no better than guessing nothing was learned that grey could take away; "
              "on the other five, right answers fall by .60 to .90."),
        Claim("VJ8", "what is learned from puzzles carries over to a question that was not trained, and that of fine-tuning "
              "does not", kind="paper", where="table 1", ablation="random-reward", null="untrained", grows="steps", seeds=8,
              published="MMVP 54.66 -> 60.66 by puzzles, 56.00 by fine-tuning",
              checks=[at_least("transfer", {"quick": 0.0, "paper": 0.0}, minus="start"),
                      at_least("transfer", {"quick": 0.0, "paper": 0.0}, minus="imitation")],
              reason="The quadrant of a digit is read from the tower as well before as after any of the trainings, .72 on "
              "average; differences are of a hundredth, either way."),
    ],
    data="data",
    cost=70.0,
)  # fmt: skip
def image_jigsaw(config: Training, key, log: Log) -> Report:
    """Tiles in order: GRPO from a noisy start, and what else would do as well."""
    with one_thread():
        learners = _learners(config, key, log, stages=5)
        task, test = learners.task, learners.held_out
        begun, _ = learners.begin()
        models = {
            "start": begun,
            "system": learners.reinforced("system"),
            "random-reward": learners.reinforced("random-reward", random_reward(task, learners.seed)),
            "trained-blind": learners.reinforced("trained-blind", blind=True),
            "imitation": learners.imitating(),
        }
        found = {name: (learners.score(model), learners.score(model, blind=True)) for name, model in models.items()}
        pictures, quadrants = digits_in_quadrants(learners.seed, config.probes)
        probed = models if config.model else models | {"untrained": vision_model(learners.seed)}
        transfer = {
            name: linear_probe(tower_features(model, learners.processor, list(pictures), "all"), quadrants)
            for name, model in probed.items()
        }
    before = found["start"][0].exact
    arms: dict[str, dict[str, float]] = {
        name: {
            "exact": seen.exact, "gain": seen.exact - before, "pieces": seen.pieces, "reward": seen.reward,
            "exact_blind": blind.exact, "pieces_blind": blind.pieces, "sight": seen.exact - blind.exact,
        }
        for name, (seen, blind) in found.items()
    }  # fmt: skip
    for name, value in transfer.items():
        arms.setdefault(name, {})["transfer"] = value
    by_seams = [solve_tiles(puzzle.pieces, task.grid) for puzzle in test]
    exact, right = judged([written(answer) for answer in by_seams], _targets(learners), task)
    arms["seams"] = {"exact": exact.mean(), "gain": exact.mean() - before, "pieces": right.mean()}
    arms["guess"] = _guess(learners) | {"exact_blind": chance_exact(task.size), "sight": 0.0}
    texts = [found[name][0].texts for name in ("start", "system")]
    return Report(arms=arms, arrays={**_curves(learners), "pictures": _shown(learners, texts)})


def _curves(learners: Learners) -> dict[str, np.ndarray]:
    return {f"curve_{name}": np.array(values) for name, values in learners.curves.items()}


def _shown(learners: Learners, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The first puzzles held out (three, four, height, width, 3): as each is shown, what two answers make of it (black where
    one is no order), and the picture."""
    task, rows = learners.task, []
    for puzzle, *said in list(zip(learners.held_out, *texts, strict=True))[:3]:
        given = (permutation_in(text, task) for text in said)
        whole = reassemble(puzzle.pieces, puzzle.target, task.grid)
        orders = [[*range(1, task.size + 1)], *given, puzzle.target]
        black = Image.new("RGB", whole.size)
        rows.append([black if order is None else reassemble(puzzle.pieces, order, task.grid) for order in orders])
    size = rows[0][-1].size
    return np.array([[np.asarray(picture.resize(size)) for picture in row] for row in rows])


@image_jigsaw.figure
def learning(runs: Runs):
    """Reward, right answers and pieces in place over the training, with what guessing gives."""
    return _learning(runs, {"system": "puzzles", "random-reward": "random reward", "trained-blind": "grey pictures"})


@image_jigsaw.figure
def answers(runs: Runs):
    """Puzzles held out: as they are shown, and as the model puts them together before and after."""
    pictures = runs["system"].arrays["pictures"]
    fig, axes = figure(4, len(pictures), width=2.6, height=1.4)
    names = ("as shown", "the start's answer", "after reinforcement", "the picture")
    for row, shown in zip(np.atleast_2d(axes), pictures, strict=True):
        for axis, picture, name in zip(row, shown, names, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[0, picture.shape[1]], yticks=[0, picture.shape[0]])
            label(axis, "x (px)", "y (px)", name)
    return fig


@image_jigsaw.figure
def seen_and_blind(runs: Runs):
    """Right answers with the picture and with grey in its place, and what the tower tells of another question."""
    arms = runs["system"].arms
    fig, (left, right) = figure(2)
    names = ["start", "random-reward", "trained-blind", "imitation", "system"]
    places = np.arange(5)
    for shift, what, colour, title in ((-0.2, "exact", SYSTEM_COLOUR, "picture"), (0.2, "exact_blind", CONTROL_COLOUR, "grey")):
        left.bar(places + shift, [arms[name][what] for name in names], 0.4, color=colour, label=title)
    left.axhline(arms["guess"]["exact"], color="k", lw=0.6, label="guessing")
    left.set_ylim(0, 1.3)
    label(left, "training", "right answers (share)")
    left.set_xticks(places, names, rotation=20, ha="right", fontsize="small")
    names = [name for name in ("untrained", *names) if name in arms]
    right.bar(range(len(names)), [arms[name]["transfer"] for name in names],
              color=[SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR for name in names])  # fmt: skip
    right.axhline(0.25, color="k", lw=0.6, label="guessing")
    right.set_ylim(0, 1)
    label(right, "training", "linear probe (accuracy)", "in which quadrant is the digit?")
    right.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize="small")
    return fig


def _learning(runs: Runs, names: dict[str, str]):
    """Curves of the answers drawn in the training, a panel each for reward, exact and pieces."""
    data, guess = runs["system"].arrays, runs["system"].arms["guess"]
    fig, axes = figure(3, width=3.4)
    columns = {"reward": "reward", "exact": "right answers (share)", "pieces": "pieces in place (share)"}
    for k, (axis, (what, title_of_axis)) in enumerate(zip(axes, columns.items(), strict=True)):
        for number, (name, title) in enumerate(names.items()):
            curve = data[f"curve_{name}"][:, k]
            window = min(5, len(curve))
            smooth = np.convolve(curve, np.ones(window) / window, mode="valid")
            axis.plot(np.arange(len(smooth)) + window, smooth, color=CONTROL_COLOUR if number else SYSTEM_COLOUR,
                      ls=("-", "--", ":", "-.")[number % 4], label=title)  # fmt: skip
        axis.axhline(guess[what], color="k", lw=0.6, label="guessing")
        label(axis, "step", title_of_axis, legend=k == 0)
    return fig


VIDEO = Training(puzzles="video", steps=20, prompts=4, at_once=32, tokens=17, train=80, test=96)


@paper.experiment(
    presets={
        "smoke": replace(SMOKE, puzzles="video"),
        "quick": VIDEO,
        "paper": replace(PAPER, puzzles="llava-video", prompts=128, train=100_000, test=500),
    },
    data="data",
    cost=40.0,
)
def video_jigsaw(config: Training, key, log: Log) -> Report:
    """Clips in the order of time: a few steps of GRPO, and a solver that compares the clips' first and last frames."""
    with one_thread():
        learners = _learners(config, key, log, stages=2)
        models = {"start": learners.begin()[0], "system": learners.reinforced("system")}
        found = {name: learners.score(model) for name, model in models.items()}
    by_frames = [solve_clips(puzzle.pieces) for puzzle in learners.held_out]
    exact, right = judged([written(answer) for answer in by_frames], _targets(learners), learners.task)
    arms = {name: {"exact": one.exact, "pieces": one.pieces, "reward": one.reward} for name, one in found.items()}
    arms |= {"frames": {"exact": exact.mean(), "pieces": right.mean()}, "guess": _guess(learners)}
    places = {f"places_{name}": one.places for name, one in found.items()} | {"places_frames": right.mean(0)}
    shown = [np.asarray(clip[0]) for clip in learners.held_out[0].pieces]
    height, width = (min(frame.shape[k] for frame in shown) for k in (0, 1))
    return Report(arms=arms, arrays={**_curves(learners), **places, "clips": np.stack([f[:height, :width] for f in shown])})


def _targets(learners: Learners) -> list[list[int]]:
    return [puzzle.target for puzzle in learners.held_out]


def _guess(learners: Learners) -> dict[str, float]:
    """What drawing a permutation scores, in closed form."""
    size, task = learners.task.size, learners.task
    accuracy = chance_accuracy(size, task.gamma)
    return {"exact": chance_exact(size), "pieces": 1 / size, "accuracy": accuracy, "reward": task.format_score + accuracy}


@video_jigsaw.figure
def by_clip(runs: Runs):
    """Clips that are put in their places, by place; below, the first frames of a puzzle's clips as they are shown."""
    data = runs["system"].arrays
    fig, axis = figure()
    places = np.arange(1, len(data["places_system"]) + 1)
    axis.plot(places, data["places_frames"], "s--", color=CONTROL_COLOUR, label="first and last frames alone")
    axis.plot(places, data["places_start"], "o:", color=COLOURS[1], label="start")
    axis.plot(places, data["places_system"], "o-", color=SYSTEM_COLOUR, label="after reinforcement")
    axis.axhline(1 / len(places), color="k", lw=0.6, label="guessing")
    axis.set_ylim(0, 1.02)
    label(axis, "place in time", "clips in place (share)")
    return fig


@video_jigsaw.figure
def clips(runs: Runs):
    """The first frames of a puzzle's clips, as they are shown."""
    frames = runs["system"].arrays["clips"]
    fig, axes = figure(len(frames), width=1.5, height=1.9)
    for number, (axis, frame) in enumerate(zip(axes, frames, strict=True), start=1):
        axis.imshow(frame)
        axis.set(xticks=[0, frame.shape[1]], yticks=[])
        label(axis, "x (px)", "y (px)", f"clip {number}")
    return fig


@paper.experiment(
    presets={
        "smoke": replace(SMOKE, puzzles="depth"),
        "quick": replace(VIDEO, puzzles="depth"),
        "paper": replace(PAPER, puzzles="scannet", steps=800, prompts=128, train=300_000),
    },
    data="data",
    cost=40.0,
)
def depth_jigsaw(config: Training, key, log: Log) -> Report:
    """Points from the nearest to the farthest: the constraints of their choice, a few steps of GRPO, and the rule that what is
    lower in the picture is nearer."""
    with one_thread():
        learners = _learners(config, key, log, stages=2)
        models = {"start": learners.begin()[0], "system": learners.reinforced("system")}
        found = {name: learners.score(model) for name, model in models.items()}
    task, test = learners.task, learners.held_out
    given = {name: [labels_in(text, task) for text in one.texts] for name, one in found.items()}
    given["lower"] = [lower_is_nearer(puzzle.pieces) for puzzle in test]
    exact, right = judged([written(answer) for answer in given["lower"]], _targets(learners), task)
    arms = {name: {"exact": one.exact, "pieces": one.pieces, "reward": one.reward} for name, one in found.items()}
    arms |= {"lower": {"exact": exact.mean(), "pieces": right.mean()}, "guess": _guess(learners) | {"pairs": 0.5}}
    arrays = {}
    for name, answers in given.items():
        gaps, ordered = pairs_in_order(test, answers)
        arms[name]["pairs"] = ordered.mean()
        arrays[f"ordered_{name}"] = ordered
    arms["system"]["violations"] = sum(violations(puzzle.pieces, task.constraints) for puzzle in test)
    return Report(arms=arms, arrays={**_curves(learners), **arrays, "gaps": gaps, "picture": np.asarray(test[0].images[0]),
                                     "target": np.array(test[0].target)})  # fmt: skip


@depth_jigsaw.figure
def points(runs: Runs):
    """A picture with its points, and pairs in the right order by how far apart their depths are."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.imshow(data["picture"])
    label(left, "x (px)", "y (px)", "nearest to farthest: " + ", ".join(map(str, data["target"])))
    edges = np.quantile(data["gaps"], np.linspace(0, 1, min(6, len(data["gaps"]))))
    bins = np.clip(np.searchsorted(edges, data["gaps"], "right") - 1, 0, len(edges) - 2)
    middle = [data["gaps"][bins == k].mean() for k in np.unique(bins)]
    for name, style, colour, title in (
        ("lower", "s--", CONTROL_COLOUR, "lower is nearer"), ("start", "o:", COLOURS[1], "start"),
        ("system", "o-", SYSTEM_COLOUR, "after reinforcement"),
    ):  # fmt: skip
        right.plot(
            middle, [data[f"ordered_{name}"][bins == k].mean() for k in np.unique(bins)], style, color=colour, label=title
        )
    right.axhline(0.5, color="k", lw=0.6, label="guessing")
    label(right, "difference of depths (m)", "pairs in order (share)")
    return fig


SQUARES = Training(puzzles="squares", start=900, tokens=13)


@paper.experiment(
    presets={
        "smoke": replace(SMOKE, puzzles="squares"),
        "quick": SQUARES,
        "paper": replace(PAPER, grid=(3, 3)),
    },
    claims=[
        Claim("VJ7", "nine pieces are learned with credit in part, not with a binary reward", kind="paper",
              where="section 3, reward design", ablation="binary", null="random-reward", grows="steps", seeds=8,
              published="with a binary reward the model fails to learn 3 x 3 puzzles",
              checks=[at_least("pieces", {"paper": 0.05}, minus="binary")]),
    ],
    data="data",
    cost=60.0,
)  # fmt: skip
def ablations(config: Training, key, log: Log) -> Report:
    """Credit in part against a binary reward, and reinforcement against fine-tuning, from the same start."""
    with one_thread():
        learners = _learners(config, key, log, stages=4)
        task = learners.task
        models = {
            "start": learners.begin()[0],
            "system": learners.reinforced("system"),
            "binary": learners.reinforced("binary", as_trl_reward(binary(task))),
            "random-reward": learners.reinforced("random-reward", random_reward(task, learners.seed)),
            "imitation": learners.imitating(),
        }
        found = {name: learners.score(model) for name, model in models.items()}
    arms = {name: {"exact": one.exact, "pieces": one.pieces, "reward": one.reward} for name, one in found.items()}
    return Report(arms=arms | {"guess": _guess(learners)}, arrays=_curves(learners))


@ablations.figure
def rewards(runs: Runs):
    """Pieces in place and right answers after each training."""
    arms = runs["system"].arms
    fig, axis = figure(width=5.0)
    names = ("start", "random-reward", "binary", "imitation", "system")
    places = np.arange(len(names))
    for shift, what, colour in ((-0.2, "pieces", SYSTEM_COLOUR), (0.2, "exact", COLOURS[1])):
        title = {"pieces": "pieces in place", "exact": "right answers"}[what]
        axis.bar(places + shift, [arms[name][what] for name in names], 0.4, color=colour, label=title)
        axis.axhline(arms["guess"][what], color=colour, lw=0.8, ls="--")
    axis.set_xticks(places, ["start", "random\nreward", "binary\nreward", "fine-tuning", "credit\nin part"], fontsize="small")
    label(axis, "training (dashed: guessing)", "share of puzzles held out")
    return fig


@ablations.figure
def reward_curves(runs: Runs):
    """The training with credit in part and with a binary reward."""
    return _learning(runs, {"system": "credit in part", "binary": "binary reward", "random-reward": "random reward"})
