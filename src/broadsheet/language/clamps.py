"""Holding MLP neurons at values while a causal language model runs, and what that does to its words.

After arXiv 2501.02688: `up` holds what comes out of the up-projection, before it is multiplied with the gate, which can close
it; `hidden` holds the product, the neuron's activation that the down-projection reads. Values are in units of that
activation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import mlp
from broadsheet.language.hooks import Change, hooked
from broadsheet.language.models import check_tokens, generate

SITES = ("up", "hidden")
Neuron = tuple[int, int]
"""(layer, neuron), counted from 0."""


@contextmanager
def clamp(
    model: Any, values: Mapping[Neuron, float], site: str = "up", positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Holds neurons at values, at all tokens of each forward pass within or at some positions of it.

    ```python
    with clamp(model, {(2, 17): 20.0}):
        model(input_ids=ids)
    ```

    In generation with a cache a pass has the tokens that are new.

    **Raises:** `InputError` for a neuron, site or position that does not exist, a value that is not finite, or a model
    without an MLP of separate maps.
    """
    held = [(layer, neuron, float(value), slice(None)) for (layer, neuron), value in values.items()]
    with hooked(model, _holding(model, held, site, positions), inputs=site == "hidden"):
        yield


@contextmanager
def clamp_rows(
    model: Any, rows: Sequence[tuple[int, int, float]], site: str = "up", positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Holds another neuron in each row of a batch: (layer, neuron, value) a row; as many clamps as rows in one pass.

    **Raises:** as `clamp` does.
    """
    held = [(layer, neuron, float(value), row) for row, (layer, neuron, value) in enumerate(rows)]
    with hooked(model, _holding(model, held, site, positions), inputs=site == "hidden"):
        yield


def _holding(
    model: Any, held: list[tuple[int, int, float, Any]], site: str, positions: Sequence[int] | None
) -> dict[torch.nn.Module, Change]:
    """What to do to the output of each map up, or to the input of each map down."""
    if site not in SITES:
        raise InputError(f"The site is {site!r}; up or hidden can be held.")
    by_layer: dict[int, list[tuple[int, float, Any]]] = {}
    for layer, neuron, value, row in held:
        check_neuron(model, (layer, neuron))
        if not math.isfinite(value):
            raise InputError(f"Neuron {neuron} of layer {layer} cannot be held at {value}.")
        by_layer.setdefault(layer, []).append((neuron, value, row))

    def changing(entries: list[tuple[int, float, Any]]) -> Change:
        def change(states: torch.Tensor) -> torch.Tensor:
            there = slice(None) if positions is None else _within(positions, states.shape[1])
            moved = states.clone()
            for neuron, value, row in entries:
                moved[row, there, neuron] = value
            return moved

        return change

    parts = {layer: mlp(model, layer) for layer in by_layer}
    return {(parts[k].up if site == "up" else parts[k].down): changing(entries) for k, entries in by_layer.items()}


def check_neuron(model: Any, neuron: Neuron) -> None:
    """Raises `InputError` for a neuron that a model does not have."""
    layer, index = neuron
    if not 0 <= index < (there := mlp(model, layer).neurons):
        raise InputError(f"Neuron {index} of layer {layer} does not exist; it has {there}, counted from 0.")


def _within(positions: Sequence[int], tokens: int) -> list[int]:
    if outside := [position for position in positions if not -tokens <= position < tokens]:
        raise InputError(f"Position {outside[0]} does not exist; the text has {tokens} tokens, counted from 0.")
    return list(positions)


def next_log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """log p of each token after rows of ids (rows, tokens): (rows, vocabulary), float32."""
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -1].float().log_softmax(-1)


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The Kullback-Leibler divergence of log-probabilities (…, vocabulary) from others, nats (…)."""
    return (first.exp() * (first - second)).sum(-1)


def side_effects(
    model: Any,
    texts: Sequence[Sequence[int]],
    values: Mapping[Neuron, float],
    site: str = "up",
    positions: Sequence[int] | None = None,
) -> dict[str, float]:
    """What a clamp does to texts (token ids) that have nothing to do with it, a text at a time: `kl`, the mean divergence of
    the next token's distribution without it to that with it, nats; `perplexity` without it, and `clamped_perplexity`.

    **Raises:** `InputError` as `clamp` does, or where no text has two tokens.
    """
    kl, losses, clamped, count = 0.0, 0.0, 0.0, 0
    for text in texts:
        if len(text) < 2:
            continue
        ids = repeated(model, text, 1)
        with torch.no_grad():
            before = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
            with clamp(model, values, site, positions):
                after = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        follow = ids[0, 1:, None]
        kl += float(divergence(before, after).sum())
        losses -= float(before.gather(1, follow).sum())
        clamped -= float(after.gather(1, follow).sum())
        count += len(follow)
    if not count:
        raise InputError("No text has two tokens, so that nothing follows.")
    return {
        "kl": kl / count,
        "perplexity": math.exp(losses / count),
        "clamped_perplexity": math.exp(min(clamped / count, 700.0)),
    }


def steered(
    model: Any,
    prompts: Sequence[Sequence[int]],
    values: Mapping[Neuron, float],
    *,
    tokens: int = 20,
    samples: int = 1,
    temperature: float = 0.0,
    site: str = "up",
    seed: int = 0,
) -> torch.Tensor:
    """What a model writes under a clamp after prompts (token ids), greedy or at a temperature: (prompts, samples, tokens)."""
    made = torch.empty(len(prompts), samples, tokens, dtype=torch.long)
    dice = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    drawn = samples if temperature > 0 else 1
    with clamp(model, values, site):
        for length in sorted({len(prompt) for prompt in prompts}):
            alike = [k for k, prompt in enumerate(prompts) if len(prompt) == length]
            rows = [list(prompts[k]) for k in alike for _ in range(drawn)]
            found = generate(model, rows, tokens, temperature=temperature, generator=dice)
            made[alike] = found.cpu().reshape(len(alike), drawn, tokens)
    return made


def mentions(written: torch.Tensor, tokens: Sequence[int]) -> float:
    """The share of continuations (…, tokens) that have any of these tokens."""
    return float(torch.isin(written, torch.as_tensor(list(tokens), device=written.device)).any(-1).float().mean())


def prompt_ids(model: Any, words: Any, prompt: str | Sequence[int]) -> list[int]:
    """The ids of a prompt, which the model must have an embedding for.

    **Raises:** `InputError` for an empty one, or a token that is not the model's.
    """
    ids = words(prompt)["input_ids"] if isinstance(prompt, str) else [int(each) for each in prompt]
    if not ids:
        raise InputError("The prompt has no token.")
    check_tokens(model, [ids])
    return ids


def repeated(model: Any, prompt: Sequence[int], count: int) -> torch.Tensor:
    """Token ids (count, tokens) of a prompt, so many times, where the model is."""
    return torch.tensor([list(prompt)] * count, device=next(model.parameters()).device)
