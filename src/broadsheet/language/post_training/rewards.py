"""Reward functions as trainers call them, with their faults told in one sentence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from broadsheet.errors import JobError

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
        except JobError:
            raise
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
