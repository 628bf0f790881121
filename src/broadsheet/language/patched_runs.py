"""Runs of a causal model in which single states are those of another run, many such runs in a pass.

Plainly, each state that is put in costs a forward pass over the whole prompt. Here a row of a batch is a run, with its own
block and its own token. A pass starts at the first token that a row of it changes, over the keys and values of the run without
changes, so that what comes before is read once; rows begin above their own block, from the states of that run, and join those
that began lower; and of the last block's MLP only the last token is asked for. Which tokens share a pass is what costs least.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, embedding, mlp, unembedding
from broadsheet.language.hooks import Change, hooked, placing, skipping
from broadsheet.language.models import check_finite, check_tokens, within_positions

BUDGET = 2**28
"""Bytes of keys and values that the rows of a pass may copy."""
CALL = {"cpu": 2e7}
"""What it costs to call a block, in floating point operations; 1e10 on other devices."""

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

    def __getitem__(self, prompts: slice) -> Reading:
        """That of some of the prompts."""
        kept = None if self.kept is None else tuple((keys[prompts], values[prompts]) for keys, values in self.kept)
        return Reading(self.ids[prompts], self.states[:, prompts], self.logits[prompts], kept, self.several)


def read(model: Any, ids: torch.Tensor, columns: int, *, noise: torch.Tensor | None = None) -> Reading:
    """Runs prompts of one length (prompts, tokens), and keeps what changed runs need of their last `columns` tokens. What comes
    before these is read once where prompts have it in common.

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

    layers = blocks(model)
    handle = layers[0].register_forward_hook(lambda module, given, out: forms.append(isinstance(out, tuple)))
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(within_positions(model, ids.shape[1]))
            known = _beginnings(model, ids, columns, len(layers))
            stack.enter_context(hooked(model, {embedding(model): disturb}))
            stack.enter_context(hooked(model, dict.fromkeys((embedding(model), *layers), keep)))
            stack.enter_context(_last_logits(model))
            given = ids[:, -columns:] if known else ids
            out = model(input_ids=given, attention_mask=torch.ones_like(ids), use_cache=True, **known)
    finally:
        handle.remove()
    logits = out.logits[:, -1].float()
    check_finite(model, logits)
    return Reading(ids, torch.stack(found), logits, _kept(out, len(found) - 1, ids.shape[1]), forms[-1])


def _beginnings(model: Any, ids: torch.Tensor, columns: int, count: int) -> dict[str, DynamicCache]:
    """The cache, as an argument of the model, of all but the last tokens, where some prompts begin alike; else nothing."""
    before = ids.shape[1] - columns
    different, which = torch.unique(ids[:, :before], dim=0, return_inverse=True)
    if not before or len(different) == len(ids):
        return {}
    with _last_logits(model):
        out = model(input_ids=different, attention_mask=torch.ones_like(different), use_cache=True)
    kept = _kept(out, count, before)
    return {_cache_name(model): DynamicCache([(keys[which], values[which]) for keys, values in kept])} if kept else {}


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
    every = torch.arange(states.shape[2], device=states.device)
    modules = blocks(model)
    most, maps = rows or _room(target), _last_maps(model)
    for part in _passes(modules, target, places[row], column, most):
        where = every.expand(len(part), -1) if together else column[part][:, None]
        cells = (places[row[part]], prompt[part], where)
        logits = (
            _pass(model, modules, maps, target, source, *cells) if target.kept else _whole_pass(model, target, source, *cells)
        )
        out[row[part], prompt[part], column[part]] = score(logits, prompt[part])
    return out.transpose(0, 1)


def _passes(
    layers: torch.nn.ModuleList, target: Reading, place: torch.Tensor, column: torch.Tensor, most: int
) -> list[torch.Tensor]:
    """Which cells go together: those of tokens that follow each other, in order of their places, at most so many.

    Rows of a pass start at its first token. Where the next pass begins is chosen so that operations and calls of blocks
    together cost least.
    """
    if target.kept is None:
        return list(torch.arange(len(place), device=place.device).split(most))
    count, last = len(target.states) - 1, target.columns
    each = 2.0 * sum(weights.numel() for weights in layers[-1].parameters())  # operations for a token
    call = CALL.get(place.device.type, 1e10)
    tokens = column.unique().tolist()
    left = [count - place[column == token] for token in tokens]
    runs, deepest = [int(found.sum()) for found in left], [int(found.max()) for found in left]
    least, after = [0.0] * (len(tokens) + 1), [0] * len(tokens)
    for a in reversed(range(len(tokens))):
        costs = [
            sum(runs[a:b]) * (last - tokens[a]) * each + (max(deepest[a:b]) + 1) * call + least[b]
            for b in range(a + 1, len(tokens) + 1)
        ]
        least[a] = min(costs)
        after[a] = a + 1 + costs.index(least[a])
    parts, a = [], 0
    while a < len(tokens):
        cells = ((column >= tokens[a]) & (column <= tokens[after[a] - 1])).nonzero()[:, 0]
        parts += cells[torch.argsort(place[cells], stable=True)].split(most)
        a = after[a]
    return parts


