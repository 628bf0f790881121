"""Small language models with one memory or another, of equal parameters: what a memory is compared with, and their training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.resonance_adapter import SynapticResonanceConfig, add_synaptic_resonance, memories

FAST_WEIGHTS: dict[str, dict[str, Any]] = {
    "resonance": {},
    "kappa-0": {"kappa": 0.0},
    "shuffled": {},
    "linear-attention": {"kappa": 0.0, "lam": 1.0},
    "delta-rule": {"kappa": 0.0, "lam": 1.0, "rule": "delta"},
}
"""Settings of memories by name. `shuffled`: the relevance of a text's tokens is dealt out to them at random;
`linear-attention`: nothing fades and all is stored alike; `delta-rule`: DeltaNet's, which overwrites, with learned strengths
(both as fast weights in Schlag et al., 2021)."""
CHUNK = 48
"""Steps of a chunk of a small model's memory: its matrices are small, so that calls cost more than they do."""
KINDS = (*FAST_WEIGHTS, "no-memory", "longer-window", "lstm")


class LSTM(torch.nn.Module):
    """An LSTM language model; called as those of Hugging Face are."""

    def __init__(self, words: int, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(words, width)
        self.lstm = torch.nn.LSTM(width, hidden, batch_first=True)
        self.unembedding = torch.nn.Linear(hidden, words, bias=False)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.unembedding(self.lstm(self.embedding(input_ids))[0]))


def parameters(model: torch.nn.Module) -> int:
    """Their number."""
    return sum(weights.numel() for weights in model.parameters())


def memory_model(kind: str, sizes: Sizes, window: int, *, seed: int = 0, **settings: Any) -> Any:
    """A small decoder (Mistral's blocks) with a window of attention and a memory, or a rival with as many parameters.

    **Arguments:** `kind`: one of `KINDS`. `no-memory` has more neurons in its MLPs instead; `longer-window` too, and a window
    longer by the numbers of a memory's state; an `lstm` has one layer. `settings`: of the memory (`SynapticResonanceConfig`).

    **Raises:** `InputError` for an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"There is no model {kind!r}; {', '.join(KINDS)} are there.")
    width, heads = sizes.width, sizes.heads or 4
    added = 3 * width**2 + (width + 2) * heads  # parameters of one block's memory
    sizes = replace(sizes, mlp=sizes.mlp or 4 * width)
    if kind in ("no-memory", "longer-window"):
        sizes = replace(sizes, mlp=(sizes.mlp or 0) + round(added / (3 * width)))
    if kind == "longer-window":
        window = longer_window(window, width, heads)
    model = new_model("mistral", sizes, seed=seed, sliding_window=window, use_cache=False)
    if kind == "lstm":
        return _lstm(sizes.words, width, parameters(model) + sizes.blocks * added, seed)
    return give_memory(model, kind, seed=seed, train_base=True, **{"chunk": CHUNK} | settings)


def longer_window(window: int, width: int, heads: int) -> int:
    """The window of attention whose keys and values are as many numbers as those of `window` and a memory's state."""
    return window + (width**2 // heads + width) // (2 * width)


def widths(model: Any) -> tuple[int, int]:
    """(width, heads of attention) of a model of Hugging Face."""
    sizes = model.config.get_text_config(decoder=True)
    return sizes.hidden_size, sizes.num_attention_heads


def give_memory(model: Any, kind: str, *, seed: int = 0, train_base: bool = False, **settings: Any) -> Any:
    """A model of Hugging Face with the memory of a kind, in place; as it is for a kind without one."""
    if kind in FAST_WEIGHTS:
        config = SynapticResonanceConfig(**settings | FAST_WEIGHTS[kind])
        add_synaptic_resonance(model, config, seed=seed, train_base=train_base)
    dice = torch.Generator().manual_seed(seed)
    for memory in memories(model).values():
        if kind == "shuffled":
            memory.relevance.register_forward_hook(
                lambda module, given, out: out[:, torch.randperm(out.shape[1], generator=dice)]
            )
        if kind == "linear-attention":
            memory.relevance.register_forward_hook(lambda module, given, out: torch.full_like(out, torch.inf))
    return model


def _lstm(words: int, width: int, wanted: int, seed: int) -> LSTM:
    """The LSTM with as many parameters, or a few less: 4 h (width + h + 2) + words (width + h)."""
    linear = 4 * (width + 2) + words
    hidden = int((-linear + (linear**2 + 16 * (wanted - words * width)) ** 0.5) / 8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LSTM(words, width, max(hidden, 1))


def state_numbers(model: Any, window: int) -> int:
    """Numbers that a model keeps of a text, for a row: keys and values of its window, and memories; or an LSTM's state."""
    if isinstance(model, LSTM):
        return 2 * model.lstm.hidden_size
    width, _ = widths(model)
    kept = sum(width**2 // memory.heads + width for memory in memories(model).values())
    return len(blocks(model)) * 2 * width * window + kept


def train(
    model: Any,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor | None]],
    *,
    rate: float,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains what may learn, by AdamW with gradients clipped at norm 1, and returns the losses in nats.

    **Arguments:** `batches`: (ids, answers): the loss is that of the next words, of answers (rows,) after the last word, or of
    answers (rows, tokens - 1) in place of the next words, where they are not -100; `report`: gets the step, from 1, and the
    loss.
    """
    learning = [weights for weights in model.parameters() if weights.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=rate, fused=True)
    losses = []
    for ids, answers in batches:
        logits = model(input_ids=ids).logits
        wanted = ids[:, 1:] if answers is None else answers
        if wanted.ndim == 1:
            loss = torch.nn.functional.cross_entropy(logits[:, -1], wanted)
        else:  # the last word's are left out by what is wanted of them: a slice of the logits would be copied, and back
            padded = torch.nn.functional.pad(wanted, (0, 1), value=-100)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), padded.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if report is not None:
            report(len(losses), losses[-1])
    return losses
