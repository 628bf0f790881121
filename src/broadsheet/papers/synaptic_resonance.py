"""Synaptic resonance in language models, after the idea of arXiv 2502.10699.

A fast-weight memory beside attention, written more strongly where it already predicts what is written. Controls: the memory
without resonance, with relevance dealt out at random, no memory at equal parameters, linear attention, the delta rule, a window
of attention of equal state, an LSTM of equal parameters.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from broadsheet.errors import MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.lab.timing import compare
from broadsheet.language import resonance_checks as checks
from broadsheet.language.architectures import Sizes
from broadsheet.language.memory_models import give_memory, longer_window, memory_model, parameters, state_numbers, train, widths
from broadsheet.language.memory_tasks import (
    RecallTask,
    TopicGrammar,
    coherence,
    loss_by_position,
    noise_readings,
    retention_curve,
    segment_similarity,
    words_in_slots,
)
from broadsheet.language.models import load, one_thread
from broadsheet.language.prose import docstrings, learn_tokenizer, rows_of_tokens, wikitext
from broadsheet.language.resonance_adapter import memories, remove_synaptic_resonance, resonance_of
from broadsheet.language.windows import attending_within
from broadsheet.numerics import seed_of

paper = Paper(
    slug="synaptic-resonance",
    arxiv="2502.10699",
    title="Exploring Synaptic Resonance in Large Language Models: A Novel Approach to Contextual Memory Integration",
    published="2025-02-15",
    authors=5,
    basis="reconstructed",
    summary="Synaptic weight matrices beside attention that keep changing at inference: what is relevant is stored, and "
    "pathways that already predict what arrives are reinforced. Said to lower perplexity and to help memory, coherence and "
    "robustness; here as a fast-weight memory that any causal model can be given.",
    topics=("fast weights", "memory", "language models"),
    parts=(
        "broadsheet.language.resonance.resonance_scan", "broadsheet.language.resonance_adapter.add_synaptic_resonance",
        "broadsheet.language.resonance_files", "broadsheet.language.memory_tasks", "broadsheet.language.memory_models",
    ),
    requires=("language",),
    notes=(
        "After the idea: only the abstract and summaries of the paper can be read. They give no equation, figure or code, and "
        "the definition here is ours. No result here is a reproduction.",
        "What the paper asserts compares a model with the memory to one without. The memory is a fast-weight memory, and those "
        "do as much without resonance: a claim that they meet too is vacuous, as one about resonance.",
        "Keys are those of the token before, so that one pair of tokens binds a context to what follows it; with keys of the "
        "token itself the recall task would take two layers of memory.",
    ),
)  # fmt: skip

KAPPAS = (0.0, 0.5, 2.0, 8.0)
RIVALS = ("kappa-0", "shuffled", "no-memory", "linear-attention", "delta-rule", "longer-window", "lstm")
COLOUR = dict(zip(RIVALS, (*COLOURS[1:3], CONTROL_COLOUR, *COLOURS[3:], "#d08fb0"), strict=True)) | {"system": SYSTEM_COLOUR}
TITLE = {
    "system": "resonance", "kappa-0": "no resonance", "shuffled": "relevance shuffled", "no-memory": "no memory",
    "linear-attention": "linear attention", "delta-rule": "delta rule", "longer-window": "longer window", "lstm": "LSTM",
}  # fmt: skip


@dataclass(frozen=True)
class Identities:
    """Random inputs and small random models."""

    tokens: int = 50
    writes: int = 60
    chunks: tuple[int, ...] = (8, 16, 32, 64)
    refine: tuple[int, ...] = (0, 1, 2, 3, 4)


@paper.experiment(
    presets={"smoke": Identities(tokens=12, writes=4, chunks=(8, 16)), "quick": Identities(),
             "paper": Identities(tokens=200, writes=400)},
    claims=[
        Claim("S1", "a new memory changes nothing", kind="check", ablation="awake",
              reference="the model's own logits; control: gamma begins at 1", checks=[at_most("start_error", 0.0)]),
        Claim("S2", "without resonance and relevance it is linear attention with decay", kind="check",
              ablation=("reads-itself", "faster-decay"),
              reference="the sum over earlier tokens, in double precision; controls: read after write, lam 0.97 for 0.98",
              checks=[at_most("attention_error", 1e-10)]),
        Claim("S3", "strength grows and fades by its law", kind="check", ablation="delta",
              reference="the closed form of a pair that is written again and again; control: the delta rule",
              checks=[at_most("law_error", 1e-9)]),
        Claim("S4", "whole and token by token agree, and the memory is bounded", kind="check", ablation="forgetful",
              reference="a whole pass; eta (1 + kappa) max|v| / (1 - lam); control: memories are not carried from call to call",
              checks=[at_most("prefill_error", 1e-4), at_most("bound_violations", 0)]),
        Claim("S5", "a token changes nothing before it", kind="check", ablation="peeking",
              reference="the logits before the change; control: relevance of two tokens ahead",
              checks=[at_most("causality_error", 0.0)]),
    ],
    cost=4.0,
)  # fmt: skip
def identities(config: Identities, key, log: Log) -> Report:
    """The memory against closed forms and the model without it, beside wrong memories; and how exact chunks are."""
    seed, tokens = seed_of(key), config.tokens
    with one_thread():
        system = {
            "start_error": checks.start_error(seed, tokens=tokens),
            "attention_error": max(
                checks.attention_error(seed, form=form, tokens=tokens) for form in ("loop", "chunk", "parallel")
            ),
            "law_error": checks.law_error(seed, writes=config.writes),
            "prefill_error": checks.prefill_error(seed, tokens=tokens),
            "bound_violations": checks.bound_violations(seed),
            "causality_error": checks.causality_error(seed, tokens=tokens),
        }
        log.progress(0.6)
        wrong = {
            "awake": {"start_error": checks.start_error(seed, gamma=1.0, tokens=tokens)},
            "reads-itself": {"attention_error": checks.attention_error(seed, reads_itself=True, tokens=tokens)},
            "faster-decay": {"attention_error": checks.attention_error(seed, lam=0.97, tokens=tokens)},
            "delta": {"law_error": checks.law_error(seed, rule="delta", writes=config.writes)},
            "forgetful": {
                "prefill_error": checks.prefill_error(seed, carried=False, tokens=tokens),
                "bound_violations": checks.bound_violations(seed),
            },
            "peeking": {"causality_error": checks.causality_error(seed, peeks=True, tokens=tokens)},
        }
        errors = checks.approximation(seed, config.chunks, config.refine)
    system |= {
        f"error_chunk{c}_refine{n}": errors[i, j] for i, c in enumerate(config.chunks) for j, n in enumerate(config.refine)
    }
    return Report(arms={"system": system, **wrong}, arrays={"errors": errors, "chunks": config.chunks, "refine": config.refine})


@identities.figure
def chunks(runs: Runs):
    """How far chunked forms are from the loop, by how often resonance is taken again."""
    data = runs["system"].arrays
    fig, axis = figure()
    for k, (chunk, errors) in enumerate(zip(data["chunks"], data["errors"], strict=True)):
        axis.semilogy(data["refine"], np.maximum(errors, 1e-9), "o-", ms=3, color=COLOURS[k], label=f"{chunk} steps")
    label(axis, "times that resonance is taken again", "error of what is read (relative)", "chunks against the loop")
    return fig


@dataclass(frozen=True)
class Reinforcement:
    """One pair is written several times among others that are written once."""

    draws: int = 200
    pairs: int = 32
    width: int = 32
    times: int = 4


@paper.experiment(
    presets={"smoke": Reinforcement(draws=4), "quick": Reinforcement(), "paper": Reinforcement(draws=5000)},
    claims=[
        Claim("S7", "resonance reinforces the pair that comes again, and not a key that comes with other values", kind="paper",
              where="abstract (reinforcement of relevant pathways)", ablation=("shuffled", "constant"), null="familiar",
              checks=[at_least("smallest_rise", 0.001), at_least("selectivity", 0.3)]),
    ],
    cost=2.0,
)  # fmt: skip
def reinforcement(config: Reinforcement, key, log: Log) -> Report:
    """How well a repeated pair is read back by kappa; its strengths shuffled, made constant, or given by the key alone."""
    with one_thread():
        found = checks.reinforcement(
            seed_of(key), KAPPAS, draws=config.draws, pairs=config.pairs, width=config.width, times=config.times
        )
    arms = {
        "system" if kind == "resonance" else kind: {
            "smallest_rise": np.diff(found[kind]).min(),
            "selectivity": found[f"{kind}_selectivity"],
            **{f"cosine_{kappa:g}": value for kappa, value in zip(KAPPAS, found[kind], strict=True)},
        }
        for kind in ("resonance", "shuffled", "constant", "familiar")
    }
    return Report(arms=arms, arrays={name: found[name] for name in ("resonance", "shuffled", "constant", "familiar")})


@reinforcement.figure
def repeated(runs: Runs):
    """Cosine of what is read back for the repeated pair, by kappa."""
    data = runs["system"].arrays
    fig, axis = figure()
    for kind, colour in zip(("resonance", "familiar", "constant", "shuffled"), (SYSTEM_COLOUR, *COLOURS[1:3], CONTROL_COLOUR),
                            strict=True):  # fmt: skip
        axis.plot(KAPPAS, data[kind], "o-", ms=3, color=colour, label=kind)
    label(axis, "κ", "cosine with what was stored", "a pair written four times among 31")
    return fig


@dataclass(frozen=True)
class Recall:
    """Values of keys that lie beyond the window of attention."""

    kappa: float = 0.5
    window: int = 8
    width: int = 32
    distance: int = 24  # fillers between the pairs and the question, in training
    distances: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    fractions: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3)
    steps: int = 100
    batch: int = 32
    rate: float = 5e-3
    rows: int = 512


@paper.experiment(
    presets={
        "smoke": Recall(steps=2, batch=4, rows=16, distances=(8, 24)), "quick": Recall(),
        "paper": Recall(steps=1500, batch=64, distances=(8, 16, 24, 32, 64, 128, 256, 512), rows=4096),
    },
    claims=[
        Claim("S6", "the memory recalls what lies beyond the window", kind="paper", where="abstract (memory retention)",
              ablation=("kappa-0", "shuffled", "no-memory"), null=("linear-attention", "delta-rule", "longer-window", "lstm"),
              grows="steps",
              checks=[at_least("accuracy", 0.9, within=(0, 1), chance=1 / 16), at_most("accuracy", 0.15, of="no-memory")],
              answers_to={"no-memory": "it has as many parameters, in its MLPs; without the pairs there is but chance"},
              reason="fast weights recall as much without resonance, by linear attention or the delta rule too: it is the "
              "memory that carries the pairs, and resonance adds nothing to it"),
        Claim("S8", "and does so when a fifth of the context is noise", kind="paper", where="abstract (robustness to noise)",
              ablation=("kappa-0", "shuffled"), null=("linear-attention", "delta-rule", "longer-window", "lstm"), grows="steps",
              checks=[at_least("noisy_accuracy", 0.3, minus="no-memory")],
              reason="what is recalled under noise is what the noise has spared, and memories without resonance recall as much "
              "of it"),
    ],
    cost=20.0,
)  # fmt: skip
def recall(config: Recall, key, log: Log) -> Report:
    """Recall by distance and by noise of models of equal parameters: the memory, without resonance, and rivals."""
    seed, task = seed_of(key), RecallTask()
    sizes = Sizes(words=task.words, width=config.width, blocks=2, heads=2, positions=config.distances[-1] + 16)
    probe = task.draw(np.random.default_rng([seed, 1]), config.rows, config.distance)
    arms, curves = {}, {}
    for k, arm in enumerate(("system", *RIVALS)):
        with one_thread():
            model = _rival(arm, sizes, config.window, seed, config.kappa)
            rng = np.random.default_rng([seed, 3])
            batches = (task.draw(rng, config.batch, config.distance) for _ in range(config.steps))
            losses = train(model, batches, rate=config.rate, report=_progress(log, k / 8, 1 / 8 / config.steps))
            curves[arm] = retention_curve(model, config.distances, task=task, rows=config.rows // 2, seed=seed)
            clean, right = noise_readings(
                model, probe[0], config.fractions, words=task.words, seed=seed, answers=probe[1], last=2
            )
            arms[arm] = {
                "accuracy": right[0], "noisy_accuracy": np.interp(0.2, config.fractions, right),
                "far_accuracy": curves[arm][-1], "final_loss": np.mean(losses[-10:]),
                "noise_ratio": np.interp(0.2, config.fractions, clean) / clean[0],
                "parameters": parameters(model), "state_numbers": state_numbers(model, _window(arm, config)),
            }  # fmt: skip
            curves |= {f"{arm}_noise": clean, f"{arm}_loss": np.array(losses)}
    return Report(arms=arms, arrays=curves | {"distances": config.distances, "fractions": config.fractions})


def _rival(arm: str, sizes: Sizes, window: int, seed: int, kappa: float) -> Any:
    """The model of an arm."""
    return memory_model("resonance" if arm == "system" else arm, sizes, window, seed=seed, kappa=kappa)


def _window(arm: str, config: Recall | Topics) -> int:
    """The window of attention of an arm."""
    return longer_window(config.window, config.width, 2) if arm == "longer-window" else config.window


def _progress(log: Log, start: float, step: float):
    return lambda n, loss: log.progress(min(start + n * step, 1.0), loss=loss)


@recall.figure
def retention(runs: Runs):
    """Recall by distance, and learning of it."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for arm in ("no-memory", *[name for name in RIVALS if name != "no-memory"], "system"):
        left.plot(data["distances"], data[arm], "o-", ms=3, color=COLOUR[arm], label=TITLE[arm])
        right.plot(data[f"{arm}_loss"], color=COLOUR[arm], lw=1)
    left.axhline(1 / 16, color="k", lw=0.6, ls=":")
    label(left, "fillers between pairs and question (dotted: chance)", "values recalled (share)")
    label(right, "training step", "loss of the answer (nats)")
    return fig


