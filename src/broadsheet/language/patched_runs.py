"""Runs of a causal model in which single states are those of another run, many such runs in a pass.

Plainly, each state that is put in costs a forward pass over the whole prompt. Here a row of a batch is a run, with its own
block and its own token. A pass starts at the first token that a row of it changes, over the keys and values of the run without
changes, so that what comes before is read once; and above the lowest block that a row of it changes, from the states of that
run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, embedding, unembedding
from broadsheet.language.hooks import Change, hooked, placing, skipping
from broadsheet.language.models import check_finite, check_tokens, within_positions

BUDGET = 2**28
"""Bytes of keys and values that the rows of a pass may copy."""

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits after the last token (rows, words) and the prompt of each row, (rows,), to a number for each row."""


@dataclass(frozen=True)
class Reading:
    """What a run over prompts of one length leaves.

    - `ids`: (prompts, tokens).
    - `states`: (blocks + 1, prompts, columns, width) of the last tokens: the embedding's output, then that of each block.
    - `logits`: (prompts, words) after the last token.
    - `kept`: keys and values of each block, for all tokens; None where a model keeps something else (a recurrent state).
    - `several`: whether the model's blocks give their states as the first of several outputs.
    """

    ids: torch.Tensor
    states: torch.Tensor
    logits: torch.Tensor
    kept: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None
    several: bool

    @property
    def columns(self) -> int:
        """The tokens whose states were kept: the last of each prompt."""
        return self.states.shape[2]


def read(model: Any, ids: torch.Tensor, columns: int, *, noise: torch.Tensor | None = None) -> Reading:
    """Runs prompts of one length (prompts, tokens), and keeps what changed runs need of their last `columns` tokens.

    **Arguments:** `noise`: (prompts, columns, width), added to the embeddings of these tokens.

    **Raises:** `InputError` for tokens that have no embedding, more tokens than the model has positions for, and numbers that
    are not finite.
    """
    if model.config.is_encoder_decoder:
        raise InputError(f"A {type(model).__name__} is an encoder-decoder model; a causal language model is wanted.")
    check_tokens(model, ids.tolist())
    if not 1 <= columns <= ids.shape[1]:
        raise InputError(f"{columns} columns are asked for; the prompts have {ids.shape[1]} tokens.")
    ids = ids.to(next(model.parameters()).device)
    found: list[torch.Tensor] = []
    forms: list[bool] = []

    def keep(states: torch.Tensor) -> torch.Tensor:
        found.append(states[:, -columns:].clone())
        return states

    def disturb(states: torch.Tensor) -> torch.Tensor:
        return states if noise is None else torch.cat([states[:, :-columns], states[:, -columns:] + noise.to(states)], 1)

    handle = blocks(model)[0].register_forward_hook(lambda module, given, out: forms.append(isinstance(out, tuple)))
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(hooked(model, {embedding(model): disturb}))
            stack.enter_context(hooked(model, dict.fromkeys((embedding(model), *blocks(model)), keep)))
            stack.enter_context(_last_logits(model))
            stack.enter_context(within_positions(model, ids.shape[1]))
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    finally:
        handle.remove()
    logits = out.logits[:, -1].float()
    check_finite(model, logits)
    return Reading(ids, torch.stack(found), logits, _kept(out, len(found) - 1, ids.shape[1]), forms[-1])


