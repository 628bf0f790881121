"""What a model is trained on for quality and diversity: prompts, the quality of answers, what makes them the same, a look.

Tiny tasks are closed, and looks at them exact. Mathematics and conversations come from data sets as their authors publish them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from broadsheet.errors import DataError, InputError
from broadsheet.language.closed_answers import Sampler, start
from broadsheet.language.closed_tasks import task_named
from broadsheet.language.diversity.classifier import ClassifierPartitioner, load_classifier
from broadsheet.language.diversity.drawn import Drawn
from broadsheet.language.diversity.partitions import OraclePartitioner, Partitioner
from broadsheet.language.diversity.rewards import Quality
from broadsheet.language.models import load_on, padded
from broadsheet.language.rows import read_rows
from broadsheet.language.verifiers import verify

SHORTEST_LIST = 2


@runtime_checkable
class Look(Protocol):
    """What a model answers: `Sampler` of closed tasks, `Drawn` of others."""

    def at(self, temperature: float = 1.0) -> Any: ...

    def at_pass(self, wanted: float) -> Any: ...


@dataclass(frozen=True)
class Problem:
    """A start, prompts and what answers to them are worth.

    **Arguments:** `model`: gives a fresh copy of the model that trainings start from; `rows`: prompts as TRL takes them;
    `quality`, `partitioner`: as `DarlingReward` takes them; `look`: from a model to its answers; `tokens`: longest answer;
    `shift`: whether the quality may be negative.
    """

    model: Callable[[], Any]
    words: Any
    rows: Sequence[dict[str, Any]]
    quality: Quality
    partitioner: Partitioner
    look: Callable[[Any], Look]
    tokens: int
    shift: bool = False


def closed(name: str, seed: int, *, steps: int = 900) -> Problem:
    """A closed task by its name, and the tiny model of a seed that was fine-tuned on it."""
    task, chain = task_named(name), start(seed, name, steps=steps)
    words = chain.words("sft")
    longest = max(len(ids) for ids in words(list(task.answers))["input_ids"])
    return Problem(
        lambda: chain.model("sft"), words, task.rows(), task.quality, OraclePartitioner(task.meaning),
        lambda model: Sampler(model, words, task), tokens=longest + 1,
    )  # fmt: skip


def mathematics(
    model: str, prompts: str, classifier: str, *, limit: int = 10_000, held_out: int = 100, draws: int = 64, tokens: int = 8192,
    device: str = "cpu",
) -> Problem:  # fmt: skip
    """Problems with answers that a program checks: rows with `problem` and `answer`, as DeepScaleR has them.

    **Arguments:** `model`, `classifier`: folders or names on the Hub; `prompts`: a file, folder or name of a data set, of which
    the first `limit` rows are read; the last `held_out` of these are looked at and not trained on; `draws`: answers to each.

    **Raises:** `MissingDataError` for what is not there, `DataError` for rows without these columns.
    """
    found = list(islice(_problems(prompts), limit))
    trained, kept = _parted(found, held_out, prompts)
    return _real(model, classifier, trained, kept, _checked, good=0.0, draws=draws, tokens=tokens, device=device)


def conversations(
    model: str, prompts: str, reward_model: str, classifier: str, *, limit: int = 10_000, held_out: int = 100, draws: int = 10,
    tokens: int = 1024, longest: int = 2000, device: str = "cpu",
) -> Problem:  # fmt: skip
    """Open-ended requests with the score of a reward model: rows with `conversation`, as WildChat has them; the first turn of
    each that is English and not marked as toxic, of at most `longest` characters.

    **Arguments:** beside those of `mathematics`: `reward_model`: a sequence classifier with one output, of whose own chat
    template the score is asked.

    **Raises:** as `mathematics`.
    """
    found = list(islice(_requests(prompts, longest), limit))
    trained, kept = _parted(found, held_out, prompts)
    judge = RewardModel(reward_model, device=device)
    return _real(
        model, classifier, trained, kept, judge, good=None, draws=draws, tokens=tokens, device=device, shift=True
    )  # fmt: skip


class RewardModel:
    """The score that a sequence classifier with one output gives a conversation.

    **Raises:** `InputError` for a model with more outputs, and a tokenizer without a chat template.
    """

    def __init__(self, name: str, *, device: str = "cpu", batch: int = 8) -> None:
        model, self.words = load_classifier(name)
        if model.config.num_labels != 1:
            raise InputError(f"{name} has {model.config.num_labels} outputs; a reward model has one.")
        if self.words.chat_template is None:
            raise InputError(f"The tokenizer of {name} has no chat template.")
        if model.config.pad_token_id is None:
            model.config.pad_token_id = (
                self.words.pad_token_id if self.words.pad_token_id is not None else self.words.eos_token_id
            )
        self.model, self.batch = model.to(device), batch

    def __call__(self, completions: Sequence[str], *, prompts: Sequence[Any], **_: Any) -> list[float]:
        """Scores (completions)."""
        import torch

        turns = [_turns(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        rows = [self.words.apply_chat_template(one, return_dict=True)["input_ids"] for one in turns]
        found = []
        with torch.inference_mode():
            for first in range(0, len(rows), self.batch):
                ids, mask = padded(rows[first : first + self.batch], self.model.config.pad_token_id)
                device = self.model.device
                found.append(self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0].float().cpu())
        return torch.cat(found).tolist()


def _turns(prompt: Any, answer: str) -> list[dict[str, str]]:
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return [*asked, {"role": "assistant", "content": answer}]


def _real(
    model: str, classifier: str, trained: list[dict[str, Any]], kept: list[dict[str, Any]], quality: Quality, *,
    good: float | None, draws: int, tokens: int, device: str, shift: bool = False,
) -> Problem:  # fmt: skip
    """A problem of a model and a classifier by name."""
    loaded, words = load_on(device, model)
    partitioner = ClassifierPartitioner.load(classifier, device=device)
    return Problem(
        lambda: copy.deepcopy(loaded), words, trained, quality, partitioner,
        lambda trained: Drawn(trained, words, kept, quality, partitioner, good=good, draws=draws, tokens=tokens),
        tokens=tokens, shift=shift,
    )  # fmt: skip


def _checked(completions: Sequence[str], *, answer: Sequence[str], **_: Any) -> list[float]:
    """1 for a completion whose answer is that of the row, else 0."""
    return [verify("math", text, label) for text, label in zip(completions, answer, strict=True)]


def _problems(prompts: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_rows(prompts), 1):
        asked, answer = _column(row, "problem", prompts, number), _column(row, "answer", prompts, number)
        yield {"prompt": [{"role": "user", "content": str(asked)}], "answer": str(answer)}


def _requests(prompts: str, longest: int) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_rows(prompts), 1):
        turns = _column(row, "conversation", prompts, number)
        try:
            first = next(turn["content"] for turn in turns if turn["role"] == "user")
        except (TypeError, KeyError, StopIteration):
            raise DataError(f"{prompts}, row {number}: a conversation is turns with role and content, one of a user.") from None
        if row.get("language", "English") == "English" and not row.get("toxic") and first and len(first) <= longest:
            yield {"prompt": [{"role": "user", "content": first}]}


def _column(row: Mapping[str, Any], name: str, prompts: str, number: int) -> Any:
    if row.get(name) is None:
        raise DataError(f"{prompts}, row {number} has no {name!r}; it has {', '.join(row)}.")
    return row[name]


def _parted(found: list[dict[str, Any]], held_out: int, prompts: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if len(found) < held_out + SHORTEST_LIST:
        raise DataError(f"{prompts} has {len(found)} prompts that can be used; {held_out + SHORTEST_LIST} at least are wanted.")
    return found[:-held_out], found[-held_out:]
