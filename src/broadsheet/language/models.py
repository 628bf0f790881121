"""Hugging Face models: loading them safely, reading their hidden states, generating from them."""

from __future__ import annotations

import inspect
import pickle
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import checksum
from broadsheet.errors import DataError, InputError, MissingDataError, MissingExtraError
from broadsheet.files import read_json

try:
    import torch
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import get_session
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging
except ImportError:
    raise MissingExtraError("Reading language models", "language") from None

PATIENCE = 2.0
"""Seconds that the Hub has to answer."""


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
    """(model, tokenizer) of a causal language model, an encoder, or both parts of an encoder-decoder, in evaluation mode.

    **Arguments:** `name`: a folder, or a name on the Hugging Face Hub; `revision`: a branch, tag or commit there (Pythia's
    `step3000`); `dtype`: by default float32; `attention`: how it is computed (`eager`, `sdpa`, …), by default as
    Transformers chooses.

    Weights that are packed as integers (compressed-tensors) are unpacked.

    Code that comes with a model is never run (`trust_remote_code=False`), and weights are read from safetensors or with
    `weights_only=True`. Where the Hub does not answer within seconds, what is in its cache on this machine is taken.

    **Raises:** `MissingDataError` where the model is neither there nor can be fetched, `DataError` where its weights are not
    those that its configuration asks for or not finite, `InputError` for an adapter without its model.
    """
    _check_name(name)
    if revision and Path(name).is_dir():
        raise InputError(f"{name} is a folder, which has no revision {revision!r}; revisions are those of a name on the Hub.")
    logging.disable_progress_bar()
    place = _place(name, revision)
    try:
        config = AutoConfig.from_pretrained(name, **place)
        causal = any("CausalLM" in architecture or "LMHead" in architecture for architecture in config.architectures or [])
        kind = AutoModelForCausalLM if causal else AutoModel
        held = getattr(config, "quantization_config", None) or {}
        packed = {"config": config} if held.get("quant_method") == "compressed-tensors" else {}
        held |= {"dequantize": True} if packed else {}
        model, found = kind.from_pretrained(
            name, dtype=dtype or torch.float32, attn_implementation=attention, output_loading_info=True, **packed, **place
        )
        words = _tokenizer(name, place)
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise MissingDataError(f"{_titled(name, revision)} cannot be loaded: {_reason(error, place)}") from None
    _whole(_titled(name, revision), model, found)
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    return model.eval(), words


PRECISIONS = ("float32", "bfloat16", "float16", "own")
"""`own` is the precision in which a model is stored."""


def load_on(device: str, name: str, *, precision: str = "float32", attention: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) on a device, in a precision, both by the names that PyTorch has for them.

    **Raises:** `InputError` for a device or precision that is not there, beside those of `load`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"The precision is {precision!r}; {', '.join(PRECISIONS)} are there.")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"PyTorch has no device {device!r} on this machine.") from None
    model, words = load(name, dtype="auto" if precision == "own" else getattr(torch, precision), attention=attention)
    return model.to(device), words


def commit(name: str, revision: str | None = None) -> str | None:
    """The commit of a model on the Hugging Face Hub, or in its cache on this machine.

    **Raises:** `MissingDataError` where there is no such model.
    """
    place = _place(name, revision or "main")
    try:
        return AutoConfig.from_pretrained(name, **place)._commit_hash
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{name} cannot be read: {_reason(error, place)}") from None


def model_identity(name: str, revision: str | None = None) -> str:
    """What a model is: the checksum of a folder's content, or its name on the Hub with the commit.

    **Raises:** `MissingDataError` where there is no such model.
    """
    return checksum(Path(name)) if Path(name).is_dir() else f"{name}@{commit(name, revision)}"


def model_folder(name: str) -> Path:
    """The folder with a model's configuration, tokenizer and safetensors: its own, or that of the Hub's cache, to which they
    are fetched first where they are not there.

    **Raises:** `MissingDataError` where there is no such model.
    """
    _check_name(name)
    if Path(name).is_dir():
        return Path(name)
    place = _place(name, None)
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"], **place))
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{name} cannot be loaded: {_reason(error, place)}") from None


def _check_name(name: str) -> None:
    """Refuses what is no folder and cannot be a name on the Hub, and a folder with an adapter alone."""
    if (Path(name) / "adapter_config.json").is_file() and not (Path(name) / "config.json").is_file():
        of = read_json(Path(name) / "adapter_config.json").get("base_model_name_or_path")
        raise InputError(f"{name} is an adapter of {of or 'another model'}; merge it into that model first (merge_and_unload).")
    if not Path(name).is_dir() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise MissingDataError(f"{name}: there is no such folder; a folder or a name on the Hugging Face Hub is wanted.")


def _place(name: str, revision: str | None) -> dict[str, Any]:
    """How `from_pretrained` finds a model: by its revision, and in the cache alone where the Hub does not answer."""
    if Path(name).is_dir():
        return {}
    place: dict[str, Any] = {"revision": revision} if revision else {}
    return place if _reachable() else place | {"local_files_only": True}


def _reachable() -> bool:
    """Whether the Hub answers in time. A thread asks, since the look-up of a host's name has no limit of its own."""
    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[Any] = []

    def ask() -> None:
        with suppress(Exception):  # whatever keeps it from answering
            answers.append(get_session().head(constants.ENDPOINT, timeout=PATIENCE))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)


def _reason(error: Exception, place: dict[str, Any]) -> str:
    if "local_files_only" in place:
        return "the Hugging Face Hub does not answer, and it is not whole in the cache on this machine."
    if "weights_only" in str(error):
        return "its weights are a pickle with more in it than weights, which could run code; safetensors are read."
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _titled(name: str, revision: str | None) -> str:
    return f"{name} at {revision}" if revision else name


