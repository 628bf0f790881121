"""Hugging Face models: loading them safely, reading their hidden states, generating from them."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import InputError, MissingDataError, MissingExtraError
from broadsheet.files import read_json

try:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging
except ImportError:
    raise MissingExtraError("Reading language models", "language") from None


@contextmanager
def one_thread() -> Iterator[None]:
    """A single thread for PyTorch: the same numbers on every machine load, and faster for tiny models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(name: str, revision: str | None = None, *, dtype: Any = None, attention: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a causal language model or a sentence encoder, in evaluation mode.

    **Arguments:** `name`: a folder, or a name on the Hugging Face Hub; `revision`: a branch, tag or commit there (Pythia's
    `step3000`); `dtype`: by default float32; `attention`: how it is computed (`eager`, `sdpa`, …), by default as
    Transformers chooses.

    Code that comes with a model is never run (`trust_remote_code=False`), and weights are read from safetensors or with
    `weights_only=True`.

    **Raises:** `MissingDataError` where the model is neither there nor can be fetched.
    """
    if not Path(name).is_dir() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise MissingDataError(f"{name}: there is no such folder; a folder or a name on the Hugging Face Hub is wanted.")
    logging.disable_progress_bar()
    place = {"revision": revision} if revision and not Path(name).is_dir() else {}
    try:
        config = AutoConfig.from_pretrained(name, **place)
        causal = any("CausalLM" in architecture or "LMHead" in architecture for architecture in config.architectures or [])
        kind = AutoModelForCausalLM if causal else AutoModel
        model = kind.from_pretrained(name, dtype=dtype or torch.float32, attn_implementation=attention, **place)
        words = _tokenizer(name, place)
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).strip().splitlines()[0]
        raise MissingDataError(f"{name}{f' at {revision}' if revision else ''} cannot be loaded: {first}") from None
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    return model.eval(), words


def commit(name: str, revision: str | None = None) -> str | None:
    """The commit of a model on the Hugging Face Hub, or in its cache on this machine.

    **Raises:** `MissingDataError` where there is no such model.
    """
    try:
        return AutoConfig.from_pretrained(name, revision=revision or "main")._commit_hash
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{name} cannot be read: {str(error).strip().splitlines()[0]}") from None


def _tokenizer(name: str, place: dict[str, str]) -> Any:
    """A folder's own tokenizer, whatever its model: `AutoTokenizer` reads any that stands beside a Qwen2 as Qwen2's."""
    file = Path(name) / "tokenizer_config.json"
    if file.is_file() and read_json(file).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        return PreTrainedTokenizerFast.from_pretrained(name)
    return AutoTokenizer.from_pretrained(name, **place)


def tokenize(words: Any, texts: Sequence[str], max_length: int, min_tokens: int = 1) -> list[list[int]]:
    """Token ids of the texts, cut at `max_length`; texts of fewer than `min_tokens` are left out."""
    ids = words(list(texts), truncation=True, max_length=max_length)["input_ids"]
    kept = [row for row in ids if len(row) >= min_tokens]
    if not kept:
        raise InputError(f"None of the {len(texts)} texts has {min_tokens} tokens.")
    return kept


def padded(rows: Sequence[Sequence[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) of rows of different lengths, padded on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.as_tensor(row)
        mask[k, : len(row)] = 1
    return ids, mask


def features(
    model: Any, rows: Sequence[Sequence[int]], *, layer: int = -1, pool: str = "last", batch: int = 32, pad: int = 0
) -> Iterator[np.ndarray]:
    """Hidden states of token rows, a batch at a time: float32 arrays (rows, width).

    **Arguments:** `layer`: index into the hidden states, -1 for the last, which has passed the final norm in Llama, GPT-NeoX
    and OLMo; `pool`: `"last"` (the last token that is not padding) or `"mean"` (over tokens, as sentence encoders do).

    **Raises:** `InputError` where the layer or the pooling does not exist.
    """
    if pool not in ("last", "mean"):
        raise InputError(f"pool is {pool!r}; last or mean is wanted.")
    device = next(model.parameters()).device
    for start in range(0, len(rows), batch):
        ids, mask = (part.to(device) for part in padded(rows[start : start + batch], pad))
        with torch.no_grad():
            states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        if not -len(states) <= layer < len(states):
            raise InputError(f"Layer {layer} does not exist; the model has {len(states) - 1} and the embedding, 0.")
        found = states[layer].float()
        if pool == "mean":
            weight = mask[..., None].float()
            yield ((found * weight).sum(1) / weight.sum(1)).cpu().numpy()
        else:
            yield found[torch.arange(len(ids)), mask.sum(1) - 1].cpu().numpy()


def log_probabilities(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """log p(token | tokens before it) of each token but the first: (rows, tokens - 1)."""
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def read_log_probabilities(model: Any, ids: np.ndarray) -> np.ndarray:
    """`log_probabilities` of token ids (rows, tokens), as an array and without derivatives."""
    with torch.no_grad():
        return log_probabilities(model, torch.from_numpy(ids)).numpy()


def generate(
    model: Any, prompts: Sequence[Sequence[int]], tokens: int, *, temperature: float = 0.0, generator: Any = None
) -> torch.Tensor:
    """Continuations (prompts, tokens) of prompts of the same length, greedy or sampled at a temperature."""
    if len({len(prompt) for prompt in prompts}) > 1:
        raise InputError("generate: the prompts differ in length; group them by length first.")
    ids = torch.as_tensor(np.array(prompts), dtype=torch.long, device=next(model.parameters()).device)
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    given, cache = ids, None
    with torch.no_grad():
        for _ in range(tokens):
            out = model(input_ids=given, use_cache=True, **{name: cache})
            cache, logits = out[name], out.logits[:, -1]
            if temperature > 0:
                given = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)
            else:
                given = logits.argmax(-1, keepdim=True)
            ids = torch.cat([ids, given], 1)
    return ids[:, -tokens:]
