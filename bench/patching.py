"""Activation patching of all blocks and tokens of pairs of statements: ours, one forward pass a cell, nnsight and TransformerLens."""

import numpy as np

from harness import Comparison

WORDS, TRUE, FALSE = 463, 22, 23


def shape(blocks, width, pairs, tokens, columns):
    return {"blocks": blocks, "width": width, "pairs": pairs, "tokens": tokens, "columns": columns}


def inputs(case):
    """Weights of a Llama by their names in Transformers, and the tokens of true and false prompts (pairs, tokens)."""
    rng = np.random.default_rng(0)
    width, mlp = case["width"], 3 * case["width"]
    sizes = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width, width), "self_attn.v_proj": (width, width)}
    sizes |= {"self_attn.o_proj": (width, width)}
    sizes |= {"mlp.gate_proj": (mlp, width), "mlp.up_proj": (mlp, width), "mlp.down_proj": (width, mlp)}
    made = {"model.embed_tokens.weight": rng.standard_normal((WORDS, width)), "model.norm.weight": np.ones(width)}
    made["lm_head.weight"] = rng.standard_normal((WORDS, width)) / np.sqrt(width)
    for block in range(case["blocks"]):
        for name, (outputs, there) in sizes.items():
            made[f"model.layers.{block}.{name}.weight"] = rng.standard_normal((outputs, there)) / np.sqrt(there)
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"model.layers.{block}.{name}.weight"] = np.ones(width)
    true = rng.integers(6, WORDS, (case["pairs"], case["tokens"]))
    false = true.copy()
    at = case["tokens"] - case["columns"] + 3
    false[:, at] = (false[:, at] + 1 + rng.integers(0, 400, case["pairs"])) % WORDS  # the subject is what differs
    return {name: values.astype(np.float32) for name, values in made.items()} | {"true": true, "false": false}


comparison = Comparison(
    "Activation patching of a Llama",
    {
        "3 blocks, width 64, 8 pairs, 12 of 65 tokens": shape(3, 64, 8, 65, 12),
        "8 blocks, width 256, 2 pairs, 14 of 80 tokens": shape(8, 256, 2, 80, 14),
    },
    inputs,
    text="D = logit(TRUE) - logit(FALSE) after the last token of a false statement's prompt, where one state, after one block at one "
    "token of the statement, is that of the true one's: a map over all blocks and tokens of the statement, for each pair. Random "
    "weights, float32, one thread. One cell a pass: a hook in plain PyTorch, whole prompts. nnsight: a trace a cell, as in the code "
    "of arXiv 2504.02904. TransformerLens: its own helper, a pass a cell with all pairs as the batch. *All cells run* is ours without "
    "leaving out cells whose two states are the same.",
    agree={"mean": 1e-4, "largest": 1e-4},
    shown={"cells_a_second": "cells a second"},
    turns=3,
)  # fmt: skip


