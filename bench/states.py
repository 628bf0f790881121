"""States of statements at their last token, after every block of a language model."""

import numpy as np

from harness import Comparison

BATCH = 50


def inputs(case):
    """Weights of a random Llama with GPT-2's sizes or smaller ones, and token rows of 8 to 15 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 16, case["texts"])
    rows = np.zeros((case["texts"], 16), np.int64)
    for k, length in enumerate(lengths):
        rows[k, :length] = rng.integers(1, 1000, length)
    return {"rows": rows, "lengths": lengths}


comparison = Comparison(
    "States of statements after each of twelve blocks",
    {f"{texts} statements, width {width}": {"texts": texts, "width": width} for texts, width in ((400, 256), (1000, 128))},
    inputs,
    text="A random Llama with twelve blocks; statements of 8 to 15 tokens, the state of the last one after each block, in batches "
    "of 50. Here they go to the disk, so that no more than a batch and one block's states are in memory; rows of a length go "
    "together. Transformers gives out all hidden states of padded batches; nnsight, with which the official code of arXiv "
    "2504.02904 reads them, traces each block (batches of a length as well, since it knows no padding on the right).",
    agree={"size": 1e-4},
)  # fmt: skip


def model(case):
    """The same model in every environment: weights by a rule, not by a generator that versions may change."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    width = case["width"]
    made = LlamaForCausalLM(LlamaConfig(
        vocab_size=1000, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=64, pad_token_id=0, tie_word_embeddings=False,
    )).eval()  # fmt: skip
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for _, weights in sorted(made.named_parameters()):
            if weights.ndim == 2:
                weights.copy_(torch.tensor(rng.standard_normal(tuple(weights.shape), np.float32) * 0.05))
    return made


def size(states):
    """Mean length of a state after each block, summed: the same for all sides."""
    return {"size": float(sum(np.linalg.norm(each, axis=1).mean() for each in states))}


def of_a_length(given):
    """Token rows in batches of one length."""
    for length in np.unique(given["lengths"]):
        same = np.flatnonzero(given["lengths"] == length)
        for start in range(0, len(same), BATCH):
            yield same[start : start + BATCH], given["rows"][same[start : start + BATCH], :length]


@comparison.side("broadsheet", packages=("torch", "transformers"))
def ours(case, given):
    import tempfile
    from pathlib import Path

    from broadsheet.language.states import Spool

    made = model(case)
    rows = [row[:length].tolist() for row, length in zip(given["rows"], given["lengths"], strict=True)]

    def run():
        with tempfile.TemporaryDirectory() as folder:
            spool = Spool(Path(folder), range(12), len(rows)).write(made, rows, batch=BATCH)
            return size(spool.read(layer) for layer in range(12))

    return run


@comparison.side("Transformers", packages=("torch", "transformers"))
def transformers(case, given):
    import torch

    from broadsheet.language.hooks import captured

    made = model(case)

    def run():
        found = [[] for _ in range(12)]
        for start in range(0, len(given["rows"]), BATCH):
            ids = torch.tensor(given["rows"][start : start + BATCH])
            last = torch.tensor(given["lengths"][start : start + BATCH]) - 1
            mask = (torch.arange(16) <= last[:, None]).long()
            with torch.no_grad(), captured(made, [11]) as kept:  # the last of hidden_states has passed the norm
                states = made(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            for layer in range(12):
                here = kept[11] if layer == 11 else states[layer + 1]
                found[layer].append(here[torch.arange(len(ids)), last].numpy())
        return size(np.concatenate(part) for part in found)

    return run


@comparison.side("nnsight", environment="nnsight", packages=("torch", "transformers", "nnsight"))
def nnsight(case, given):
    import torch
    from nnsight import NNsight

    made = NNsight(model(case))
    layers = made.model.layers

    def run():
        found = []
        for _, ids in of_a_length(given):
            with torch.no_grad(), made.trace(input_ids=torch.tensor(ids), use_cache=False):
                kept = [layer.output[:, -1].clone() for layer in layers].save()
            found.append(torch.stack(list(kept)).numpy())
        return size(np.concatenate(found, axis=1))

    return run