@recall.figure
def noise(runs: Runs):
    """Perplexity of the answer by the share of the context that is replaced."""
    data = runs["system"].arrays
    fig, axis = figure()
    for arm in ("no-memory", *[name for name in RIVALS if name != "no-memory"], "system"):
        axis.semilogy(data["fractions"], data[f"{arm}_noise"], "o-", ms=3, color=COLOUR[arm], label=TITLE[arm])
    label(axis, "share of the context replaced", "perplexity of the answer")
    return fig


@dataclass(frozen=True)
class Topics:
    """Documents of one topic, whose words lie further apart than the window sees."""

    kappa: float = 0.5
    window: int = 8
    width: int = 32
    blocks: int = 1
    gap: int = 16  # words of no topic between two of the topic
    runs: int = 3  # words of the topic in a document
    steps: int = 80
    batch: int = 32
    rate: float = 1e-2
    rows: int = 256


@paper.experiment(
    presets={"smoke": Topics(steps=2, batch=4, rows=16), "quick": Topics(),
             "paper": Topics(blocks=2, steps=1000, runs=8, rows=4096)},
    claims=[
        Claim("S11", "generated text keeps to its topic", kind="paper", where="abstract (contextual coherence)",
              ablation=("kappa-0", "shuffled"), null=("linear-attention", "longer-window"), grows="steps",
              checks=[at_least("coherence", 0.3, minus="no-memory")],
              reason="a memory keeps to the topic that the window has lost, with resonance or without"),
    ],
    cost=14.0,
)  # fmt: skip
def topics(config: Topics, key, log: Log) -> Report:
    """Words said where one of the topic is due: the share that are of it; and how alike neighbouring segments are."""
    seed, grammar = seed_of(key), TopicGrammar(gap=config.gap)
    sizes = Sizes(words=grammar.words, width=config.width, blocks=config.blocks, heads=2, positions=512)
    texts, wanted = grammar.draw(np.random.default_rng([seed, 1]), config.rows, config.runs)
    names = ("system", "kappa-0", "shuffled", "no-memory", "linear-attention", "longer-window")
    arms, losses = {}, {}
    for k, arm in enumerate(names):
        with one_thread():
            model = _rival(arm, sizes, config.window, seed, config.kappa)
            rng = np.random.default_rng([seed, 2])
            drawn = (grammar.draw(rng, config.batch, config.runs)[0] for _ in range(config.steps))
            batches = ((ids, grammar.answers(ids)) for ids in drawn)
            losses[arm] = train(model, batches, rate=config.rate, report=_progress(log, k / 6, 1 / 6 / config.steps))
            arms[arm] = {
                "coherence": coherence(words_in_slots(model, grammar, texts, seed=seed), wanted, grammar),
                "segment_similarity": segment_similarity(model, texts, grammar.gap + 2),
                "parameters": parameters(model), "state_numbers": state_numbers(model, _window(arm, config)),
            }  # fmt: skip
    return Report(arms=arms, arrays=losses)


