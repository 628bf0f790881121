"""Recipes followed: all that can be wrong is looked at before anything is trained, then stage after stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from broadsheet.errors import BroadsheetError, InputError, MissingDataError, MissingExtraError
from broadsheet.language.post_training.estimates import Estimate, estimate
from broadsheet.language.post_training.evaluation import Task, read_suite
from broadsheet.language.post_training.on_policy import OnPolicy
from broadsheet.language.post_training.pipeline import PostTrain, Report
from broadsheet.language.post_training.recipes import Recipe, StageRecipe
from broadsheet.language.post_training.rows import for_fine_tuning, for_preferences, for_verification, read_rows
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings
from broadsheet.language.post_training.trainers import chat_template

try:
    from datasets import Dataset
    from transformers import AutoConfig, AutoTokenizer
except ImportError:
    raise MissingExtraError("Training language models", "language") from None


@dataclass(frozen=True)
class Plan:
    """A recipe with what it reads: the rows of each stage, in the columns that its trainer takes, and the tasks."""

    recipe: Recipe
    stages: tuple[StageRecipe, ...]
    rows: tuple[Dataset, ...]
    tasks: tuple[Task, ...] = ()


def plan(recipe: Recipe, upto: str | None = None) -> Plan:
    """Reads what a recipe names.

    **Arguments:** `upto`: the name of the last stage that is wanted.

    **Raises:** `InputError` for a stage that there is not, and whatever is wrong with the data, with the stage it is of.
    """
    if Path(recipe.model).is_absolute() and not Path(recipe.model).is_dir():
        raise InputError(f"{recipe.model}: there is no such folder.")
    names = [stage.name for stage in recipe.stages]
    if upto is not None and upto not in names:
        raise InputError(f"The recipe has no stage {upto!r}; it has {', '.join(names)}.")
    stages = recipe.stages[: names.index(upto) + 1] if upto is not None else recipe.stages
    rows = tuple(_rows(stage) for stage in stages)
    tasks = tuple(read_suite(recipe.evaluation["suite"])) if recipe.evaluation else ()
    return Plan(recipe, stages, rows, tasks)


def _rows(stage: StageRecipe) -> Dataset:
    try:
        rows = read_rows(stage.data, stage.split, stage.columns, chat=stage.chat)
        if stage.kind == "sft":
            return for_fine_tuning(rows)
        if stage.kind == "dpo" and "verifier" not in stage.options:
            return for_preferences(rows)
        return for_verification(rows, named="verifier" in stage.options)
    except BroadsheetError as error:
        raise type(error)(f"[stages.{stage.name}]: {error}") from None


def estimates(made: Plan, device: str = "cpu") -> dict[str, Estimate]:
    """What each stage takes, by name. Of pairs that are yet to be made the prompts are counted, with the longest answers.

    **Raises:** `MissingDataError` where the model's configuration or tokenizer is not there.
    """
    name = made.recipe.model
    try:
        config, words = AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{name} cannot be read: {str(error).strip().splitlines()[0]}") from None
    chat_template(words)
    found = {}
    for stage, rows in zip(made.stages, made.rows, strict=True):
        build = _builder(stage)
        pairs_of = build.answer_tokens if build else None
        found[stage.name] = estimate(config, words, rows, stage.settings, device, pairs_of=pairs_of)
    return found


def follow(made: Plan, *, device: str = "cpu", trackers: Sequence[str] = (), report: Report | None = None) -> PostTrain:
    """Trains stage after stage, with scores after each and before the first, where the recipe has an evaluation; what is in the
    recipe's folder as it should be is taken from there."""
    recipe = made.recipe
    trained = PostTrain(
        recipe.model, folder=recipe.folder, device=device, trackers=trackers, project=recipe.folder.name, report=report
    )
    options = {key: value for key, value in recipe.evaluation.items() if key != "suite"}
    if made.tasks:
        trained.evaluate(made.tasks, **options)
    for stage, rows in zip(made.stages, made.rows, strict=True):
        if stage.kind == "sft":
            trained.sft(rows, cast(SFTSettings, stage.settings), name=stage.name)
        elif stage.kind == "dpo":
            trained.dpo(rows, cast(DPOSettings, stage.settings), build=_builder(stage), name=stage.name)
        else:
            trained.rlvr(
                rows, stage.options.get("verifier"), cast(RLSettings, stage.settings), name=stage.name,
                worth=stage.options.get("worth", 10.0),
            )  # fmt: skip
        if made.tasks:
            trained.evaluate(made.tasks, **options)
    return trained


def _builder(stage: StageRecipe) -> OnPolicy | None:
    if stage.kind != "dpo" or "verifier" not in stage.options:
        return None
    return OnPolicy(**stage.options, batch=stage.settings.at_once, seed=stage.settings.seed)


def summary(made: Plan, trained: PostTrain) -> dict[str, Any]:
    """What came of a recipe, as plain values."""
    return {
        "model": made.recipe.model,
        "trained": str(trained.stages[-1].folder),
        "stages": [{"found": stage.found, "folder": str(stage.folder), **stage.record} for stage in trained.stages],
        "scores": trained.scores,
    }


def expected(made: Plan, found: dict[str, Estimate]) -> list[dict[str, Any]]:
    """What a recipe will take, as plain values."""
    return [{"stage": stage.name, "kind": stage.kind, "data": stage.data, **asdict(found[stage.name])} for stage in made.stages]