def _pass(
    model: Any, layers: torch.nn.ModuleList, last_maps: Sequence[torch.nn.Module], target: Reading, source: torch.Tensor,
    place: torch.Tensor, prompt: torch.Tensor, columns: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Logits (rows, words) of the target's run where row k has the source's states at its place and its columns.

    Places count from 0, the embedding's output; `place`: (rows,), in order; `prompt`: (rows,); `columns`: (rows, changed);
    `last_maps`: that read the last token alone.
    """
    rows, count, lowest, first = len(place), len(target.states) - 1, int(place[0]), int(columns.min())
    start = target.ids.shape[1] - target.columns + first
    began = torch.bincount(place, minlength=count + 1).cumsum(0).tolist()  # rows at each place

    def joining(number: int) -> torch.Tensor:
        mine = slice(began[number - 1] if number else 0, began[number])
        where = columns[mine]
        row = torch.arange(len(where), device=where.device)[:, None].expand_as(where)
        vectors = source[number, prompt[mine, None], where].flatten(0, 1)
        plain = target.states[number, prompt[mine], first:]
        return placing(vectors, row.reshape(-1), where.reshape(-1) - target.columns)(plain)

    def grown(number: int) -> Change:
        return lambda states: torch.cat([states, joining(number).to(states)]) if began[number] > began[number - 1] else states

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if lowest:
            stack.enter_context(skipping(model, lowest, joining(lowest), several=target.several))
        else:
            stack.enter_context(hooked(model, {embedding(model): _beginning_with(joining(0))}))
        stack.enter_context(_with_rows(model, layers, rows, began, lowest))
        stack.enter_context(hooked(model, {layers[n]: grown(n) for n in range(lowest + 1, count)}, inputs=True))
        if lowest < count:
            stack.enter_context(hooked(model, {layers[-1]: grown(count)}))
            stack.enter_context(hooked(model, dict.fromkeys(last_maps, _last_token), inputs=True))
        stack.enter_context(_last_logits(model))
        mask = torch.ones(rows, target.ids.shape[1], dtype=torch.long, device=target.ids.device)
        cache = {_cache_name(model): _shared_cache(target, prompt, start)}
        out = model(input_ids=target.ids[prompt, start:], attention_mask=mask, use_cache=True, **cache)
        return out.logits[:, -1].float()


@contextmanager
def _with_rows(model: Any, layers: torch.nn.ModuleList, rows: int, began: Sequence[int], lowest: int) -> Iterator[None]:
    """Gives each block, of all that a pass prepares for its rows (masks, positions), what is of the rows that have begun."""
    heads = model.config.get_text_config(decoder=True).num_attention_heads

    def cut(value: Any, live: int) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) in (rows, rows * heads):
            return value[: live * (len(value) // rows)]
        if isinstance(value, dict):
            return {name: cut(each, live) for name, each in value.items()}
        return type(value)(cut(each, live) for each in value) if type(value) in (tuple, list) else value

    def reduced(live: int) -> Callable[..., Any]:
        def run(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return cut(given, live), cut(named, live)

        return run

    handles = [
        module.register_forward_pre_hook(reduced(began[number]), with_kwargs=True)
        for number, module in enumerate(layers)
        if number >= lowest
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shared_cache(target: Reading, prompt: torch.Tensor, start: int) -> DynamicCache:
    """Keys and values of the tokens before `start`, of each row's prompt: copied as a block asks for them."""
    assert target.kept is not None
    cache = DynamicCache([tuple(part[:1, :, :start] for part in pair) for pair in target.kept])

    def joined(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        both = new.new_empty(*new.shape[:2], start + new.shape[2], new.shape[3])
        torch.index_select(old[:, :, :start], 0, prompt[: len(new)], out=both[:, :, :start])
        both[:, :, start:] = new
        return both

    def updating(pair: tuple[torch.Tensor, torch.Tensor]) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        return lambda keys, values, *_, **__: (joined(pair[0], keys), joined(pair[1], values))

    for layer, pair in zip(cache.layers, target.kept, strict=True):
        layer.update = updating(pair)
    return cache


def _whole_pass(
    model: Any, target: Reading, source: torch.Tensor, place: torch.Tensor, prompt: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """As `_pass`, over whole prompts, for models that keep no keys and values of all tokens."""

    def put(number: int) -> Change:
        mine = (place == number).nonzero()[:, 0]
        row, column = (part.reshape(-1) for part in torch.broadcast_tensors(mine[:, None], columns[mine]))
        return placing(source[number, prompt[row], column], row, column - target.columns)

    changes = {number - 1: put(number) for number in place.unique().tolist() if number}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(hooked(model, {embedding(model): _ending_in(put(0)(target.states[0, prompt]))}))
        stack.enter_context(hooked(model, changes))
        stack.enter_context(_last_logits(model))
        ids = target.ids[prompt]
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1].float()


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


def _last_token(states: torch.Tensor) -> torch.Tensor:
    return states[:, -1:]


def _last_logits(model: Any) -> Any:
    """Logits after the last token alone."""
    return hooked(model, {unembedding(model): _last_token}, inputs=True)


def _last_maps(model: Any) -> list[torch.nn.Module]:
    """The maps into the last block's MLP, of which the last token alone is needed: what they make of it is added to others as
    well, which come out wrong and are not read. None of a mixture of experts."""
    try:
        found = mlp(model, len(blocks(model)) - 1)
    except InputError:
        return []
    return [each for each in (found.up, found.gate) if each is not None]


def _ending_in(last: torch.Tensor) -> Change:
    return lambda states: torch.cat([states[:, : states.shape[1] - last.shape[1]], last.to(states)], 1)


def _beginning_with(first: torch.Tensor) -> Change:
    return lambda states: torch.cat([first.to(states), states[len(first) :]])
