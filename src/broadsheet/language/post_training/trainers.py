"""Fine-tuning, preference optimisation and reinforcement learning of a Hugging Face model, each by TRL's own trainer.

A training takes a model and gives it back trained, weights changed in place. With a folder, it leaves checkpoints there and
goes on from the last one when it begins again after an interruption.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import InputError, JobError, MissingExtraError
from broadsheet.language.characters import TULU_TEMPLATE
from broadsheet.language.models import positions
from broadsheet.language.post_training.rewards import Reward, reward_function
from broadsheet.language.post_training.rows import first_as_long, quiet_datasets
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings, TrainingSettings

try:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback
    from transformers.utils import logging as transformers_logging
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

Watch = Callable[[float, dict[str, float]], None]
Records = list[dict[str, float]]


@dataclass
class Run:
    """How a training runs, whatever it trains.

    **Arguments:** `folder`: for checkpoints, None for none; `trackers`: names that Transformers knows (`trackio`,
    `tensorboard`, `wandb`), none by default; `watch`: called with the share that is done and the latest record; `callbacks`: of
    Transformers; `name`: of the run, for trackers; `project`: that it belongs to there.
    """

    folder: Path | None = None
    trackers: Sequence[str] = ()
    watch: Watch | None = None
    callbacks: Sequence[Any] = ()
    name: str = "training"
    project: str = "broadsheet"
    records: Records = field(default_factory=list)
    """What was logged, after the training."""


def fine_tune(model: Any, words: Any, data: Any, settings: SFTSettings, run: Run | None = None) -> Any:
    """Supervised fine-tuning: the loss of all that the assistant says in a batch, over the number of its tokens.

    **Arguments:** `data`: a `datasets.Dataset` or a list with `messages` (role, content), or `prompt` and `completion`; texts
    are cut at `max_tokens`.

    **Raises:** `InputError` for data without these columns and a chat template that trainers can't mark.
    """
    from trl import SFTConfig, SFTTrainer

    run = run or Run()
    rows = dataset(data)
    chats = "messages" in rows.column_names
    if not chats:
        check_columns(rows, ("prompt", "completion"), "Fine-tuning", "messages, or prompt and completion")
    chat_template(words)
    own = {"max_length": context(model, settings.max_tokens), "assistant_only_loss": chats, "packing": False}
    with training_arguments(run, settings, SFTConfig, model, **own) as config, plain_errors("Fine-tuning"):
        return _train(SFTTrainer, config, run, settings, model, words, rows)


def prefer(model: Any, words: Any, pairs: Any, settings: DPOSettings, run: Run | None = None, *, reference: Any = None) -> Any:
    """Preference optimisation on pairs of answers.

    **Arguments:** `pairs`: rows with `prompt`, `chosen` and `rejected`, texts or messages; `reference`: the model whose
    log-probabilities are subtracted, the one given as it is now where None.

    **Raises:** `InputError` for data without these columns.
    """
    run = run or Run()
    rows = dataset(pairs)
    check_columns(rows, ("prompt", "chosen", "rejected"), "Preference optimisation", "prompt, chosen and rejected")
    chat_template(words)
    own: dict[str, Any] = {"max_length": context(model, settings.max_tokens), "beta": settings.beta}
    if settings.loss == "simpo":
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        own |= {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": settings.margin}
        with training_arguments(run, settings, CPOConfig, model, **own) as config, plain_errors("Preference optimisation"):
            return _train(CPOTrainer, config, run, settings, model, words, rows)
    from trl import DPOConfig, DPOTrainer

    frozen = reference if reference is not None or settings.adapter else copy.deepcopy(model)
    own |= {"loss_type": settings.loss}
    with training_arguments(run, settings, DPOConfig, model, **own) as config, plain_errors("Preference optimisation"):
        return _train(DPOTrainer, config, run, settings, model, words, rows, ref_model=frozen)


def reinforce(
    model: Any, words: Any, prompts: Any, reward: Reward, settings: RLSettings, run: Run | None = None, **more: Any
) -> Any:
    """Reinforcement learning by GRPO or RLOO: `group` answers to each prompt, drawn from the model, and a reward for each.

    **Arguments:** `words`: the tokenizer, or the processor of a model that sees; `prompts`: rows with `prompt` (text or
    messages) and whatever else the reward is to be given, by the columns' names; `reward`: see `rewards.reward_function`;
    `more`: further settings of TRL's configuration, by its own names.

    **Raises:** `InputError` for data without prompts, and for a prompt that leaves no room for an answer; `JobError` where the
    reward fails.
    """
    import trl

    run = run or Run()
    rows = dataset(prompts)
    check_columns(rows, ("prompt",), "Reinforcement learning", "prompt")
    chat_template(words)
    check_room(model, words, rows, settings.answer_tokens)
    own: dict[str, Any] = {
        "num_generations": settings.group,
        "max_completion_length": settings.answer_tokens,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "epsilon": settings.clip,
        "num_iterations": settings.updates,
        **more,
    }
    kinds: dict[str, tuple[Any, Any]] = {
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
    }
    if settings.algorithm not in kinds:
        raise InputError(f"reinforce trains by grpo or rloo; {settings.algorithm} is in post_training.ppo.")
    if settings.algorithm == "grpo":
        own = {"scale_rewards": settings.scale, "entropy_coef": settings.entropy, "loss_type": "dapo"} | own
    config_class, trainer_class = kinds[settings.algorithm]
    checked = reward_function(reward)
    settings = replace(settings, save_every=settings.updates * math.ceil(settings.save_every / settings.updates))  # answers are
    # used for as many steps, and are in no checkpoint
    anchored = settings.beta > 0 and not settings.adapter
    with (
        training_arguments(run, settings, config_class, model, **own) as config,
        plain_errors("Reinforcement learning"),
        _reference(model) if anchored else contextlib.nullcontext(),
    ):
        return _train(trainer_class, config, run, settings, model, words, rows, reward_funcs=checked)


def dataset(data: Any) -> Dataset:
    """The rows as a `datasets.Dataset`; a list of dictionaries becomes one."""
    rows = data if isinstance(data, Dataset) else Dataset.from_list(list(data))
    if not len(rows):
        raise InputError("There is nothing to train on: the data has no rows.")
    return rows


def check_columns(rows: Dataset, wanted: Sequence[str], who: str, said: str) -> None:
    """**Raises:** `InputError` where a column is missing."""
    if missing := [name for name in wanted if name not in rows.column_names]:
        raise InputError(f"{who} takes rows with {said}; there is no {missing[0]!r} among {', '.join(rows.column_names)}.")


def chat_template(words: Any) -> None:
    """Gives a tokenizer without a chat template Tülu's."""
    if words.chat_template is None:
        words.chat_template = TULU_TEMPLATE


