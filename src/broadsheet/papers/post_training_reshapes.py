"""How post-training reshapes language models, arXiv 2504.02904.

A base model and what was post-trained from it are compared from inside, on four axes: where knowledge is stored and whether it
carries over (activation patching), the direction of truth, the direction of refusal, and confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from broadsheet.lab import Log, Paper, Report, Runs
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language import tiny_world as tiny
from broadsheet.language.models import read_log_probabilities
from broadsheet.language.tiny_chain import Recipe, tiny_chain
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
