"""New causal language models of any architecture that Transformers knows, by its name and a few sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from broadsheet.errors import InputError, MissingExtraError

try:
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig
except ImportError:
    raise MissingExtraError("Making language models", "language") from None

NAMES = {
    "words": ("vocab_size",),
    "width": ("hidden_size", "word_embed_proj_dim"),
    "blocks": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "positions": ("max_position_embeddings", "max_seq_len"),
    "kv_heads": ("num_key_value_heads",),
    "head_width": ("head_dim",),
    "mlp": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "epsilon": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"),
}
"""What configurations call our sizes; a configuration's own other names for the same (`n_embd`) are found through it."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a causal language model; what is None gets a value that fits, where the architecture has such a size.

    **Arguments:** `words`: tokens of the vocabulary; `width`: of the residual stream; `blocks`: their number; `heads`: of
    attention (4); `positions`: the longest text, in tokens (128); `kv_heads`: heads of keys and values (as many as heads);
    `head_width`: (width / heads); `mlp`: neurons of a block's MLP (4 width); `epsilon`: added to the variance in norms (the
    architecture's).
    """

    words: int
    width: int = 64
    blocks: int = 3
    heads: int | None = None
    positions: int | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    mlp: int | None = None
    epsilon: float | None = None


def configuration(kind: str, sizes: Sizes, **settings: Any) -> Any:
    """The Hugging Face configuration of a causal language model.

    **Arguments:** `kind`: the `model_type` of Transformers (`llama`, `qwen2`, `gpt_neox`, `gpt2`, …); `settings`: anything else
    that this configuration knows, by its own name. Special tokens are none and embeddings are not tied unless they say so.

    **Raises:** `InputError` for an unknown kind or setting, or a size that this kind does not have.
    """
    try:
        known = AutoConfig.for_model(kind)
    except ValueError:
        raise InputError(
            f"Transformers knows no architecture {kind!r}; a model_type such as llama or gpt2 is wanted."
        ) from None
    if type(known) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{kind} is no causal language model.")
    names = set(known.to_dict()) | set(known.attribute_map)
    heads = sizes.heads or 4
    fitting = {"heads": heads, "positions": 128, "kv_heads": heads, "head_width": sizes.width // heads, "mlp": 4 * sizes.width}
    asked: dict[str, Any] = {}
    for size, value in asdict(sizes).items():
        mine = [name for name in NAMES[size] if name in names]
        if not mine and value is not None:
            raise InputError(f"A {kind} has no size {size!r}.")
        chosen = fitting.get(size) if value is None else value
        asked |= {name: chosen for name in mine if chosen is not None}
    if unknown := sorted(set(settings) - names):
        raise InputError(f"The configuration of a {kind} has no {unknown[0]!r}.")
    plain = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
    asked |= settings
    try:
        made = AutoConfig.for_model(kind, **plain | asked)
    except Exception as error:  # each configuration checks itself, and in its own way
        raise InputError(f"A {kind} cannot have these sizes: {str(error).strip().splitlines()[-1].strip()}") from None
    for name, value in asked.items():
        if getattr(made, name) != value:
            raise InputError(f"A {kind} takes no {name} of {value!r}; it has {getattr(made, name)!r}.")
    return made


def new_model(kind: str | PreTrainedConfig, sizes: Sizes | None = None, *, seed: int = 0, **settings: Any) -> Any:
    """A causal language model with random weights, drawn by the seed, float32, with attention written out (`eager`).

    ```python
    model = new_model("qwen2", Sizes(words=1000, width=32, blocks=2))
    ```

    **Arguments:** `kind`: see `configuration`, or a configuration that is there already, which then has the sizes.

    **Raises:** `InputError` as `configuration` does.
    """
    if isinstance(kind, str):
        if sizes is None:
            raise InputError(f"A new {kind} needs sizes; Sizes(words=1000) is a tiny one.")
        kind = configuration(kind, sizes, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(kind, attn_implementation="eager")