def context(model: Any, tokens: int) -> int:
    """So many tokens, or as many as the model has positions."""
    return min(tokens, positions(model) or tokens)


def check_room(model: Any, words: Any, rows: Dataset, answer: int) -> None:
    """**Raises:** `InputError` for the first prompt that with an answer is longer than the model's context."""
    limit = positions(model)
    if limit is None or "images" in rows.column_names or "image" in rows.column_names:
        return
    if long := first_as_long(rows, words, limit - answer + 1):
        raise InputError(
            f"Prompt {long[0] + 1} has {long[1]} tokens; with an answer of {answer} that is more than the model's context "
            f"of {limit}: shorten it, leave it out, or ask for shorter answers."
        )


@contextlib.contextmanager
def _reference(model: Any) -> Iterator[None]:
    """Lets a trainer of TRL read the model as it is now where it reads its reference from: the place that the configuration
    names, which is otherwise where the model was loaded from, however it has been trained since."""
    before = model.config._name_or_path
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model.config._name_or_path = folder
        try:
            yield
        finally:
            model.config._name_or_path = before


@contextlib.contextmanager
def training_arguments(run: Run, settings: TrainingSettings, kind: Any, model: Any, **own: Any) -> Iterator[Any]:
    """The configuration of a trainer, with a folder that goes again where none was given."""
    with contextlib.ExitStack() as stack:
        folder = run.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(quiet())
        yield kind(
            output_dir=str(folder),
            run_name=run.name,
            project=run.project,
            max_steps=settings.steps or -1,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.at_once,
            gradient_accumulation_steps=settings.batch // settings.at_once,
            learning_rate=settings.rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warm_up,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.largest_gradient,
            bf16=settings.precision == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=next(model.parameters()).device.type == "cpu",
            save_strategy="steps" if run.folder else "no",
            save_steps=settings.save_every,
            save_total_limit=1,
            logging_steps=settings.log_every,
            report_to=list(run.trackers) or "none",
            disable_tqdm=True,
            seed=settings.seed,
            **own,
        )


def _train(
    kind: Any, config: Any, run: Run, settings: TrainingSettings, model: Any, words: Any, rows: Dataset, **more: Any
) -> Any:
    """Trains, from the last checkpoint where there is one; the model, in evaluation mode, with an adapter merged into it."""
    before = torch.random.get_rng_state()
    trainer = kind(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=words,
        peft_config=adapter(settings),
        callbacks=[Watching(run), *run.callbacks],
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(run.folder) if run.folder else None
    if last:
        _catch_up(trainer, last)
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        torch.random.set_rng_state(before)
    run.records[:] = [
        {name: value for name, value in record.items() if isinstance(value, int | float)}
        for record in trainer.state.log_history
    ]
    trained = trainer.model
    if settings.adapter:
        trained = trained.merge_and_unload()
    return trained.eval()


def adapter(settings: TrainingSettings) -> LoraConfig | None:
    """The LoRA adapter that is trained in place of the weights, or None."""
    if not settings.adapter:
        return None
    return LoraConfig(r=settings.adapter, lora_alpha=2 * settings.adapter, target_modules="all-linear", task_type="CAUSAL_LM")


def _catch_up(trainer: Any, last: Path) -> None:
    """Draws the orders of the passes that are over: TRL's sampler of prompts would begin with its first order again."""
    from trl.trainer.utils import RepeatSampler

    over = int(json.loads((last / "trainer_state.json").read_text())["epoch"] + 1e-6)
    make = trainer._get_train_sampler

    def sampler(*arguments: Any) -> Any:
        made = make(*arguments)
        if isinstance(made, RepeatSampler):
            for _ in range(over):
                torch.randperm(made.num_samples, generator=made.generator)
        return made

    trainer._get_train_sampler = sampler


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a training that was written whole: its state is written last."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)


class Watching(TrainerCallback):
    """Tells how far a training is, and stops it where its loss is no number."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **named: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            raise JobError(f"The loss is {loss} after {state.global_step} steps; try a lower rate.")

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if self.run.watch:
            last = state.log_history[-1] if state.log_history else {}
            self.run.watch(state.global_step / max(1, state.max_steps), {k: v for k, v in last.items() if isinstance(v, float)})


@contextlib.contextmanager
def plain_errors(who: str) -> Iterator[None]:
    """What a trainer says of its user's data, as our own error."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{who}: {str(error).strip().splitlines()[0]}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice; their errors come through."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet_datasets():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
