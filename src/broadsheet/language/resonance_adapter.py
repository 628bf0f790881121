"""The memory of `broadsheet.language.resonance` beside any Hugging Face causal model's attention, and with its cache."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers.cache_utils import Cache

from broadsheet.errors import InputError
from broadsheet.language.anatomy import attention, blocks, embedding
from broadsheet.language.resonance import FORMS, RULES, Scan, resonance_scan, unit

NAME = "resonance"
"""What the memory is called within the attention that it stands beside."""


@dataclass(frozen=True)
class SynapticResonanceConfig:
    """What memory a model gets.

    **Fields:** `layers`: blocks, from 0, all where None; `heads`: memories a block, as many as its attention has where None;
    `lam`: share that a token keeps, learned for each head with `learn_lam`; `eta`, `kappa`: strength of a write, and how much
    stronger full resonance makes it; `rule`: `"hebb"` or `"delta"`, which overwrites; `key`: a value is stored under the
    `"previous"` token, or under its `"current"` one; `form`, `chunk`, `refine`, `bptt`, `stop_gradient`: as of
    `resonance_scan`; `reset`: a call without a cache begins with an empty memory, not with what the call before it left.
    """

    layers: tuple[int, ...] | None = None
    heads: int | None = None
    lam: float = 0.98
    eta: float = 1.0
    kappa: float = 0.5
    rule: Literal["hebb", "delta"] = "hebb"
    key: Literal["previous", "current"] = "previous"
    learn_lam: bool = False
    form: Literal["chunk", "loop", "parallel"] = "chunk"
    chunk: int = 32
    refine: int | None = None
    bptt: int | None = 256
    stop_gradient: bool = True
    reset: bool = True

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.rule not in RULES or self.form not in FORMS or self.key not in ("previous", "current"):
            raise InputError(
                f"rule is {self.rule!r}, form {self.form!r} and key {self.key!r}; {', '.join(RULES)}, {', '.join(FORMS)} and "
                "previous or current are there."
            )
        if not 0 < self.lam <= 1 or self.eta < 0 or self.kappa < 0:
            raise InputError(
                f"lam is {self.lam}, eta {self.eta} and kappa {self.kappa}; lam is in (0, 1] and none is negative."
            )


@dataclass
class ResonanceState:
    """The memory of a layer between calls.

    **Fields:** `S`: (batch, heads, key width, value width); `h_prev`: the last token's hidden state (batch, width). Both are
    None while nothing was read.
    """

    S: torch.Tensor | None = None
    h_prev: torch.Tensor | None = None

    def reset(self) -> None:
        """Empties the memory."""
        self.S = self.h_prev = None

    def take(self, rows: torch.Tensor) -> None:
        """Keeps rows of the batch, in this order; a row may come more than once."""
        if self.S is not None and self.h_prev is not None:
            self.S, self.h_prev = self.S[rows.to(self.S.device)], self.h_prev[rows.to(self.h_prev.device)]

    @property
    def batch(self) -> int:
        """The rows that it remembers."""
        return 0 if self.S is None else len(self.S)


@dataclass
class _Call:
    """What all memories of a model know of the call that is under way, and of the model before they came."""

    config: SynapticResonanceConfig
    learning: tuple[str, ...] = ()
    mask: torch.Tensor | None = None
    handle: Any = None

    def look(self, decoder: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Keeps the mask of padding, before the model makes that of attention from it."""
        self.mask = inspect.signature(decoder.forward).bind_partial(*given, **named).arguments.get("attention_mask")
        if self.mask is not None and (not isinstance(self.mask, torch.Tensor) or self.mask.ndim != 2):
            raise InputError("The memory needs a mask of padding, (batch, tokens), or none; this one is made for attention.")


