"""Activation patching: what a model says when one of its states is that of another run, of the same model or of another.

For pairs of a true and a false statement the false one is run with one state, at one block and one token, from the run of the
true one. D = logit(TRUE) - logit(FALSE) after the last token then says how much of what makes the statement true that state
carries: the map over blocks and tokens shows where knowledge is. After arXiv 2504.02904 and its code (MIT).

A map of L blocks and T tokens has L T cells, and one forward pass a cell is what it costs plainly. Here cells of all pairs,
positions and blocks share passes: a row of the batch is a cell. A pass starts at the first token that a row changes, over the
keys and values of the unpatched run, so that the examples before a statement are read once; and above the lowest block that a
row changes, from the unpatched run's states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, embedding, unembedding
from broadsheet.language.hooks import Change, hooked, placing, skipping
from broadsheet.language.models import positions
from broadsheet.language.patch_maps import PatchMap
from broadsheet.language.statement_pairs import TokenPairs

BUDGET = 2**28
"""Bytes of keys and values that the rows of a pass may copy."""


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
    """Runs prompts of one length (prompts, tokens), and keeps what patching needs of their last `columns` tokens.

    **Arguments:** `noise`: (prompts, columns, width), added to the embeddings of these tokens.

    **Raises:** `InputError` for tokens that have no embedding, more tokens than the model has positions, and logits that are
    not finite.
    """
    name, words = type(model).__name__, embedding(model).weight.shape[0]
    if int(ids.max()) >= words:
        raise InputError(f"The tokenizer gives the token {int(ids.max())}; the embedding of the {name} has {words}, from 0 on.")
    if (most := positions(model)) is not None and ids.shape[1] > most:
        raise InputError(f"A prompt of {ids.shape[1]} tokens is longer than the {name} has positions for, {most}.")
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
        places = dict.fromkeys((embedding(model), *blocks(model)), keep)
        with torch.no_grad(), hooked(model, {embedding(model): disturb}), hooked(model, places), _last_logits(model):
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    finally:
        handle.remove()
    logits = out.logits[:, -1].float()
    if not torch.isfinite(logits).all():
        raise InputError(f"The {name} gives NaN or infinity (half precision overflows: read it as float32).")
    return Reading(ids, torch.stack(found), logits, _kept(out, len(found) - 1, ids.shape[1]), forms[-1])


def patched(
    model: Any,
    target: Reading,
    source: torch.Tensor,
    true_ids: torch.Tensor,
    false_ids: torch.Tensor,
    *,
    layers: Sequence[int] | None = None,
    together: bool = False,
    rows: int | None = None,
) -> torch.Tensor:
    """D = logit(true) - logit(false) (prompts, layers, columns) where one state of a run at a time is another run's.

    Cells whose patch changes nothing that is read afterwards are the unpatched run's D: where both runs have the same state,
    and all tokens but the last at the last block.

    **Arguments:** `target`: the model's own run; `source`: states (blocks + 1, prompts, columns, width) to be put in;
    `true_ids`, `false_ids`: (prompts,); `layers`: blocks, -1 the embedding, by default all of these; `together`: all columns of
    a layer at once, which gives one column; `rows`: cells of a pass, by default as many as `BUDGET` has room for.

    **Raises:** `InputError` for states of another shape, and a layer that does not exist.
    """
    if source.shape != target.states.shape:
        raise InputError(
            f"States of {source.shape[0] - 1} blocks and width {source.shape[-1]} cannot be put into a {type(model).__name__} "
            f"of {target.states.shape[0] - 1} blocks and width {target.states.shape[-1]}."
        )
    chosen = tuple(range(-1, len(source) - 1)) if layers is None else tuple(layers)
    if wrong := [layer for layer in chosen if not -1 <= layer < len(source) - 1]:
        raise InputError(f"Block {wrong[0]} does not exist; the model has {len(source) - 1}, counted from 0, -1 the embedding.")
    source, true_ids, false_ids = (part.to(target.states.device) for part in (source, true_ids, false_ids))
    changes = (source != target.states).any(-1)
    changes[-1, :, :-1] = False
    if together:
        changes = changes.any(-1, keepdim=True)
    taken = torch.tensor([layer + 1 for layer in chosen], device=source.device)
    out = _difference(target.logits, true_ids, false_ids)[None, :, None].repeat(len(chosen), 1, changes.shape[2])
    row, prompt, column = changes[taken].nonzero(as_tuple=True)
    forth_and_back = torch.where(
        row % 2 == 0, column, changes.shape[2] - 1 - column
    )  # the rows of a pass start near each other
    order = torch.argsort(taken[row] * changes.shape[2] + forth_and_back, stable=True)
    for part in order.split(rows or _room(target)):
        at, who = taken[row[part]], prompt[part]
        columns = (
            torch.arange(target.columns, device=source.device).expand(len(part), -1) if together else column[part][:, None]
        )
        logits = _pass(model, target, source, at, who, columns)
        out[row[part], who, column[part]] = _difference(logits, true_ids[who], false_ids[who])
    return out.transpose(0, 1)


def _pass(
    model: Any, target: Reading, source: torch.Tensor, place: torch.Tensor, prompt: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Logits (rows, words) of the target's run where row k has the source's states at a place and some columns.

    Places count from 0, the embedding's output; `place`, `prompt`: (rows,); `columns`: (rows, patched).
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
    cache = out.get("cache", out.get("past_key_values"))
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
    return min(512, max(1, BUDGET // row))


def _last_logits(model: Any) -> Any:
    """Logits after the last token alone."""
    return hooked(model, {unembedding(model): lambda states: states[:, -1:]}, inputs=True)


def _ending_in(last: torch.Tensor) -> Change:
    return lambda states: torch.cat([states[:, : states.shape[1] - last.shape[1]], last.to(states)], 1)


def _difference(logits: torch.Tensor, true_ids: torch.Tensor, false_ids: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, true_ids] - logits[rows, false_ids]


Combination = tuple[str, str]
"""Whose states are put into whose run."""


def patch_models(
    models: Mapping[str, Any],
    pairs: TokenPairs,
    combinations: Sequence[Combination],
    *,
    layers: Sequence[int] | None = None,
    together: bool = False,
    rows: int | None = None,
    block: int = 64,
    report: Callable[[float], None] = lambda share: None,
) -> dict[Combination, PatchMap]:
    """Maps of all pairs for combinations of models, each of which reads a pair's two prompts once.

    States of `block` pairs at a time are in memory.

    **Arguments:** `models`: by name; `combinations`: ("base", "base") is patching within a model, ("base", "sft") puts base's
    states of the true statement into SFT's run of the false one; the others as for `patched`.

    **Raises:** `InputError` as `read` and `patched` do.
    """
    parts: dict[Combination, list[PatchMap]] = {which: [] for which in combinations}
    for done, some in _blocks(pairs, block):
        needed = {kind: {which[end] for which in combinations} for end, kind in enumerate(("true", "false"))}
        true = {name: read(models[name], some.true, some.columns) for name in needed["true"]}
        false = {name: read(models[name], some.false, some.columns) for name in needed["false"]}
        for number, (source, target) in enumerate(combinations):
            ids = some.answers or (true[source].logits.argmax(-1), false[target].logits.argmax(-1))
            asked = [torch.as_tensor(part).expand(len(some)).to(some.true.device) for part in ids]
            differences = patched(
                models[target], false[target], true[source].states.to(false[target].states.device), *asked,
                layers=layers, together=together, rows=rows,
            )  # fmt: skip
            count = len(true[source].states) - 1
            parts[source, target].append(
                PatchMap(
                    differences.cpu().numpy(),
                    unpatched=_read_difference(false[target], asked),
                    source=_read_difference(true[source], asked),
                    layers=tuple(range(-1, count)) if layers is None else tuple(layers),
                    columns=some.names,
                    different=some.different.numpy(),
                )
            )
            report((done + len(some) * (number + 1) / len(combinations)) / len(pairs))
    return {which: PatchMap.joined(found) for which, found in parts.items()}


def _blocks(pairs: TokenPairs, size: int) -> Iterator[tuple[int, TokenPairs]]:
    for start in range(0, len(pairs), size):
        yield start, pairs[start : start + size]


def _read_difference(reading: Reading, ids: Sequence[torch.Tensor]) -> np.ndarray:
    return _difference(reading.logits, *(part.to(reading.logits.device) for part in ids)).cpu().numpy()


def activation_patching(source: Any, target: Any, pairs: TokenPairs, **options: Any) -> PatchMap:
    """The map of one model's states put into another's run, or its own.

    ```python
    [pairs], _ = tokenize_pairs(words, read_statement_pairs("pairs.csv"))
    found = activation_patching(model, model, pairs)
    found.mean  # D (layers, tokens), logits
    ```

    **Arguments:** as of `patch_models`.

    **Raises:** `InputError` as `patch_models` does.
    """
    return patch_models({"source": source, "target": target}, pairs, [("source", "target")], **options)["source", "target"]
