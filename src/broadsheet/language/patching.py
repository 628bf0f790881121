"""Activation patching: what a model says when one of its states is that of another run, of the same model or of another.

For pairs of a true and a false statement the false one is run with one state, after one block and at one token, from the run of
the true one. D = logit(TRUE) - logit(FALSE) after the last token then says how much of what makes the statement true that state
carries: the map over blocks and tokens shows where knowledge is. After arXiv 2504.02904 and its code (MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from broadsheet.errors import InputError
from broadsheet.language.patch_maps import PatchMap
from broadsheet.language.patched_runs import Reading, Score, difference, patched, read
from broadsheet.language.statement_pairs import TokenPairs

Combination = tuple[str, str]
"""Whose states are put into whose run."""


def patch_models(
    models: Mapping[str, Any],
    pairs: TokenPairs,
    combinations: Sequence[Combination],
    *,
    layers: Sequence[int] | None = None,
    together: bool = False,
    all_cells: bool = False,
    rows: int | None = None,
    block: int = 64,
    report: Callable[[float], None] = lambda share: None,
) -> dict[Combination, PatchMap]:
    """Maps of all pairs for combinations of models, each of which reads a pair's two prompts once.

    Where the pairs have no answers (the model is to say the last word), D is between what the source says of the true statement
    and what the target says of the false one. States of `block` pairs at a time are in memory.

    **Arguments:** `models`: by name; `combinations`: ("base", "base") is patching within a model, ("base", "sft") puts base's
    states of the true statement into SFT's run of the false one; the others as for `patched_runs.patched`.

    **Raises:** `InputError` as `patched_runs.read` and `patched` do.
    """
    parts: dict[Combination, list[PatchMap]] = {which: [] for which in combinations}
    for start in range(0, len(pairs), block):
        some = pairs[start : start + block]
        sources, targets = ({which[k] for which in combinations} for k in (0, 1))
        both = {name: read(models[name], torch.cat([some.true, some.false]), some.columns) for name in sources & targets}
        true = {name: found[: len(some)] for name, found in both.items()}
        true |= {name: read(models[name], some.true, some.columns) for name in sources - targets}
        false = {name: found[len(some) :] for name, found in both.items()}
        false |= {name: read(models[name], some.false, some.columns) for name in targets - sources}
        for number, (source, target) in enumerate(combinations):
            score = _score(some, true[source], false[target])
            found = patched(
                models[target], false[target], true[source].states, score,
                layers=layers, together=together, all_cells=all_cells, rows=rows,
            )  # fmt: skip
            parts[source, target].append(_map(found, some, layers, score, true[source], false[target], together))
            report((start + len(some) * (number + 1) / len(combinations)) / len(pairs))
    return {which: PatchMap.joined(found) for which, found in parts.items()}


def activation_patching(source: Any, target: Any, pairs: TokenPairs, **options: Any) -> PatchMap:
    """The map of one model's states put into another's run, or its own.

    ```python
    pairs, _ = read_statement_pairs("pairs.csv", words)
    [prompts, *_], _ = tokenize_pairs(words, pairs)
    found = activation_patching(model, model, prompts)
    found.mean  # D (layers, tokens), logits
    ```

    **Arguments:** as of `patch_models`.

    **Raises:** `InputError` as `patch_models` does.
    """
    return patch_models({"source": source, "target": target}, pairs, [("source", "target")], **options)["source", "target"]


def noise_patching(model: Any, pairs: TokenPairs, *, scale: float = 0.05, seed: int = 1, **options: Any) -> PatchMap:
    """The map of a statement's own states put back into its run with a noisy subject, over the true and the false statements.

    The subject is what lies between the first and the last token in which the two statements of a pair differ. D is the right
    answer's logit less the wrong one's. The noise is normal, its standard deviation `scale` times the size of each number.

    **Arguments:** `options`: `layers`, `together`, `all_cells`, `rows` of `patched_runs.patched`.

    **Raises:** `InputError` for pairs without answers, and as `patch_models` does.
    """
    if pairs.answers is None:
        raise InputError("Patching with noise needs prompts that are answered with TRUE or FALSE.")
    dice, parts = torch.Generator().manual_seed(seed), []
    order = torch.arange(pairs.columns)
    changed = pairs.different
    first, last = (order.where(changed, fill).aminmax(dim=1) for fill in (torch.tensor(pairs.columns), torch.tensor(-1)))
    subject = (order >= first.min[:, None]) & (order <= last.max[:, None])
    for ids, answers in ((pairs.true, pairs.answers), (pairs.false, pairs.answers[::-1])):
        clean = read(model, ids, pairs.columns)
        size = clean.states[0].abs().cpu()
        noise = scale * torch.randn(size.shape, generator=dice) * size * subject[..., None]
        noisy = read(model, ids, pairs.columns, noise=noise.to(clean.states.device))
        score = difference(*(torch.full((len(ids),), answer) for answer in answers))
        found = patched(model, noisy, clean.states, score, **options)
        parts.append(_map(found, pairs, options.get("layers"), score, clean, noisy, options.get("together", False)))
    return PatchMap.joined(parts)


def _score(pairs: TokenPairs, source: Reading, target: Reading) -> Score:
    if pairs.answers is None:
        return difference(source.logits.argmax(-1), target.logits.argmax(-1))
    return difference(*(torch.full((len(pairs),), answer) for answer in pairs.answers))


def _map(
    found: torch.Tensor,
    pairs: TokenPairs,
    layers: Sequence[int] | None,
    score: Score,
    source: Reading,
    target: Reading,
    together: bool,
) -> PatchMap:
    every = torch.arange(len(pairs), device=found.device)
    return PatchMap(
        found.cpu().numpy(),
        unpatched=score(target.logits, every).cpu().numpy(),
        source=score(source.logits.to(found.device), every).cpu().numpy(),
        layers=tuple(range(-1, len(source.states) - 1)) if layers is None else tuple(layers),
        columns=("all",) if together else pairs.names,
        different=pairs.different.any(1, keepdim=True).numpy() if together else pairs.different.numpy(),
    )