class SynapticResonance(torch.nn.Module):
    """The memory of one block: reads hidden states (batch, tokens, width), gives what is added to the attention's output.

    `memory` makes keys and queries, `value` what is stored, `relevance` how much of it, and `out` maps what is read back.
    `gamma`, one a head, is 0 at first: a model with a new memory is the model without it.
    """

    def __init__(self, layer: int, width: int, heads: int, call: _Call) -> None:
        super().__init__()
        config = call.config
        self.layer, self.heads, self.call = layer, heads, call
        self.memory = torch.nn.Linear(width, width, bias=False)
        self.value = torch.nn.Linear(width, width, bias=False)
        self.relevance = torch.nn.Linear(width, heads)
        self.out = torch.nn.Linear(width, width, bias=False)
        self.gamma = torch.nn.Parameter(torch.zeros(heads))
        torch.nn.init.zeros_(self.relevance.bias)
        torch.nn.init.eye_(self.out.weight)
        if config.learn_lam:
            self.lam = torch.nn.Parameter(torch.logit(torch.tensor(config.lam), 1e-6).repeat(heads))
        self.state = ResonanceState()
        self.handle: Any = None

    def forward(
        self, h: torch.Tensor, state: ResonanceState | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ResonanceState, Scan, torch.Tensor]:
        """(what is added to the attention's output, the state after it, the scan, relevance (batch, heads, tokens)).

        Of tokens where `mask` (batch, tokens) is 0 nothing is stored, and the token after them has none before it.
        """
        config, state = self.call.config, state or ResonanceState()
        with torch.autocast(h.device.type, enabled=False):
            kind = self.memory.weight.dtype
            x = h.to(kind)
            if mask is not None:
                x = x * mask[..., None].to(kind)
            exact = torch.promote_types(kind, torch.float32)
            q, v = (self._split(found(x)).to(exact) for found in (self.memory, self.value))
            k = q = unit(q)
            if config.key == "previous":  # a key is the query of the token before
                first = torch.zeros_like(q[:, :, :1])
                if state.h_prev is not None:
                    first = unit(self._split(self.memory(state.h_prev[:, None])).to(exact))
                k = torch.cat([first, q[:, :, :-1]], 2)
            r = torch.sigmoid(self.relevance(x)).mT.to(exact)
            if mask is not None:
                r = r * mask[:, None].to(exact)
            scan = resonance_scan(
                k, q, v, r, torch.sigmoid(self.lam) if config.learn_lam else config.lam, config.eta, config.kappa,
                state.S, rule=config.rule, form="loop" if h.shape[1] == 1 else config.form, chunk=config.chunk,
                refine=config.refine, bptt=config.bptt, stop_gradient=config.stop_gradient,
            )  # fmt: skip
            m = scan.m * torch.rsqrt(scan.m.square().mean(-1, keepdim=True) + 1e-6) * self.gamma[:, None, None]
            added = self.out(m.transpose(1, 2).flatten(2).to(kind)).to(h.dtype)
        return added, ResonanceState(scan.S, x[:, -1]), scan, r

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) by heads: (batch, heads, tokens, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def after_attention(self, module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> Any:
        """The attention's output with what is remembered added to it; a hook on the attention."""
        h = given[0] if given else named["hidden_states"]
        cache = next((found for found in (*given, *named.values()) if isinstance(found, Cache)), None)
        state = self._state(cache, h)
        mask = None if self.call.mask is None else self.call.mask[:, -h.shape[1] :]
        added, new, *_ = self(h, state, mask)
        if cache is not None:
            state.S, state.h_prev = new.S, new.h_prev
        elif not self.call.config.reset:
            self.state = ResonanceState(new.S.detach(), new.h_prev.detach())
        return (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added

    def _state(self, cache: Cache | None, h: torch.Tensor) -> ResonanceState:
        """The memory with which a call begins: of its cache, or of the call before it where memories stay, or empty."""
        if cache is None:
            return self.state if not self.call.config.reset and self.state.batch in (0, len(h)) else ResonanceState()
        layer = cache.layers[self.layer]
        if not hasattr(layer, "resonance"):
            kind: Any = type(layer)
            layer.__class__ = _remembering(kind)
            layer.resonance = ResonanceState()
        if layer.resonance.batch == 0 and int(layer.get_seq_length()) > h.shape[1]:
            raise InputError("This cache was filled without the memory; begin with a new one.")
        return layer.resonance


@functools.cache
def _remembering(kind: Any) -> type:
    """A kind of cache layer, with the memory beside its keys and values."""

    class Remembering(kind):
        _layer_type = None  # with a name it would take its parent's place in Transformers' table of layers
        resonance: ResonanceState

        def reset(self) -> None:
            super().reset()
            self.resonance.reset()

        def reorder_cache(self, beam_idx: torch.Tensor) -> None:
            super().reorder_cache(beam_idx)
            self.resonance.take(beam_idx)

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            super().batch_select_indices(indices)
            self.resonance.take(indices)

        def batch_repeat_interleave(self, repeats: int) -> None:
            super().batch_repeat_interleave(repeats)
            self.resonance.take(torch.arange(self.resonance.batch).repeat_interleave(repeats))

        def crop(self, tokens_to_remove: int) -> None:
            if tokens_to_remove:
                raise InputError("The memory cannot take back tokens, as assisted decoding asks; generate without it.")
            super().crop(tokens_to_remove)

    return Remembering


def memories(model: Any) -> dict[int, SynapticResonance]:
    """The memories of a model, by block; none where none were added."""
    return {found.layer: found for found in model.modules() if isinstance(found, SynapticResonance)}


def add_synaptic_resonance(
    model: Any, config: SynapticResonanceConfig | None = None, *, seed: int = 0, train_base: bool = False
) -> Any:
    """Adds a memory beside the attention of a causal model, in place, and returns the model, whose logits are as before.

    Its weights are drawn by the seed, in float32 where the model has less. With `train_base` off, the model's own weights do
    not learn until the memory is removed. A state is kept with each cache: generation is the whole pass, token by token.

    **Raises:** `InputError` for a model that has a memory already, lacks attention, or has no such block or number of heads.
    """
    config = config or SynapticResonanceConfig()
    if memories(model):
        raise InputError(f"This {type(model).__name__} has a memory already; remove it first.")
    chosen = range(len(blocks(model))) if config.layers is None else config.layers
    places = {layer: attention(model, layer) for layer in chosen}
    sizes = model.config.get_text_config(decoder=True)
    width, heads = sizes.hidden_size, config.heads or sizes.num_attention_heads
    if heads < 1 or width % heads:
        raise InputError(f"A width of {width} cannot be divided among {heads} heads.")
    exact = torch.promote_types(next(embedding(model).parameters()).dtype, torch.float32)
    call = _Call(config, tuple(name for name, part in model.named_parameters() if part.requires_grad))
    if not train_base:
        model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer, place in places.items():
            here = next(place.parameters())
            made = SynapticResonance(layer, width, heads, call).to(here.device, exact)
            made.train(model.training)
            place.add_module(NAME, made)
            made.handle = place.register_forward_hook(made.after_attention, with_kwargs=True)
    layers = blocks(model)
    decoder = next(found for found in model.modules() if any(child is layers for child in found.children()))
    call.handle = decoder.register_forward_pre_hook(call.look, prepend=True, with_kwargs=True)
    return model


def remove_synaptic_resonance(model: Any) -> Any:
    """Takes the memory out again, in place, and returns the model: as before, but for what its own weights learned meanwhile.

    **Raises:** `InputError` for a model without a memory.
    """
    found = _of(model)
    call = next(iter(found.values())).call
    call.handle.remove()
    for layer, memory in found.items():
        memory.handle.remove()
        delattr(attention(model, layer), NAME)
    for name, weights in model.named_parameters():
        weights.requires_grad_(name in call.learning)
    return model


@contextmanager
def watching(model: Any) -> Iterator[dict[int, tuple[Scan, torch.Tensor]]]:
    """(scan, relevance) of each memory, by block, in the last forward pass made within."""
    seen: dict[int, tuple[Scan, torch.Tensor]] = {}

    def keep(memory: Any, given: Any, out: Any) -> None:
        seen[memory.layer] = out[2:]

    handles = [memory.register_forward_hook(keep) for memory in _of(model).values()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def resonance_of(model: Any, ids: torch.Tensor, layer: int = 0) -> dict[str, np.ndarray]:
    """What a memory does with texts (rows, tokens): `relevance` and `rho` (rows, heads, tokens), and `S` after the last."""
    with watching(model) as seen, torch.no_grad():
        model(input_ids=ids, use_cache=False)
    scan, relevance = seen[layer]
    return {"relevance": relevance.numpy(), "rho": scan.rho.numpy(), "S": scan.S.numpy()}


def reset_memory(model: Any) -> None:
    """Empties the memories that stay between calls without a cache (`reset=False`)."""
    for memory in _of(model).values():
        memory.state.reset()


def _of(model: Any) -> dict[int, SynapticResonance]:
    found = memories(model)
    if not found:
        raise InputError(f"This {type(model).__name__} has no memory; add_synaptic_resonance adds one.")
    return found
