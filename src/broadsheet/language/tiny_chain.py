"""The tiny chain: pretraining, SFT, DPO and reinforcement learning with a verifiable reward, of one tiny model.

A Llama of 219 456 parameters learns the texts of `tiny_world`, in a minute and a half on one core. Every experiment on language
models runs on this chain at its quick size, and on models of the Hub at the paper's. The stages are plain loops, because a
reader of such experiments needs to see them whole; TRL's trainers do the same at scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from broadsheet.language.chain import Chain, Link, Report
from broadsheet.language.stages.tiny_dpo import tiny_dpo
from broadsheet.language.stages.tiny_even_words import tiny_even_words
from broadsheet.language.stages.tiny_grpo import tiny_grpo
from broadsheet.language.stages.tiny_pretraining import tiny_pretraining
from broadsheet.language.stages.tiny_sft import tiny_sft


@dataclass(frozen=True)
class Recipe:
    """Steps of each stage. Pretraining goes on, up to twice as long, until true and false are told apart."""

    pretrain: int = 1500
    sft: int = 200
    dpo: int = 80
    rl: int = 60


FULL = Recipe()


def links(recipe: Recipe = FULL) -> list[Link]:
    """`base`, `sft`, `dpo` and `rl`, each from the one before; what a full recipe must have taught is checked."""
    full = recipe == FULL
    return [
        Link("base", tiny_pretraining, {"steps": recipe.pretrain, "until_learned": full}, share=16),
        Link("sft", tiny_sft, {"steps": recipe.sft, "checked": full}),
        Link("dpo", tiny_dpo, {"steps": recipe.dpo, "checked": full}),
        Link("rl", tiny_grpo, {"steps": recipe.rl, "checked": full}),
    ]


def tiny_chain(seed: int, *, recipe: Recipe = FULL, skewed: bool = True, report: Report | None = None) -> Chain:
    """The chain of a seed, built once (a minute and a half) and kept. The seed is that of the weights and of the documents.

    `skewed=False` is a control: a fifth of the pretraining on words drawn evenly and independently, without later stages.

    **Raises:** `JobError` where a stage of the full recipe does not learn what it should.
    """
    even = Link("base", tiny_even_words, {"steps": max(1, recipe.pretrain // 5), "cosine": recipe.pretrain})
    return Chain(links(recipe) if skewed else [even], seed=seed, attention="eager").build(report)