@topics.figure
def keeping_to_the_topic(runs: Runs):
    """Words of the document's topic among generated words of any, and learning."""
    report = runs["system"]
    fig, (left, right) = figure(2, width=5.0)
    names = list(report.arms)
    left.barh(
        [TITLE[arm] for arm in names], [report.arms[arm]["coherence"] for arm in names], color=[COLOUR[arm] for arm in names]
    )
    left.axvline(1 / TopicGrammar().topics, color="k", lw=0.6, ls=":")
    label(left, "generated words of a topic that are of the document's (dotted: chance)", "model")
    for arm in names:
        right.plot(report.arrays[arm], color=COLOUR[arm], lw=1, label=TITLE[arm])
    label(right, "training step", "loss of words of the topic (nats)")
    return fig


@dataclass(frozen=True)
class Prose:
    """Real text: docstrings of installed packages for a new model, or WikiText in a folder for one of the Hub."""

    model: str = ""
    data: str | None = None  # folder with wiki.train.raw and wiki.test.raw
    kappa: float = 0.5
    words: int = 1000
    characters: int = 200_000
    width: int = 48
    length: int = 96
    window: int = 24
    steps: int = 120
    batch: int = 8
    rate: float = 3e-3


@paper.experiment(
    presets={
        "smoke": Prose(characters=20_000, words=300, width=16, length=64, window=8, steps=2, batch=2), "quick": Prose(),
        "paper": Prose("EleutherAI/pythia-160m", characters=50_000_000, length=1024, window=256, steps=2000, rate=1e-3),
    },
    claims=[
        Claim("S9", "perplexity falls, and by resonance", kind="paper", where="abstract (lower perplexity)",
              ablation=("kappa-0", "shuffled", "no-memory"), null=("linear-attention", "delta-rule", "longer-window", "lstm"),
              grows="steps", seeds=8,
              checks=[at_most("log_perplexity", -0.005, minus="no-memory"),
                      at_most("log_perplexity", -0.005, minus="kappa-0")],
              reason="at this size as many parameters in the MLPs read prose as well or better, and memories with resonance "
              "and without differ by less than trainings do"),
    ],
    data="data",
    cost=30.0,
)  # fmt: skip
def perplexity(config: Prose, key, log: Log) -> Report:
    """Perplexity of held-out prose, by position in the text, of models of equal parameters with a window of attention."""
    seed = seed_of(key)
    base, train_rows, test_rows, words = _prose(config)
    names = ("system", *(arm for arm in RIVALS if base is None or arm != "lstm"))
    arms, arrays = {}, {}
    for k, arm in enumerate(names):
        with one_thread() if base is None else nullcontext():
            model = _reader(arm, base, words, config, seed)
            window = config.window
            if arm == "longer-window":
                window = longer_window(window, *((config.width, 4) if base is None else widths(base)))
            learns = base is None or bool(memories(model))
            rng = np.random.default_rng([seed, 3])
            batches = ((train_rows[rng.integers(0, len(train_rows), config.batch)], None) for _ in range(config.steps * learns))
            with attending_within(model, window) if arm != "lstm" else nullcontext():
                arrays[f"{arm}_loss"] = np.array(
                    train(model, batches, rate=config.rate, report=_progress(log, k / 8, 1 / 8 / config.steps))
                )
                losses = arrays[arm] = loss_by_position(model, test_rows)
                if arm == "system":
                    arrays |= resonance_of(model, test_rows[:1])
            arms[arm] = {
                "log_perplexity": losses.mean(), "perplexity": np.exp(losses.mean()), "late": losses[len(losses) // 2 :].mean(),
                "parameters": parameters(model), "state_numbers": state_numbers(model, window),
            }  # fmt: skip
            if base is not None and memories(base):
                remove_synaptic_resonance(base)
    return Report(arms=arms, arrays=arrays)


def _reader(arm: str, base: Any, words: int, config: Prose, seed: int) -> Any:
    """The model of an arm: a new one, or the one that was loaded, whose own weights stay, with that arm's memory."""
    if base is None:
        sizes = Sizes(words=words, width=config.width, blocks=2, positions=config.length)
        return _rival(arm, sizes, config.length, seed, config.kappa)
    return give_memory(base, "resonance" if arm == "system" else arm, seed=seed, kappa=config.kappa)


def _prose(config: Prose) -> tuple[Any, Any, Any, int]:
    """(the model that was loaded, or None, rows to learn from, rows to be tested on, words)."""
    if config.model:
        if config.data is None:
            raise MissingDataError("WikiText-103 is needed: pass --data FOLDER with its wiki.train.raw and wiki.test.raw.")
        texts = [wikitext(config.data, part, characters=config.characters) for part in ("train", "test")]
        base, tokenizer = load(config.model)
    else:
        found = docstrings(characters=config.characters)
        texts = [found[: len(found) * 8 // 10], found[len(found) * 9 // 10 :]]
        base, tokenizer = None, learn_tokenizer(texts[0], config.words)
    learned, tested = (rows_of_tokens(tokenizer, part, config.length) for part in texts)
    return base, learned, tested, len(tokenizer)


@perplexity.figure
def by_position(runs: Runs):
    """Loss by position in the text, above that of no memory, and learning."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2, width=5.0)
    for arm in (*RIVALS, "system"):
        if arm in data:
            right.plot(data[f"{arm}_loss"], color=COLOUR[arm], lw=0.8, label=TITLE[arm])
            parts = [part.mean() for part in np.array_split(data[arm] - data["no-memory"], 8)]
            if arm != "lstm":  # a nat above the others
                left.plot((np.arange(8) + 0.5) * len(data[arm]) / 8, parts, "o-", ms=3, color=COLOUR[arm])
    label(left, "position in the text (tokens)", "loss above that of no memory (nats)", "held-out prose")
    label(right, "training step", "loss (nats a token)")
    return fig


@perplexity.figure
def over_a_text(runs: Runs):
    """Relevance and resonance over a held-out text, and the memory after it; the first head of the first block."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2, width=5.0)
    left.plot(data["relevance"][0, 0], color=CONTROL_COLOUR, lw=0.9, label="relevance r")
    left.plot(data["rho"][0, 0], color=SYSTEM_COLOUR, lw=0.9, label="resonance ρ")
    label(left, "token", "share")
    most = np.abs(data["S"][0, 0]).max()
    image = right.imshow(data["S"][0, 0], cmap="RdBu_r", vmin=-most, vmax=most)
    fig.colorbar(image, label="synaptic weight S")
    label(right, "value", "key", "memory after the text", legend=False)
    return fig


@dataclass(frozen=True)
class Overhead:
    """Whole passes of a model of two blocks, one text at a time, on one thread."""

    width: int = 512
    heads: int = 8
    lengths: tuple[int, ...] = (256, 1024)
    repeats: int = 3


FORMS: dict[str, Any] = {
    "base": None,
    "system": {},
    "approximate": {"chunk": 16, "refine": 0},
    "loop": {"form": "loop"},
}


@paper.experiment(
    presets={"smoke": Overhead(width=64, heads=2, lengths=(32, 64), repeats=1), "quick": Overhead(),
             "paper": Overhead(lengths=(128, 256, 512, 1024, 2048, 4096), repeats=5)},
    claims=[
        Claim("S10", "in chunks the memory costs at most 0.4 of a pass at 1024 tokens", kind="check", ablation="loop",
              reference="the model without a memory, in turn with it; control: the loop over tokens",
              checks=[at_most("time_ratio", {"quick": 1.4})]),
    ],
    cost=8.0,
)  # fmt: skip
def overhead(config: Overhead, key, log: Log) -> Report:
    """Time of a pass with the memory over that without, by length: in chunks, exact or not, without resonance, step by step."""
    ratios: dict[str, list[float]] = {name: [] for name in FORMS}
    seconds = []
    with one_thread():
        for length in config.lengths:
            times = compare(
                checks.passes(FORMS, length, width=config.width, heads=config.heads), repeats=config.repeats, log=log
            )  # fmt: skip
            seconds.append(times["base"].minimum)
            for name, found in times.items():
                shares = np.array(found.seconds) / np.array(times["base"].seconds)
                ratios[name].append(float(np.median(shares)))
            log.progress((len(seconds)) / len(config.lengths))
    at = config.lengths.index(1024) if 1024 in config.lengths else -1
    state = 4 * 2 * (config.width**2 // config.heads + config.width) / 2**20
    arms = {
        name: {"time_ratio": found[at], "ms_a_token": 1000 * found[at] * seconds[at] / config.lengths[at],
               "state_mb": state * (name != "base")}
        for name, found in ratios.items()
    }  # fmt: skip
    return Report(arms=arms, arrays={name: np.array(found) for name, found in ratios.items()} | {"lengths": config.lengths})


@overhead.figure
def by_length(runs: Runs):
    """Time of a pass over that of the model without a memory, by the length of the text."""
    data = runs["system"].arrays
    fig, axis = figure(width=5.0)
    titles = {"system": "chunks of 32, exact", "approximate": "chunks of 16, ρ from their start",
              "loop": "step by step"}  # fmt: skip
    for (name, title), colour in zip(titles.items(), (SYSTEM_COLOUR, COLOURS[1], CONTROL_COLOUR), strict=True):
        axis.plot(data["lengths"], data[name], "o-", ms=3, color=colour, label=title)
    axis.axhline(1.0, color="k", lw=0.6, ls=":")
    axis.set_xscale("log", base=2)
    label(axis, "length (tokens; dotted: no memory)", "time of a pass (relative)")
    return fig