def _whole(title: str, model: Any, found: Any) -> None:
    """Refuses weights that Transformers would draw at random or leave out; heads and poolers are another matter."""
    if missing := sorted(name for name in found["missing_keys"] if "pooler" not in name):
        raise DataError(f"{title} has no weights {missing[0]!r} ({len(missing)} are missing); its configuration asks for them.")
    own = {_unnumbered(name) for name in model.state_dict()}
    if more := sorted(name for name in found["unexpected_keys"] if name != _unnumbered(name) and _unnumbered(name) in own):
        raise DataError(f"{title} has weights {more[0]!r} ({len(more)} of that kind); its configuration has fewer layers.")
    if broken := _broken(model):
        raise DataError(f"The weights {broken} of {title} hold NaN or infinity.")


def _broken(model: Any) -> str | None:
    """The first weights that are not finite."""
    return next((name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()), None)


def _unnumbered(name: str) -> str:
    return re.sub("[0-9]+", "#", name)


def _tokenizer(name: str, place: dict[str, str]) -> Any:
    """A folder's own tokenizer, whatever its model: `AutoTokenizer` reads any that stands beside a Qwen2 as Qwen2's."""
    file = Path(name) / "tokenizer_config.json"
    if file.is_file() and read_json(file).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        return PreTrainedTokenizerFast.from_pretrained(name)
    return AutoTokenizer.from_pretrained(name, **place)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model, without the model.

    **Raises:** `MissingDataError` where there is none.
    """
    _check_name(name)
    place = _place(name, None)
    try:
        return _tokenizer(name, place)
    except (OSError, ValueError) as error:
        raise MissingDataError(f"The tokenizer of {name} cannot be loaded: {_reason(error, place)}") from None


def tokenize(words: Any, texts: Sequence[str], max_length: int, min_tokens: int = 1) -> list[list[int]]:
    """Token ids of the texts, cut at `max_length`; texts of fewer than `min_tokens` are left out."""
    ids = words(list(texts), truncation=True, max_length=max_length)["input_ids"]
    kept = [row for row in ids if len(row) >= min_tokens]
    if not kept:
        raise InputError(f"None of the {len(texts)} texts has {min_tokens} tokens.")
    return kept


def positions(model: Any) -> int | None:
    """The longest text, in tokens, for which a model has positions; None where its configuration names no limit."""
    found = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    for name, part in model.named_modules():
        counted = isinstance(part, torch.nn.Embedding) and name.endswith("position_embeddings") and part.padding_idx is not None
        if counted and found is not None:  # RoBERTa counts from behind its padding
            found = min(found, part.num_embeddings - part.padding_idx - 1)
    return found if isinstance(found, int) and found > 0 else None


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

    Of an encoder-decoder model (T5, BART) those of the encoder.

    **Arguments:** `layer`: index into the hidden states, -1 for the last, which has passed the final norm in Llama, GPT-NeoX
    and OLMo; `pool`: `"last"` (the last token that is not padding) or `"mean"` (over tokens, as sentence encoders do).

    **Raises:** `InputError` where the layer or the pooling does not exist, tokens have no embedding or positions, the model
    takes no tokens, or its numbers are not finite.
    """
    if pool not in ("last", "mean"):
        raise InputError(f"pool is {pool!r}; last or mean is wanted.")
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    if getattr(reader, "main_input_name", "input_ids") != "input_ids":
        raise InputError(f"A {type(model).__name__} takes {reader.main_input_name}, no texts.")
    words = check_tokens(reader, rows)
    device = next(model.parameters()).device
    for start in range(0, len(rows), batch):
        ids, mask = (part.to(device) for part in padded(rows[start : start + batch], pad if pad < words else 0))
        with torch.no_grad(), within_positions(model, ids.shape[1]):
            states = reader(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        if not -len(states) <= layer < len(states):
            raise InputError(f"Layer {layer} does not exist; the model has {len(states) - 1} and the embedding, 0.")
        found = states[layer].float()
        if pool == "mean":
            weight = mask[..., None].float()
            found = (found * weight).sum(1) / weight.sum(1)
        else:
            found = found[torch.arange(len(ids)), mask.sum(1) - 1]
        check_finite(model, found)
        yield found.cpu().numpy()


def check_tokens(model: Any, rows: Sequence[Sequence[int]]) -> int:
    """How many tokens the model's embedding has.

    **Raises:** `InputError` for a token beyond it, as another model's tokenizer gives.
    """
    words = model.get_input_embeddings().weight.shape[0]
    if (largest := max(max(row) for row in rows)) >= words:
        raise InputError(
            f"The tokenizer gives the token {largest}; the embedding of the {type(model).__name__} has {words}, from 0 on."
        )
    return words


@contextmanager
def within_positions(model: Any, tokens: int) -> Iterator[None]:
    """Turns what a forward pass over too many tokens raises, in a model with a table of positions, into `InputError`."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if "out of range" not in str(error) and "out of bounds" not in str(error):
            raise
        # the table of positions is the only one left to look up in
        raise InputError(f"A text of {tokens} tokens is longer than the {type(model).__name__} has positions for.") from None


def check_finite(model: Any, found: torch.Tensor) -> None:
    """Raises `InputError`, which names the weights to blame where there are any, for numbers that are not finite."""
    if torch.isfinite(found).all():
        return
    broken, name = _broken(model), type(model).__name__
    raise InputError(
        f"The weights {broken} of the {name} hold NaN or infinity."
        if broken
        else f"The {name} gives NaN or infinity (half precision overflows: read it as float32)."
    )


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
