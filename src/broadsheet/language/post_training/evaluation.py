"""Scores on tasks whose answers a program can check: exact, offline; and the field's harness, where it is installed.

A suite is a file of JSON lines, or a folder of such files:

    {"prompt": "2+3=?", "label": "5", "verifier": "gsm8k", "task": "sums", "split": "dev"}

`prompt` is a text or the turns of a conversation; `task` is the file's name where it is not given, `split` is `dev`. Tasks of
the split `unseen` are left alone until they are asked for, so that nothing is chosen by them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import DataError, InputError, MissingExtraError
from broadsheet.files import MIB, existing, read_text
from broadsheet.language.diversity.scores import pass_at_k
from broadsheet.language.verifiers import mathematics, verifier_of, verify
from broadsheet.language.verifiers.numbers import last_number

SPLITS = ("dev", "unseen")
LOOSE = {"ifeval": "ifeval_loose"}
"""Verifier -> the one that is more lenient about the answer's frame."""

Scores = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Prompts with what is right and who says so.

    **Arguments:** `prompts`: texts, or turns of conversations; `labels`; `verifiers`: their names, one a prompt; `split`: `dev`
    or `unseen`.
    """

    name: str
    prompts: tuple[Any, ...]
    labels: tuple[Any, ...]
    verifiers: tuple[str, ...]
    split: str = "dev"


Suite = str | Path | Sequence[Task] | Sequence[Mapping[str, Any]]


def read_suite(suite: Suite) -> list[Task]:
    """The tasks of a file, a folder, rows, or tasks as they are.

    **Raises:** `InputError` for rows without a prompt, label or verifier, and for a verifier or split that there is not;
    `DataError` for a file that is no JSON lines.
    """
    if not isinstance(suite, str | Path):
        given = list(suite)
        tasks = [task for task in given if isinstance(task, Task)]
        if tasks and len(tasks) == len(given):
            return tasks
        return _tasks(("The suite", "suite", number, row) for number, row in enumerate(given, 1))
    path = existing(suite)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    return _tasks((file, file.stem, number, row) for file in files for number, row in _lines(file))


def _lines(file: Path) -> list[tuple[int, Any]]:
    found = []
    for number, line in enumerate(read_text(file, 1024 * MIB).split("\n"), 1):
        if line.strip():
            try:
                found.append((number, json.loads(line)))
            except (ValueError, RecursionError):
                raise DataError(f"{file}, line {number}: it is no JSON.") from None
    return found


def _tasks(rows: Any) -> list[Task]:
    parts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for place, name, number, row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"{place}, row {number}: an object with prompt, label and verifier is wanted.")
        for key in ("prompt", "label", "verifier"):
            if row.get(key) is None:
                raise InputError(f"{place}, row {number} has no {key!r}; prompt, label and verifier are wanted.")
        if row.get("split", "dev") not in SPLITS:
            raise InputError(f"{place}, row {number}: the split is {row['split']!r}; one of {', '.join(SPLITS)} is wanted.")
        verifier_of(row["verifier"])
        parts.setdefault((str(row.get("task", name)), row.get("split", "dev")), []).append(row)
    if not parts:
        raise InputError("The suite has no tasks.")
    return [
        Task(
            name,
            tuple(row["prompt"] for row in found),
            tuple(row["label"] for row in found),
            tuple(row["verifier"] for row in found),
            split,
        )
        for (name, split), found in parts.items()
    ]


def evaluate(
    model: Any,
    words: Any,
    suite: Suite,
    *,
    samples: int = 0,
    k: Sequence[int] = (1,),
    temperature: float = 1.0,
    tokens: int = 256,
    unseen: bool = False,
    batch: int = 64,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> Scores:
    """Scores of each task and their mean: `greedy` accuracy, and of `samples` answers drawn at `temperature` their accuracy
    (`sampled`), `pass@k` and `maj@k`. Of constraints on form `greedy_loose` as well.

    **Arguments:** `tokens`: longest answer; `unseen`: the tasks of that split in place of those of `dev`.

    **Returns:** `{"tasks": {name: {score: value}}, "mean": {score: value}, "split": …, "samples": …, "tokens": …}`.

    **Raises:** `InputError` for k beyond `samples`, a suite without tasks of the split, a prompt without room for an answer.
    """
    from broadsheet.language.post_training.sampling import answers

    split = "unseen" if unseen else "dev"
    tasks = [task for task in read_suite(suite) if task.split == split]
    if not tasks:
        raise InputError(f"The suite has no tasks of the split {split!r}.")
    if samples and (wrong := [n for n in k if not 1 <= n <= samples]):
        raise InputError(f"k is {wrong[0]}; from 1 to the number of samples, {samples}, is wanted.")
    tell = report or (lambda share: None)
    prompts = [prompt for task in tasks for prompt in task.prompts]
    how = {"tokens": tokens, "batch": batch, "seed": seed}
    greedy = answers(model, words, prompts, report=lambda share: tell(share / (1 + samples)), **how)
    drawn: list[list[str]] = [[] for _ in prompts]
    if samples:
        drawn = answers(
            model, words, prompts, samples=samples, temperature=temperature,
            report=lambda share: tell((1 + samples * share) / (1 + samples)), **how,
        )  # fmt: skip
    found, start = {}, 0
    for task in tasks:
        end = start + len(task.prompts)
        found[task.name] = scores(task, [texts[0] for texts in greedy[start:end]], drawn[start:end] if samples else None, k)
        start = end
    shared = [name for name in next(iter(found.values())) if all(name in one for one in found.values())]
    mean = {name: float(np.mean([one[name] for one in found.values()])) for name in shared if name != "prompts"}
    return {"split": split, "tasks": found, "mean": mean, "samples": samples, "tokens": tokens}


def scores(
    task: Task, greedy: Sequence[str], drawn: Sequence[Sequence[str]] | None = None, k: Sequence[int] = (1,)
) -> dict[str, float]:
    """Scores of a task from answers: one to each prompt, and, where drawn, as many to each of them."""
    named = list(zip(task.verifiers, task.labels, strict=True))
    found = {
        "prompts": float(len(named)),
        "greedy": float(np.mean([verify(name, text, label) for (name, label), text in zip(named, greedy, strict=True)])),
    }
    if all(name in LOOSE for name, _ in named):
        loose = [verify(LOOSE[name], text, label) for (name, label), text in zip(named, greedy, strict=True)]
        found["greedy_loose"] = float(np.mean(loose))
    if drawn is None:
        return found
    right = [[verify(name, text, label) for text in texts] for (name, label), texts in zip(named, drawn, strict=True)]
    found["sampled"] = float(np.mean(right))
    for n in k:
        found[f"pass@{n}"] = float(np.mean([pass_at_k(len(row), sum(value == 1 for value in row), n) for row in right]))
        votes = [
            majority([answer_of(name, text) for text in texts], row, n)
            for (name, _), texts, row in zip(named, drawn, right, strict=True)
        ]
        found[f"maj@{n}"] = float(np.mean(votes))
    return found


def majority(said: Sequence[str], right: Sequence[float], k: int) -> float:
    """How right the commonest of k answers is, on average over the groups of k that follow each other; of several that are as
    common, their mean."""
    found = []
    for start in range(0, len(said) - k + 1, k):
        counted = Counter(said[start : start + k])
        most = max(counted.values())
        value = dict(zip(said[start : start + k], right[start : start + k], strict=True))
        found.append(np.mean([value[text] for text, count in counted.items() if count == most]))
    return float(np.mean(found))


def answer_of(verifier: str, text: str) -> str:
    """What is voted on: the number of a sum, the first candidate in mathematics, else the text without white space around."""
    if verifier == "math":
        return next(mathematics.answers(text))
    return last_number(text, signed=verifier == "gsm8k_signed") if verifier.startswith("gsm8k") else text.strip()


def harness(
    model: Any, words: Any, tasks: Sequence[str], *, folder: str | Path | None = None, **options: Any
) -> dict[str, Any]:
    """Results of EleutherAI's lm-evaluation-harness, by task and metric.

    **Arguments:** `tasks`: names that it knows; `folder`: with task files (YAML) of your own; `options`: of its
    `simple_evaluate` (`num_fewshot`, `limit`, `batch_size`, `apply_chat_template`, …).

    **Raises:** `MissingExtraError` where it is not installed, `InputError` for a task that it has not.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingExtraError("The harness of lm-eval", "evaluation") from None
    manager = TaskManager(include_path=str(folder) if folder else None)
    if unknown := [name for name in tasks if not manager.match_tasks([name])]:
        raise InputError(f"lm-eval has no task {unknown[0]!r}.")
    wrapped = HFLM(pretrained=model, tokenizer=words, batch_size=options.pop("batch_size", 1))
    found = lm_eval.simple_evaluate(model=wrapped, tasks=list(tasks), task_manager=manager, **options)
    return {
        name: {metric: value for metric, value in row.items() if isinstance(value, int | float)}
        for name, row in found["results"].items()
    }
