"""Names of all MLP neurons of a Llama by the unembedding: blocked and exact, beside the whole product in nnsight."""

import numpy as np

from harness import Comparison


def shape(words, width, blocks, mlp):
    return {"words": words, "width": width, "blocks": blocks, "mlp": mlp}


def inputs(case):
    """Weights of a Llama by their names in Transformers."""
    rng = np.random.default_rng(0)
    width, mlp, words = case["width"], case["mlp"], case["words"]
    sizes = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
    sizes |= {"mlp.gate_proj": (mlp, width), "mlp.up_proj": (mlp, width), "mlp.down_proj": (width, mlp)}
    made = {"model.embed_tokens.weight": rng.standard_normal((words, width), dtype=np.float32)}
    made |= {"model.norm.weight": np.ones(width), "lm_head.weight": rng.standard_normal((words, width), dtype=np.float32)}
    for block in range(case["blocks"]):
        for name, (outputs, there) in sizes.items():
            made[f"model.layers.{block}.{name}.weight"] = rng.standard_normal((outputs, there), dtype=np.float32) / np.sqrt(
                there
            )
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"model.layers.{block}.{name}.weight"] = np.ones(width)
    return {name: values.astype(np.float32) for name, values in made.items()}


comparison = Comparison(
    "Naming all neurons of a Llama by their columns of the down-projection",
    {
        "2 x 1024 neurons, width 256, 16 000 tokens": shape(16_000, 256, 2, 1024),
        "2 x 2048 neurons, width 1024, 32 000 tokens": shape(32_000, 1024, 2, 2048),
    },
    inputs,
    text="The 10 tokens that each neuron writes most, with their scores: Geva's reading, the usual one (ours does the same for the "
    "rows of up and gate). Random weights, one thread. nnsight: the modules' own weights, in a trace; it makes all scores of a layer "
    "at once, in float32, and `topk` over them. Ours makes both ends of each neuron's scores, their mean and deviation, a block at "
    "a time; *float32* is ours without bfloat16 first. Peak memory is what the process grew by.",
    agree={"mean": 1e-4, "largest": 1e-4},
    shown={"neurons_a_second": "neurons a second"},
    turns=3,
)  # fmt: skip


def llama(case, given):
    """The model, in whatever version of Transformers a side has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=case["words"], hidden_size=case["width"], intermediate_size=case["mlp"], num_hidden_layers=case["blocks"],
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=False, rms_norm_eps=1e-5,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict({name: torch.from_numpy(values) for name, values in given.items()}, strict=False)
    return model


def memory(name):
    """MB of this process, now (VmRSS) or at most so far (VmHWM)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{name}:"))


def timed(case, compute):
    """A run of `compute`, which returns scores (layers, neurons, 10)."""
    import time

    def run():
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
        before, start = memory("VmRSS"), time.perf_counter()
        scores = np.asarray(compute())
        seconds = time.perf_counter() - start
        return {
            "mean": scores.mean(), "largest": scores.max(), "neurons_a_second": case["blocks"] * case["mlp"] / seconds,
            "peak_mb": memory("VmHWM") - before,
        }  # fmt: skip

    return run


@comparison.side("broadsheet", packages=("torch", "transformers"))
def ours(case, given):
    from broadsheet.language.feature_neurons import decode_neurons

    model = llama(case, given)
    return timed(case, lambda: decode_neurons(model, "down").scores)


@comparison.side("broadsheet, float32", packages=("torch", "transformers"))
def plain(case, given):
    from broadsheet.language.feature_neurons import decode_neurons

    model = llama(case, given)
    return timed(case, lambda: decode_neurons(model, "down", coarse=False).scores)


@comparison.side("nnsight", environment="nnsight", packages=("torch", "transformers", "nnsight"))
def with_nnsight(case, given):
    import torch
    from nnsight import NNsight

    model = NNsight(llama(case, given))
    ids = torch.arange(4)[None]

    def compute():
        found = []
        with torch.no_grad():
            for layer in range(case["blocks"]):
                with model.trace(input_ids=ids):
                    columns = model.model.layers[layer].mlp.down_proj.weight.T
                    top = (columns @ model.lm_head.weight.T).topk(10, dim=1).values.save()
                found.append(top)
        return torch.stack(found)

    return timed(case, compute)
