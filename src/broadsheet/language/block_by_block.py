"""Running a causal language model block by block over many texts, with the states of one place in memory or in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, linear_maps, path_of
from broadsheet.language.models import check_tokens, within_positions

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a block is called with besides hidden states: positional and named arguments."""


class TokenStates:
    """States (rows, tokens, width) of all texts at one place of a model; indexed by a slice or by indices of rows.

    **Arguments:** `file`: where they are kept instead of in memory; rows are then read and written as they are asked for.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, file: Path | None = None) -> None:
        self.shape, self.dtype = shape, dtype
        self._bytes = shape[1] * shape[2] * torch.empty((), dtype=dtype).element_size()
        self._file = None if file is None else file.open("w+b")
        self._memory = torch.empty(shape, dtype=dtype) if file is None else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        if self._memory is not None:
            return self._memory[rows]
        assert self._file is not None
        chosen = self._chosen(rows)
        held = bytearray(b"".join(os.pread(self._file.fileno(), self._bytes, row * self._bytes) for row in chosen))
        return torch.frombuffer(held, dtype=self.dtype).reshape(len(chosen), *self.shape[1:])

    def __setitem__(self, rows: slice, states: torch.Tensor) -> None:
        if self._memory is not None:
            self._memory[rows] = states.to("cpu", self.dtype)
            return
        assert self._file is not None
        content = states.to("cpu", self.dtype).contiguous().view(torch.uint8).numpy().tobytes()
        os.pwrite(self._file.fileno(), content, self._chosen(rows)[0] * self._bytes)

    def _chosen(self, rows: slice | torch.Tensor) -> list[int]:
        return list(range(len(self)))[rows] if isinstance(rows, slice) else rows.tolist()

    def close(self) -> None:
        """Gives the memory or the disk back."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
        self._memory = None


class _Stop(Exception):
    pass


class Walk:
    """A model, and token rows of one length, block by block.

    Blocks are called as the model itself calls them, with its masks and embeddings of positions.

    **Arguments:** `ids`: tokens (rows, tokens); `batch`: rows that go through a block at once; `folder`: where states are kept,
    instead of in memory.

    **Raises:** `InputError` for tokens or positions that the model does not have, and where blocks are called with anything
    that depends on the text, besides their hidden states.
    """

    def __init__(self, model: Any, ids: torch.Tensor, *, batch: int = 8, folder: Path | None = None) -> None:
        check_tokens(model, ids.tolist())
        self.model, self.ids, self.folder = model, ids, folder
        self.batch = min(batch, len(ids))
        self.blocks = list(blocks(model))
        self.device = next(model.parameters()).device
        self._calls: dict[int, list[Call]] = {}
        self._made = 0
        other = ids.flip(0) if len(ids) > 1 else ids.flip(1)
        here, there = self._watch(ids[: self.batch]), self._watch(other[: self.batch])
        for layer, (one, same) in enumerate(zip(here, there, strict=True)):
            if not _equal(one, same):
                raise InputError(
                    f"Block {layer} of a {type(model).__name__} gets more of a text than hidden states; it cannot run alone."
                )
        self._calls[self.batch] = here

    def maps(self, layer: int) -> dict[str, torch.nn.Module]:
        """The linear maps of a block, by their names within it."""
        start = path_of(self.model, self.blocks[layer])
        return {path.removeprefix(f"{start}."): found for path, found in linear_maps(self.model, layer).items()}

    def batches(self) -> Iterator[slice]:
        """The rows, as many at once as a batch has."""
        for start in range(0, len(self.ids), self.batch):
            yield slice(start, min(start + self.batch, len(self.ids)))

    def states(self, width: int) -> TokenStates:
        """Room for the states of all rows, of a width."""
        self._made += 1
        file = None if self.folder is None else self.folder / f"states-{self._made}.bin"
        return TokenStates((*self.ids.shape, width), next(self.model.parameters()).dtype, file)

    def embedded(self) -> TokenStates:
        """The inputs of the first block."""
        found: TokenStates | None = None
        for rows in self.batches():
            states: list[torch.Tensor] = []
            self._run(self.ids[rows], {0: lambda args, named, kept=states: kept.append(_hidden(args, named))})
            found = found or self.states(states[0].shape[-1])
            found[rows] = states[0]
        assert found is not None
        return found

    def block(self, layer: int, states: torch.Tensor, weights: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """The output of a block, with other weights of its parts (name within the block -> weights) where they are given."""
        if len(states) not in self._calls:
            self._calls[len(states)] = self._watch(self.ids[: len(states)])
        args, named = self._calls[len(states)][layer]
        states = states.to(self.device)
        if "hidden_states" in named:
            named = named | {"hidden_states": states}
        else:
            args = (states, *args[1:])
        out = torch.func.functional_call(self.blocks[layer], weights or {}, args, named)
        return out[0] if isinstance(out, tuple) else out

    @torch.no_grad()
    def outputs(
        self, layer: int, states: TokenStates, weights: dict[str, torch.Tensor] | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, outputs) of a block, a batch at a time; `weights` as of `block`."""
        for rows in self.batches():
            yield rows, self.block(layer, states[rows], weights)

    def advance(self, layer: int, states: TokenStates, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Puts the outputs of a block in the place of its inputs."""
        for rows, out in self.outputs(layer, states, weights):
            states[rows] = out

    def _watch(self, ids: torch.Tensor) -> list[Call]:
        """How each block is called."""
        calls: list[Call] = []

        def keep(args: tuple[Any, ...], named: dict[str, Any]) -> None:
            calls.append(_without_states(args, named))

        self._run(ids, dict.fromkeys(range(len(self.blocks)), keep))
        return calls

    @torch.no_grad()
    def _run(self, ids: torch.Tensor, looks: dict[int, Callable[..., None]]) -> None:
        """Runs the model as far as the last block that is looked at."""
        last = max(looks)

        def hook(layer: int) -> Callable[..., None]:
            def look(module: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
                looks[layer](args, named)
                if layer == last:
                    raise _Stop

            return look

        handles = [self.blocks[k].register_forward_pre_hook(hook(k), with_kwargs=True) for k in looks]
        try:
            with within_positions(self.model, ids.shape[1]):
                self.model(input_ids=ids.to(self.device), use_cache=False)
        except _Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """A model in evaluation mode, without derivatives by its weights; as it was before, afterwards."""
    training, wanted = model.training, [part.requires_grad for part in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for part, needs in zip(model.parameters(), wanted, strict=True):
            part.requires_grad_(needs)


def _hidden(args: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    return named["hidden_states"] if "hidden_states" in named else args[0]


def _without_states(args: tuple[Any, ...], named: dict[str, Any]) -> Call:
    """The arguments, with nothing in the place of the hidden states."""
    if "hidden_states" in named:
        return args, named | {"hidden_states": None}
    return (None, *args[1:]), named


def _equal(one: Any, other: Any) -> bool:
    """Whether arguments are the same in every tensor."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return True
