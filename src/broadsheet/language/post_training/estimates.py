"""What a training will take, before it begins: steps, tokens and memory, from a model's configuration and the data alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broadsheet.errors import MissingExtraError
from broadsheet.language.post_training.rows import prompts_of
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, TrainingSettings

try:
    import torch
    from datasets import Dataset
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

LOOKED_AT = 2000
"""Rows whose tokens are counted, spread over all of them."""
FLOAT = 4  # bytes; weights, gradients and the optimiser's moments are float32 in every precision
TILE = 4096, 32768
"""Tokens and words whose logits TRL takes at once."""
COPIES = 15
"""Of such a tile are held at once, where it is computed step by step: measured with TRL 1.16."""


@dataclass(frozen=True)
class Estimate:
    """What a stage takes.

    **Arguments:** `rows`, `steps`; `tokens`: that go through the model in training, of reinforcement learning at most;
    `longest`: tokens of the longest row, as it is read; `cut`: share of the rows that are longer than what is read;
    `parameters`, `trained`: numbers in the model, and those that change; `memory`: bytes, by what holds them; `peak`: of the
    most that is held at once, beside what Python and its libraries take.
    """

    rows: int
    steps: int
    tokens: int
    longest: int
    cut: float
    parameters: int
    trained: int
    memory: dict[str, int]
    peak: int


def estimate(
    config: Any, words: Any, rows: Dataset, settings: TrainingSettings, device: str = "cpu", *, pairs_of: int | None = None
) -> Estimate:
    """What a stage takes, of its rows as `rows.for_…` gives them.

    **Arguments:** `config`: the model's; `words`: its tokenizer; `device`: on a processor more of the
    logits is held; `pairs_of`: where pairs are yet to be made from the rows' prompts, the tokens of their longest answers.
    """
    limit = min(settings.max_tokens, getattr(config.get_text_config(), "max_position_embeddings", None) or settings.max_tokens)
    lengths, asked = row_tokens(words, rows)
    learnt = isinstance(settings, RLSettings)
    if isinstance(settings, RLSettings):
        read = [[length + settings.answer_tokens for length in row] for row in lengths]
    elif pairs_of:
        read = [[min(row[0] + pairs_of, limit)] * 2 for row in lengths]
    else:
        read = [[min(length, limit) for length in row] for row in lengths]
    steps = count_steps(len(rows), settings)
    a_row = sum(map(sum, read)) / len(read)
    answered = (
        settings.answer_tokens
        if isinstance(settings, RLSettings)
        else max(max(row) - before for row, before in zip(read, asked, strict=True))
    )
    longest = max(map(max, read))
    counted = learnt or settings.steps is not None  # else the last batch of a pass may be smaller
    weights, trained = _parameters(config, settings.adapter)
    texts = settings.at_once * len(read[0])
    reference = _reference(settings)
    tile = min(texts * answered, TILE[0]) * min(config.get_text_config().vocab_size, TILE[1])
    memory = {
        "weights": FLOAT * weights,
        "gradients": FLOAT * trained,
        "optimiser": 2 * FLOAT * trained,
        "reference": FLOAT * weights * reference,
        "activations": activations(config, texts, longest, settings.precision),
        "logits": FLOAT * tile * (COPIES if device == "cpu" else 1),
    }
    if isinstance(settings, RLSettings) and settings.algorithm == "ppo":  # a value model is trained beside the policy
        memory = {name: size * (1 if name == "reference" else 2) for name, size in memory.items()}
    held = memory["weights"] + memory["optimiser"] + memory["reference"]
    passing = memory["gradients"], memory["activations"] + memory["logits"]  # these give way to those, unless they add up
    together = sum(passing) if settings.batch > settings.at_once else max(passing)
    return Estimate(
        rows=len(rows),
        steps=steps,
        tokens=round(a_row * (steps * settings.batch if counted else settings.epochs * len(rows))),
        longest=longest,
        cut=0.0 if learnt else sum(max(row) > limit for row in lengths) / len(lengths),
        parameters=weights,
        trained=trained,
        memory=memory,
        peak=held + together,
    )


def row_tokens(words: Any, rows: Dataset) -> tuple[list[list[int]], list[int]]:
    """Tokens of each row that is looked at: of its conversation, of prompt and completion, of prompt and each answer of a pair,
    or of its prompt alone; and of what comes before its first answer."""
    step = max(1, len(rows) // LOOKED_AT)
    some = rows.select(range(0, len(rows), step)) if step > 1 else rows
    names = set(rows.column_names)
    if "messages" in names:
        parts: tuple[tuple[str, ...], ...] = (("messages",),)
    elif {"chosen", "rejected"} <= names:
        parts = (("prompt", "chosen"), ("prompt", "rejected"))
    else:
        parts = (("prompt", "completion"),) if "completion" in names else (("prompt",),)
    columns = [[_text(words, [row[name] for name in part], part == ("prompt",)) for row in some] for part in parts]
    columns.append([_text(words, [prompt], True) for prompt in prompts_of(some)])
    *counted, asked = ([len(ids) for ids in words(texts, add_special_tokens=False)["input_ids"]] for texts in columns)
    return [list(row) for row in zip(*counted, strict=True)], asked


def _text(words: Any, parts: Sequence[Any], ask: bool) -> str:
    if isinstance(parts[0], str):
        return "".join(parts) + ("" if ask else words.eos_token or "")
    return words.apply_chat_template([turn for part in parts for turn in part], tokenize=False, add_generation_prompt=ask)


def count_steps(rows: int, settings: TrainingSettings) -> int:
    """Updates that a training of so many rows makes."""
    if settings.steps is not None:
        return settings.steps
    if not isinstance(settings, RLSettings):
        batches = math.ceil(rows / settings.at_once)
        return math.ceil(settings.epochs * max(1, math.ceil(batches / (settings.batch // settings.at_once))))
    a_step = settings.batch // settings.group
    if settings.algorithm == "ppo":
        return max(1, round(settings.epochs * rows / a_step))
    return math.ceil(settings.epochs * max(1, rows // a_step) * settings.updates)


def activations(config: Any, texts: int, tokens: int, precision: str = "float32") -> int:
    """Bytes that a forward pass of a model keeps for its backward pass, without the unembedding, whose logits come a tile at a
    time. The pass is run on tensors that have shapes and no numbers."""
    kept: dict[int, Any] = {}
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        model = AutoModelForCausalLM.from_config(config)
        own = {weights.untyped_storage()._cdata for weights in model.parameters()}

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        ids = torch.zeros(texts, tokens, dtype=torch.long)
        allowed = torch.ones(texts, 1, tokens, tokens, dtype=torch.bool)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = model.base_model(input_ids=ids, attention_mask=allowed, use_cache=False)
        size = sum(storage.nbytes() for storage in kept.values())
        del states
    return size


def _parameters(config: Any, rank: int) -> tuple[int, int]:
    """Numbers in a model, and those that are trained."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    everything = sum(weights.numel() for weights in model.parameters())
    if not rank:
        return everything, everything
    head = model.get_output_embeddings()
    maps = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return everything, sum(rank * (part.in_features + part.out_features) for part in maps)


def _reference(settings: TrainingSettings) -> int:
    """Copies of the model as it was, beside the one that is trained; under an adapter it is there already."""
    if settings.adapter:
        return 0
    if isinstance(settings, DPOSettings):
        return int(settings.loss != "simpo")
    return int(isinstance(settings, RLSettings) and settings.beta > 0)