def difference(true_ids: torch.Tensor, false_ids: torch.Tensor) -> Score:
    """The logit of one word less that of another, which each prompt has its own of, (prompts,)."""

    def score(logits: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        true, false = (ids.to(logits.device)[prompt, None] for ids in (true_ids, false_ids))
        return (logits.gather(1, true) - logits.gather(1, false))[:, 0]

    return score


def says(ids: torch.Tensor) -> Score:
    """1 where the likeliest word is that of the prompt, (prompts,), else 0."""
    return lambda logits, prompt: (logits.argmax(-1) == ids.to(logits.device)[prompt]).float()


def patched(
    model: Any,
    target: Reading,
    source: torch.Tensor,
    score: Score,
    *,
    layers: Sequence[int] | None = None,
    together: bool = False,
    all_cells: bool = False,
    rows: int | None = None,
) -> torch.Tensor:
    """Scores (prompts, layers, columns) of a run in which one state is another's: after each block, at each column.

    A cell that changes nothing that is read afterwards, because both runs have the same state there, or it is after the last
    block and not at the last token, gets the score of the run as it was.

    **Arguments:** `target`: the model's own run; `source`: states (blocks + 1, prompts, columns, width) to be put in; `layers`:
    blocks, -1 the embedding, by default all of these; `together`: all columns of a layer at once, which gives one column;
    `all_cells`: such cells are run as well; `rows`: runs in a pass, by default as many as `BUDGET` has room for.

    **Raises:** `InputError` for states of another shape, and a layer that does not exist.
    """
    states, count = target.states, len(target.states) - 1
    if source.shape != states.shape:
        raise InputError(
            f"States of {len(source) - 1} blocks, width {source.shape[-1]} and {source.shape[2]} tokens cannot be put into a "
            f"run of {count} blocks, width {states.shape[-1]} and {states.shape[2]} tokens."
        )
    chosen = tuple(range(-1, count)) if layers is None else tuple(layers)
    if wrong := [layer for layer in chosen if not -1 <= layer < count]:
        raise InputError(f"Block {wrong[0]} does not exist; the model has {count}, counted from 0, and -1 is the embedding.")
    source = source.to(states)
    changes = (source != states).any(-1)
    changes[-1, :, :-1] = False
    changes |= all_cells
    if together:
        changes = changes.any(-1, keepdim=True)
    places = torch.tensor(chosen, device=states.device) + 1
    out = score(target.logits, torch.arange(len(target.ids), device=states.device))[None, :, None]
    out = out.repeat(len(chosen), 1, changes.shape[2])
    row, prompt, column = changes[places].nonzero(as_tuple=True)
    forth_and_back = torch.where(row % 2 == 0, column, changes.shape[2] - 1 - column)  # rows of a pass begin near each other
    order = torch.argsort(places[row] * changes.shape[2] + forth_and_back, stable=True)
    every = torch.arange(states.shape[2], device=states.device)
    for part in order.split(rows or _room(target)):
        where = every.expand(len(part), -1) if together else column[part][:, None]
        logits = _pass(model, target, source, places[row[part]], prompt[part], where)
        out[row[part], prompt[part], column[part]] = score(logits, prompt[part])
    return out.transpose(0, 1)


def _pass(
    model: Any, target: Reading, source: torch.Tensor, place: torch.Tensor, prompt: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Logits (rows, words) of the target's run where row k has the source's states at its place and its columns.

    Places count from 0, the embedding's output; `place`, `prompt`: (rows,); `columns`: (rows, changed).
    """
    whole = target.kept is None
    lowest, first = (0, 0) if whole else (int(place.min()), int(columns.min()))
    start = 0 if whole else target.ids.shape[1] - target.columns + first

    def put(number: int) -> Change:
        mine = (place == number).nonzero()[:, 0]
        row, column = (part.reshape(-1) for part in torch.broadcast_tensors(mine[:, None], columns[mine]))
        return placing(source[number, prompt[row], column], row, column - target.columns)

    given = put(lowest)(target.states[lowest, prompt, first:])
    above = {number - 1: put(number) for number in place.unique().tolist() if number > lowest}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if lowest:
            stack.enter_context(skipping(model, lowest, given, several=target.several))
        else:
            stack.enter_context(hooked(model, {embedding(model): _ending_in(given)}))
        stack.enter_context(hooked(model, above))
        stack.enter_context(_last_logits(model))
        return _run(model, target, prompt, start, lowest).logits[:, -1].float()


def _run(model: Any, target: Reading, prompt: torch.Tensor, start: int, computed: int) -> Any:
    """The pass over the tokens from `start` on, above the keys and values of those before it. Blocks below `computed` are left
    out; of their keys and values only the number is asked for."""
    mask = torch.ones(len(prompt), target.ids.shape[1], dtype=torch.long, device=target.ids.device)
    ids = target.ids[prompt, start:]
    if target.kept is None:
        return model(input_ids=ids, attention_mask=mask, use_cache=False)
    one = slice(0, 1)
    rows = [one if layer < computed else prompt for layer in range(len(target.kept))]
    copied = [tuple(part[row, :, :start] for part in pair) for row, pair in zip(rows, target.kept, strict=True)]
    return model(input_ids=ids, attention_mask=mask, use_cache=True, **{_cache_name(model): DynamicCache(copied)})


def _kept(out: Any, count: int, tokens: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...] | None:
    """Keys and values of all blocks and tokens; None where a model has no such thing, or has dropped some."""
    cache = out["cache"] if "cache" in out else out.get("past_key_values")
    layers = cache.layers if isinstance(cache, DynamicCache) else []
    pairs = tuple((getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers)
    whole = all(keys is not None and keys.ndim == 4 and keys.shape[-2] == tokens for keys, _ in pairs)
    return pairs if len(pairs) == count and whole else None  # type: ignore[return-value]


def _cache_name(model: Any) -> str:
    """What this version of Transformers calls the argument."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _room(target: Reading) -> int:
    """Rows of a pass."""
    row = sum(part[0].nbytes for pair in target.kept or () for part in pair) or target.states[:, 0].nbytes
    return min(128, max(1, BUDGET // row))


def _last_logits(model: Any) -> Any:
    """Logits after the last token alone."""
    return hooked(model, {unembedding(model): lambda states: states[:, -1:]}, inputs=True)


def _ending_in(last: torch.Tensor) -> Change:
    return lambda states: torch.cat([states[:, : states.shape[1] - last.shape[1]], last.to(states)], 1)
