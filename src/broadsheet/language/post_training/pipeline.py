"""Post-training in stages, each a Hugging Face model in and out, kept in a folder of its own (arXiv 2411.15124).

    folder/1-sft/     config.json, model.safetensors, the tokenizer, and stage.json, which says what it was made from
    folder/2-dpo/
    folder/3-rlvr/
    folder/.3-rlvr-…/ the checkpoints of a stage that is not whole

A stage's identity is its settings, its data and the identity of the stage before. One that is there with the same identity is
taken as it is; another is made anew, and so are those after it. A stage appears in its place by being renamed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from broadsheet.cache import digest, locked, write_atomic
from broadsheet.errors import InputError, MissingExtraError
from broadsheet.files import read_json
from broadsheet.language.models import load_on, model_identity, positions
from broadsheet.language.post_training import rows as tables
from broadsheet.language.post_training.evaluation import Scores, Suite, evaluate, read_suite
from broadsheet.language.post_training.rewards import Reward, verified
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings, TrainingSettings
from broadsheet.language.post_training.stages import RECORD, Stage, align, named, read_record, settle, weights_identity, written
from broadsheet.language.post_training.trainers import Run, chat_template, fine_tune, prefer, quiet, reinforce

try:
    from datasets import Dataset
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

LIBRARIES = ("broadsheet", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
Build = Callable[[Any, Any, Dataset], Sequence[dict[str, Any]]]
"""From a model, its tokenizer and the rows to pairs with `prompt`, `chosen` and `rejected`."""
Train = Callable[[Any, Run], Any]
"""From a model and how it runs to the model, trained."""
Report = Callable[[str, float, dict[str, float]], None]
"""Called with a stage's name, the share of it that is done, and the latest numbers."""


