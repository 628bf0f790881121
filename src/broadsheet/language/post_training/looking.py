"""Looks at a model while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broadsheet.errors import MissingExtraError

try:
    import torch
    from transformers import TrainerCallback
except ImportError:
    raise MissingExtraError("Training language models", "language") from None


class Looking(TrainerCallback):
    """Calls `look(model)` every so many steps, in evaluation mode and without gradients; `steps` and `found` are what it saw,
    from the start on."""

    def __init__(self, every: int, look: Callable[[Any], dict[str, float]]) -> None:
        self.every, self.look = every, look
        self.steps: list[int] = []
        self.found: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self._add(state.global_step, named["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step % self.every == 0:
            self._add(state.global_step, named["model"])

    def curve(self, name: str) -> list[float]:
        """One of the values over the looks."""
        return [row[name] for row in self.found]

    @torch.no_grad()
    def _add(self, step: int, model: Any) -> None:
        training = model.training
        self.steps.append(step)
        self.found.append(self.look(model.eval()))
        model.train(training)