def llama(case, given):
    """The model, in whatever version of Transformers a side has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=case["width"], intermediate_size=3 * case["width"], num_hidden_layers=case["blocks"],
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, rms_norm_eps=1e-5, attn_implementation="eager",
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.load_state_dict({name: torch.tensor(values) for name, values in given.items() if name not in ("true", "false")})
    return model.eval(), torch.tensor(given["true"]), torch.tensor(given["false"])


def timed(compute):
    """A run: cells a second beside two numbers of the map (pairs, blocks, tokens)."""
    import time

    def run():
        start = time.perf_counter()
        found = np.asarray(compute())
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "cells_a_second": found.size / seconds, "mean": found.mean(), "largest": found.max()}

    return run


def shared_passes(case, given, **options):
    from broadsheet.language.patching import activation_patching
    from broadsheet.language.statement_pairs import TokenPairs

    model, true, false = llama(case, given)
    pairs = TokenPairs(true, false, case["columns"], ("",) * case["columns"], (TRUE, FALSE))
    layers = range(case["blocks"])
    return timed(lambda: activation_patching(model, model, pairs, layers=layers, **options).differences)


@comparison.side("broadsheet", packages=("torch", "transformers"))
def ours(case, given):
    return shared_passes(case, given)


@comparison.side("broadsheet, all cells run", packages=("torch", "transformers"))
def all_cells(case, given):
    return shared_passes(case, given, all_cells=True)


@comparison.side("one cell a pass", packages=("torch", "transformers"))
def one_cell(case, given):
    import torch

    model, true, false = llama(case, given)
    layers = model.model.layers

    def compute():
        out = np.zeros((case["pairs"], case["blocks"], case["columns"]))
        with torch.no_grad():
            for row in range(case["pairs"]):
                states = {}
                handles = [
                    layer.register_forward_hook(lambda module, given, found, k=k, into=states: into.update({k: found}))
                    for k, layer in enumerate(layers)
                ]
                model(input_ids=true[row : row + 1])
                for handle in handles:
                    handle.remove()
                for k, layer in enumerate(layers):
                    for column in range(case["columns"]):

                        def put(module, given, found, there=states[k], at=column - case["columns"]):
                            changed = found.clone()
                            changed[:, at] = there[:, at]
                            return changed

                        handle = layer.register_forward_hook(put)
                        logits = model(input_ids=false[row : row + 1], use_cache=False).logits[0, -1]
                        handle.remove()
                        out[row, k, column] = logits[TRUE] - logits[FALSE]
        return out

    return timed(compute)


@comparison.side("nnsight", environment="nnsight", packages=("torch", "transformers", "nnsight"))
def with_nnsight(case, given):
    import torch
    from nnsight import NNsight

    plain, true, false = llama(case, given)
    model = NNsight(plain)
    layers = model.model.layers

    def compute():
        out = np.zeros((case["pairs"], case["blocks"], case["columns"]))
        for row in range(case["pairs"]):
            with torch.no_grad(), model.trace(input_ids=true[row : row + 1]):
                states = [layer.output.clone() for layer in layers].save()
            for k in range(case["blocks"]):
                for column in range(case["columns"]):
                    at = column - case["columns"]
                    with torch.no_grad(), model.trace(input_ids=false[row : row + 1], use_cache=False):
                        layers[k].output[:, at] = states[k][:, at]
                        logits = model.lm_head.output[0, -1].save()
                    out[row, k, column] = logits[TRUE] - logits[FALSE]
        return out

    return timed(compute)


@comparison.side("TransformerLens", environment="transformerlens", packages=("torch", "transformers", "transformer-lens"))
def with_transformer_lens(case, given):
    import tempfile

    import pandas as pd
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.patching import generic_activation_patch, layer_pos_patch_setter
    from transformers import PreTrainedTokenizerFast

    plain, true, false = llama(case, given)
    table = Tokenizer(WordLevel({str(k): k for k in range(WORDS)}, unk_token="0"))
    words = PreTrainedTokenizerFast(tokenizer_object=table, pad_token="0", bos_token="1", eos_token="2")
    folder = tempfile.mkdtemp()
    plain.save_pretrained(folder)
    words.save_pretrained(folder)
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    model = TransformerBridge.boot_transformers(folder, hf_model=plain, tokenizer=words, device="cpu")
    columns = range(case["tokens"] - case["columns"], case["tokens"])
    cells = pd.DataFrame([(layer, pos) for layer in range(case["blocks"]) for pos in columns], columns=["layer", "pos"])
    rows = []

    def metric(logits):
        rows.append((logits[:, -1, TRUE] - logits[:, -1, FALSE]).numpy())
        return logits.new_zeros(())

    def compute():
        rows.clear()
        with torch.no_grad():
            _, cache = model.run_with_cache(true)
            generic_activation_patch(model, false, cache, metric, layer_pos_patch_setter, "resid_post", index_df=cells)
        return np.stack(rows, 1).reshape(case["pairs"], case["blocks"], case["columns"])

    return timed(compute)