class PostTrain:
    """A model on its way through post-training.

    ```python
    trained = PostTrain("my-model", folder="out").sft(chats, SFTSettings(steps=500)).dpo(pairs).rlvr(prompts, "gsm8k")
    trained.evaluate("suite.jsonl")
    ```

    **Arguments:** `model`: a folder, a name on the Hub, or a model, which is then trained in place; `tokenizer`: where `model`
    is one itself; `folder`: for the stages, None to keep nothing; `device`: as PyTorch names it; `trackers`: names that
    Transformers knows (`trackio`, `tensorboard`, `wandb`); `project`: what runs are filed under there.

    **Raises:** `MissingDataError` and others of `models.load`, when the model is needed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        folder: str | Path | None = None,
        *,
        device: str = "cpu",
        trackers: Sequence[str] = (),
        project: str = "posttrain",
        report: Report | None = None,
    ) -> None:
        by_name = isinstance(model, str | Path)
        if not by_name and tokenizer is None:
            raise InputError("PostTrain needs the tokenizer of a model that is given as it is.")
        self.folder = Path(folder) if folder is not None else None
        self.device, self.trackers, self.project, self.report = device, tuple(trackers), project, report
        self.stages: list[Stage] = []
        self.scores: list[Scores] = []
        self.identity = model_identity(str(model)) if by_name else weights_identity(model, tokenizer)
        self._place: str | None = str(model) if by_name else None
        self._model, self._words = (None if by_name else model), tokenizer

    @property
    def model(self) -> Any:
        """The model as the last stage left it."""
        self._load()
        return self._model

    @property
    def tokenizer(self) -> Any:
        self._load()
        return self._words

    def sft(self, data: Any, settings: SFTSettings | None = None, *, name: str = "sft") -> PostTrain:
        """Supervised fine-tuning on `messages`, or `prompt` and `completion`: see `trainers.fine_tune`."""
        settings = settings or SFTSettings()
        rows = tables.for_fine_tuning(tables.read_rows(data))

        def train(model: Any, run: Run) -> Any:
            self._check(model, rows, settings)
            return fine_tune(model, self._words, rows, settings, run)

        return self._stage("sft", name, settings, rows, {}, train)

    def dpo(
        self, pairs: Any, settings: DPOSettings | None = None, *, build: Build | None = None, name: str = "dpo"
    ) -> PostTrain:
        """Preference optimisation on `prompt`, `chosen` and `rejected`: see `trainers.prefer`.

        **Arguments:** `build`: makes the pairs from the model that enters the stage and the rows given (`OnPolicy`); they are
        kept in the stage's folder as pairs.jsonl.
        """
        settings = settings or DPOSettings()
        given = tables.read_rows(pairs)
        rows = given if build else tables.for_preferences(given)

        def train(model: Any, run: Run) -> Any:
            made = self._built(build, model, given, run.folder) if build else rows
            self._check(model, made, settings)
            return prefer(model, self._words, made, settings, run)

        return self._stage("dpo", name, settings, rows, {"build": named(build)} if build else {}, train)

    def rlvr(
        self,
        prompts: Any,
        verifier: str | Callable[[str, Any], float] | None = None,
        settings: RLSettings | None = None,
        *,
        worth: float = 10.0,
        reward: Reward | None = None,
        name: str = "rlvr",
    ) -> PostTrain:
        """Reinforcement learning with verifiable rewards on `prompt` and `label`: see `trainers.reinforce` and `ppo`. The model
        that enters the stage is the one that the KL divergence is measured from.

        **Arguments:** `verifier`: its name or itself, None for the one that each row's column `verifier` names; `worth`: the
        reward of an answer that is right; `reward`: a reward function in place of a verifier.
        """
        settings = settings or RLSettings()
        rows = tables.read_rows(prompts)
        rows = tables.for_reinforcement(rows) if reward else tables.for_verification(rows, named=verifier is not None)
        known = {"reward": named(reward)} if reward else {"verifier": named(verifier), "worth": worth}
        reward = reward or verified(verifier, worth)

        def train(model: Any, run: Run) -> Any:
            if settings.algorithm == "ppo":
                from broadsheet.language.post_training.ppo import reinforce_by_ppo

                return reinforce_by_ppo(model, self._words, rows, reward, settings, run)
            return reinforce(model, self._words, rows, reward, settings, run)

        return self._stage("rlvr", name, settings, rows, known, train)

    def evaluate(self, suite: Suite, **options: Any) -> Scores:
        """Scores of the model as it is now on a suite of tasks: see `evaluation.evaluate`, whose options these are. They are
        kept in the folder and found there again."""
        tasks = read_suite(suite)
        name = self.stages[-1].name if self.stages else "start"
        kept = None
        if self.folder is not None:
            of = {"model": self.identity, "tasks": [asdict(task) for task in tasks], "options": options}
            kept = self.folder / "scores" / f"{len(self.stages)}-{name}-{digest(of)[:12]}.json"
        if kept is not None and kept.is_file():
            found: Scores = read_json(kept)
        else:
            tell = (lambda share: self.report(f"{name}: evaluation", share, {})) if self.report else None
            found = {"stage": name, **evaluate(self.model, self._words, tasks, report=tell, **options)}
            if kept is not None:
                write_atomic(kept, json.dumps(found, indent=1) + "\n")
        self.scores.append(found)
        return found

    def _load(self) -> None:
        if self._model is None:
            if self._place is None:
                raise InputError("The model was given as it is, and its training broke off: give it anew.")
            self._model, words = load_on(self.device, self._place)
            self._words = self._words or words
            check_vocabulary(self._model, self._words)
            chat_template(self._words)

    def _stage(
        self,
        kind: str,
        name: str,
        settings: TrainingSettings,
        rows: Dataset,
        known: dict[str, Any],
        train: Train,
    ) -> PostTrain:
        data = {"identity": tables.identity(rows), "rows": len(rows), "columns": rows.column_names}
        record = {"stage": name, "kind": kind, "settings": asdict(settings), "data": data, "start": self.identity, **known}
        record["identity"] = digest(record)
        title = f"{len(self.stages) + 1}-{name}"
        if self.folder is None:
            return self._next(Stage(name, None, self._train(title, Run(), record, train), found=False))
        place = self.folder / title
        scratch = self.folder / f".{title}-{record['identity'][:16]}"
        with locked(self.folder / ".lock"), written(title):
            settle(scratch, place)
            there = read_record(place)
            found = there is not None and there["identity"] == record["identity"]
            if found:
                shutil.rmtree(scratch, ignore_errors=True)
            else:
                scratch.mkdir(parents=True, exist_ok=True)
                there = self._train(title, Run(scratch / "checkpoints"), record, train)
                self._save(scratch, there)
                settle(scratch, place)
                for left in self.folder.glob(f".{len(self.stages) + 1}-*-{'?' * 16}"):
                    shutil.rmtree(left, ignore_errors=True)
        assert there is not None
        return self._next(Stage(name, place, there, found))

    def _next(self, stage: Stage) -> PostTrain:
        self.stages.append(stage)
        self.identity = stage.record["identity"]
        if stage.folder is not None:  # trainers leave their marks on a model; this begins as after an interruption
            self._place, self._model, self._words = str(stage.folder), None, None
        else:
            self._place = None
        return self

    def _train(self, title: str, run: Run, record: dict[str, Any], train: Train) -> dict[str, Any]:
        """Trains the model; the whole record."""
        self._load()
        run.trackers, run.project, run.name = self.trackers, self.project, title
        if (tell := self.report) is not None:
            run.watch = lambda share, latest: tell(title, share, latest)
        align(self._model)
        start = time.perf_counter()
        model, self._model = self._model, None  # half-trained where the training ends in an error
        self._model = train(model, run)
        seconds = time.perf_counter() - start
        versions = {name: metadata.version(name) for name in LIBRARIES}
        return record | {"versions": versions, "seconds": seconds, "log": run.records}

    def _save(self, scratch: Path, record: dict[str, Any]) -> None:
        """The model whole in `scratch/whole`, its record last."""
        part = scratch / "part"
        shutil.rmtree(part, ignore_errors=True)
        with quiet():
            self.model.save_pretrained(part)
        self._words.save_pretrained(part)
        if (pairs := scratch / "checkpoints" / "pairs.jsonl").is_file():
            shutil.copy(pairs, part / pairs.name)
        write_atomic(part / RECORD, json.dumps(record, indent=1) + "\n")
        part.rename(scratch / "whole")

    def _built(self, build: Build, model: Any, given: Dataset, folder: Path | None) -> Dataset:
        """Pairs that a builder makes, once."""
        kept = folder / "pairs.jsonl" if folder else None
        if kept is not None and kept.is_file():
            pairs = [json.loads(line) for line in kept.read_text().splitlines()]
        else:
            pairs = list(build(model, self._words, given))
            if kept is not None:
                write_atomic(kept, "".join(json.dumps(pair) + "\n" for pair in pairs))
        return tables.for_preferences(tables.read_rows(pairs))

    def _check(self, model: Any, rows: Dataset, settings: TrainingSettings) -> None:
        """**Raises:** `InputError` for a prompt that fills the context, so that nothing is left of its answer."""
        limit = min(settings.max_tokens, positions(model) or settings.max_tokens)
        if long := tables.first_as_long(rows, self._words, limit):
            raise InputError(
                f"Prompt {long[0] + 1} has {long[1]} tokens; nothing is left for its answer among the {limit} that are read "
                f"(max_tokens, or the model's context): shorten it or leave it out."
            )


def check_vocabulary(model: Any, words: Any) -> None:
    """**Raises:** `InputError` for a tokenizer with tokens that the model has no embedding for."""
    held = model.get_input_embeddings().weight.shape[0]
    if (largest := max(words.get_vocab().values())) >= held:
        raise InputError(f"The tokenizer has the token {largest}; the model's embedding has {held}: it is another model's.")
