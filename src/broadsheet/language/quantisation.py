"""Post-training quantisation of the weights of any causal language model, decoder block by decoder block.

Five ways to choose the integers, from one loop and at one budget: round to nearest, GPTQ (arXiv 2210.17323), AdaRound
(2004.10568), AdaQuant (2006.10518) and FlexRound (2306.00317). Embeddings, norms and the unembedding stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from broadsheet.cache import writing
from broadsheet.errors import InputError
from broadsheet.language.anatomy import matrix, path_of
from broadsheet.language.block_by_block import TokenStates, Walk, inference
from broadsheet.language.models import check_finite, check_tokens, log_probabilities, positions, tokenize
from broadsheet.language.quantisers import Integers, RoundToNearest, Scheme
from broadsheet.language.reconstruction import FirstGrid, Plan, Weights, as_weights, quantise_block

Progress = Callable[[float, str], None]
Tokens = torch.Tensor | np.ndarray


@dataclass
class Quantised:
    """What became of a model's matrices: path -> integers; and the error of each block, in order.

    An error is the squared difference of a block's output, in the quantised model, to what it was, over its squared size;
    `nearest` is what rounding to nearest would have made it, after the same blocks before.
    """

    plan: Plan
    integers: dict[str, Integers] = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)
    nearest: list[float] = field(default_factory=list)
    seconds: float = 0.0


def windows(model: Any, tokenizer: Any, texts: Sequence[str], length: int) -> torch.Tensor:
    """Texts, one behind the other with the tokenizer's end between them, cut into windows of tokens: (windows, length).

    Texts that are shorter together make one window.

    **Raises:** `InputError` where there are fewer than two tokens, or one has no embedding.
    """
    length = min(length, positions(model) or length)
    stream: list[int] = []
    for start in range(0, len(texts), 256):
        for row in tokenize(tokenizer, texts[start : start + 256], 10**6):
            ended = tokenizer.eos_token_id is None or tokenizer.eos_token_id in (row[-1], *stream[-1:])
            stream += row if ended or not stream else [tokenizer.eos_token_id, *row]
    if len(stream) < 2:
        raise InputError(f"The {len(texts)} texts have {len(stream)} tokens; two or more are wanted.")
    check_tokens(model, [stream])
    length = min(length, len(stream))
    return torch.tensor(stream[: len(stream) // length * length]).reshape(-1, length)


def perplexity(model: Any, ids: Tokens, *, batch: int = 8) -> float:
    """exp of the mean loss of tokens (rows, tokens), those that begin a row left out."""
    ids = torch.as_tensor(ids)
    device = next(model.parameters()).device
    with torch.no_grad():
        total = sum(float(-log_probabilities(model, part.to(device)).double().sum()) for part in ids.split(batch))
    return float(torch.tensor(total / (ids.numel() - len(ids))).exp())


def peak_mb(device: torch.device) -> float:
    """The largest memory of this process so far, MB, with that of its tensors on an accelerator."""
    import resource  # which not every system has

    held = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + held


def quantize_hf(
    model: Any, tokenizer: Any, calib_texts: Sequence[str], scheme: Scheme | None = None, *, length: int = 1024, **options: Any
) -> Quantised:
    """Quantises the linear maps of a model's blocks, in place, after texts.

    ```python
    made = quantize_hf(model, tokenizer, texts, Scheme(bits=4), method="flexround", iters=1000)
    write_compressed("small", model, tokenizer, made)
    ```

    **Arguments:** `calib_texts`: what the model is to do as before; `scheme`: the grids, by default 4 bits, symmetric, a
    step for each output; `length`: tokens of a window (see `windows`); `options`: those of `quantise`.

    **Raises:** `InputError` as `quantise` and `windows` do.
    """
    return quantise(model, windows(model, tokenizer, calib_texts, length), scheme or Scheme(), **options)


def quantise(
    model: Any,
    ids: Tokens,
    scheme: Scheme | None = None,
    *,
    folder: Path | None = None,
    report: Progress = lambda share, live: None,
    **options: Any,
) -> Quantised:
    """Quantises the linear maps of a model's blocks, in place, after token rows (rows, tokens).

    Two sets of states of all rows are held at once, those of the model as it was and of the quantised one, at the block that is
    worked on.

    **Arguments:** `folder`: keeps states in files there instead of in memory, and each block that is done, from which the same
    work goes on after an interruption; `report`: is told the share that is done, and what is worked on; `options`:

    - `method`: one of `METHODS`;
    - `granularity`: a whole `block` is reconstructed at once, or each `layer` (linear map) by itself;
    - `iters`, `lr`, `batch`: steps for each, the rate of Adam (by default the method's, `LEARNING_RATES`), rows of a step;
    - `seed`: of the order in which rows are taken;
    - `settings`: of the quantiser (`{"elementwise": False}`).

    **Raises:** `InputError` for an unknown method or granularity, a block without linear maps, inputs that do not divide into
    groups, or states that are not finite.
    """
    plan = Plan(scheme or Scheme(), **options)
    made, begun = Quantised(plan), time.perf_counter()
    with inference(model):
        walk = Walk(model, torch.as_tensor(ids), batch=plan.batch, folder=folder)
        _check(walk, plan.scheme)
        true = walk.embedded()
        ours = walk.states(true.shape[-1])
        for rows in walk.batches():
            ours[rows] = true[rows]
        for layer, block in enumerate(walk.blocks):

            def share(part: float, layer: int = layer) -> None:
                report((layer + part) / len(walk.blocks), f"block {layer + 1} of {len(walk.blocks)}")

            file = None if folder is None else folder / f"block-{layer:04d}.safetensors"
            if file is not None and file.is_file():
                integers, nearest = _read(file)
                walk.advance(layer, true)
            else:
                grids = {name: plan.scheme.grid(matrix(found)) for name, found in walk.maps(layer).items()}
                integers = quantise_block(walk, layer, grids, ours, true, plan, share)
                nearest = _error(walk, layer, ours, true, _nearest(walk, layer, grids, plan.scheme))
                if file is not None:
                    _write(file, integers, nearest)
            with torch.no_grad():
                for name, module in walk.maps(layer).items():
                    matrix(module).copy_(integers[name].values())
            made.errors.append(_error(walk, layer, ours, true, advance=True))
            made.nearest.append(nearest)
            start = path_of(model, block)
            made.integers |= {f"{start}.{name}": part for name, part in integers.items()}
            share(1.0)
        true.close()
        ours.close()
    made.seconds = time.perf_counter() - begun
    return made


def _check(walk: Walk, scheme: Scheme) -> None:
    """Raises `InputError` for what would fail hours later."""
    for layer in range(len(walk.blocks)):
        maps = walk.maps(layer)
        if not maps:
            raise InputError(f"Block {layer} of a {type(walk.model).__name__} has no linear maps to quantise.")
        for found in maps.values():
            scheme.granules(matrix(found))


def _nearest(walk: Walk, layer: int, grids: Mapping[str, FirstGrid], scheme: Scheme) -> Weights:
    """A block's weights rounded to nearest."""
    maps = walk.maps(layer)
    return as_weights(maps, {name: RoundToNearest(matrix(found), scheme, grids[name])() for name, found in maps.items()})


def _error(
    walk: Walk, layer: int, ours: TokenStates, true: TokenStates, weights: Weights | None = None, *, advance: bool = False
) -> float:
    """Squared difference of a block's outputs on `ours` to `true`, over its squared size; `advance` leaves them in `ours`."""
    wrong = size = 0.0
    for rows, out in walk.outputs(layer, ours, weights):
        check_finite(walk.model, out)
        wanted = true[rows].to(out.device).float()
        wrong += float((out.float() - wanted).square().sum())
        size += float(wanted.square().sum())
        if advance:
            ours[rows] = out
    return wrong / size


def _write(file: Path, integers: Mapping[str, Integers], nearest: float) -> None:
    tensors = {
        f"{name}:{kind}": getattr(part, kind) for name, part in integers.items() for kind in ("codes", "step", "zero")
    }  # fmt: skip
    with writing(file) as stream:
        stream.write(save({name: part.cpu().contiguous() for name, part in tensors.items()}, {"nearest": repr(nearest)}))


def _read(file: Path) -> tuple[dict[str, Integers], float]:
    with safe_open(file, "pt") as held:
        names = dict.fromkeys(key.rsplit(":", 1)[0] for key in held.keys())  # noqa: SIM118
        found = {name: Integers(*(held.get_tensor(f"{name}:{kind}") for kind in ("codes", "step", "zero"))) for name in names}
        return found, float(held.metadata()["nearest"])
