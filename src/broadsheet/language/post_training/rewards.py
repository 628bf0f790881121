"""Reward functions as trainers call them, with their faults told in one sentence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from broadsheet.errors import BroadsheetError, InputError, JobError
from broadsheet.language.verifiers.registry import Verifier, verifier_of, verify

Reward = Callable[..., Sequence[float | None]]


def said(completion: Any) -> str:
    """The text of an answer as a trainer hands it over: a string, or the messages of a conversation."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def reward_function(reward: Reward, name: str | None = None) -> Reward:
    """The same reward for TRL: called with `prompts`, `completions` and every other column of the data; a number an answer.

    **Raises:** (when called) `JobError` where the function raises, gives another number of values, or one that is not finite,
    with the answer that it was about; what was trained until then is in the last checkpoint.
    """
    title = str(name or getattr(reward, "__name__", type(reward).__name__))

    @functools.wraps(reward, updated=())
    def checked(*arguments: Any, **named: Any) -> list[float | None]:
        completions = named.get("completions", arguments[1] if len(arguments) > 1 else ())
        try:
            found = list(reward(*arguments, **named))
        except BroadsheetError as error:
            raise JobError(f"The reward {title} failed: {str(error).rstrip('.')}.") from error
        except Exception as error:
            raise JobError(f"The reward {title} failed: {type(error).__name__}: {error}.") from error
        if len(found) != len(completions):
            raise JobError(f"The reward {title} gave {len(found)} values for {len(completions)} answers.")
        for answer, value in zip(completions, found, strict=True):
            if value is not None and not math.isfinite(value):
                raise JobError(f"The reward {title} gave {value} for the answer {said(answer)[:80]!r}.")
        return [None if value is None else float(value) for value in found]

    checked.__name__ = title
    return checked


def verified(verifier: str | Verifier | None = None, worth: float = 10.0) -> Reward:
    """A reward function from a verifier: `worth` (Tülu 3's alpha) times what it says of each answer and its row's `label`.

    **Arguments:** `verifier`: its name or itself, None for the one that each row's column `verifier` names.

    **Raises:** `InputError` for a name that there is not; (when called) for rows without a label.
    """
    if isinstance(verifier, str):
        verifier_of(verifier)

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        if "label" not in columns:
            raise InputError("a verifier needs a label in each row; the data has no column 'label'")
        texts = [said(answer) for answer in completions]
        if callable(verifier):
            return [worth * float(verifier(text, label)) for text, label in zip(texts, columns["label"], strict=True)]
        if verifier is None and "verifier" not in columns:
            raise InputError("no verifier is named, and the data has no column 'verifier'")
        names = columns["verifier"] if verifier is None else [verifier] * len(texts)
        rows = zip(names, texts, columns["label"], strict=True)
        return [worth * verify(name, text, label) for name, text, label in rows]

    reward.__name__ = verifier if isinstance(verifier, str) else getattr(verifier, "__name__", "verified")
    return reward
