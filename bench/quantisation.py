"""Weights of a small language model in 2 and 4 bits: ours, torchao, optimum-quanto and llm-compressor."""

import tempfile
import time
from pathlib import Path

import numpy as np

from harness import Comparison, peak_mb

SHIPPED = Path(__file__).parent.parent / "tests" / "references" / "tiny_chain" / "base.safetensors"
LLAMA = {
    "vocab_size": 463, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def inputs(case):
    """The tiny model of the tests, 64 windows of 48 tokens to calibrate it with, and 256 others."""
    from safetensors.numpy import load_file

    from broadsheet.language.tiny_world import World

    texts = {"after": World(0).probe(64, 48, seed=1), "held": World(0).probe(256, 48, seed=2)}
    return texts | {f"weights.{name}": value for name, value in load_file(SHIPPED).items()}


comparison = Comparison(
    "Quantising the weights of a language model",
    {"2 bits a weight": {"bits": 2}, "4 bits a weight": {"bits": 4}},
    inputs,
    text="A Llama of 219 456 parameters, its 21 linear maps with a step for each output on grids without symmetry; perplexity on held-out text. "
    "The time is that of calibration and quantisation. Ours: FlexRound (100 steps a block, batches of 8 windows), GPTQ and rounding to nearest on "
    "searched steps; llm-compressor: its GPTQ on the same windows; torchao and optimum-quanto round to nearest without texts. The file holds "
    "embeddings in 32 bits as well; torchao keeps 2 and 4 bits in bytes here, since its packed kernels for these want other processors.",
    shown={"perplexity": "perplexity", "rise": "its rise", "file_mb": "weights, MB"},
    turns=1,
)


def loaded(arrays):
    """The model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    config = LlamaConfig(**LLAMA)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    named = {name.removeprefix("weights."): torch.from_numpy(value) for name, value in arrays.items() if "." in name}
    model.load_state_dict(named)
    return model.eval()


def found(model, arrays, full, seconds, size):
    """What is measured of a quantised model."""
    after = perplexity(model, arrays)
    return {"seconds": seconds, "perplexity": after, "rise": after - full, "file_mb": size / 1e6, "peak_mb": peak_mb()}


def perplexity(model, arrays):
    import torch

    ids = torch.from_numpy(arrays["held"])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).exp())


def timed(arrays, work, size):
    """A run: `work(model)` is timed, `size(model, what work gave)` says how large its file is."""
    full = perplexity(loaded(arrays), arrays)

    def run():
        model = loaded(arrays)
        start = time.perf_counter()
        made = work(model)
        seconds = time.perf_counter() - start
        return found(model, arrays, full, seconds, size(model, made))

    return run


def ours(case, arrays, **options):
    from broadsheet.language.compressed import weight_bytes, write_compressed
    from broadsheet.language.quantisation import quantise
    from broadsheet.language.quantisers import Scheme
    from broadsheet.language.tiny_world import tokenizer

    def size(model, made):
        with tempfile.TemporaryDirectory() as folder:
            return weight_bytes(write_compressed(Path(folder) / "model", model, tokenizer(), made))

    return timed(
        arrays,
        lambda model: quantise(
            model,
            arrays["after"],
            Scheme(case["bits"], symmetric=False, clip=options["method"] not in ("rtn", "gptq")),
            **options,
        ),
        size,
    )


@comparison.side("broadsheet", packages=("torch", "transformers"))
def flexround(case, arrays):
    return ours(case, arrays, method="flexround", iters=100, lr=1e-2)


@comparison.side("broadsheet, GPTQ")
def our_gptq(case, arrays):
    return ours(case, arrays, method="gptq")


@comparison.side("broadsheet, round to nearest")
def nearest(case, arrays):
    return ours(case, arrays, method="rtn")


def saved_size(model, made):
    """Bytes of the weights as PyTorch keeps them."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "model.pt")
        return (Path(folder) / "model.pt").stat().st_size


@comparison.side("torchao", environment="torchao", packages=("torchao",))
def torchao(case, arrays):
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerAxis, quantize_

    config = IntxWeightOnlyConfig(getattr(torch, f"int{case['bits']}"), PerAxis(0), MappingType.ASYMMETRIC)

    def chosen(module, name):
        return isinstance(module, torch.nn.Linear) and "lm_head" not in name

    return timed(arrays, lambda model: quantize_(model, config, filter_fn=chosen), saved_size)


@comparison.side("optimum-quanto", environment="torchao", packages=("optimum-quanto",))
def quanto(case, arrays):
    from optimum.quanto import freeze, qint2, qint4, quantize

    kind = {2: qint2, 4: qint4}[case["bits"]]

    def work(model):
        quantize(model, weights=kind, exclude="lm_head")
        freeze(model)

    return timed(arrays, work, saved_size)


@comparison.side("llm-compressor, GPTQ", environment="llmcompressor", packages=("llmcompressor",))
def llmcompressor(case, arrays):
    import logging

    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    logging.disable(logging.WARNING)
    stored = tempfile.TemporaryDirectory()  # a model is asked for its folder
    loaded(arrays).save_pretrained(stored.name)
    rows = arrays["after"].tolist()
    texts = Dataset.from_dict({"input_ids": rows, "attention_mask": np.ones_like(arrays["after"]).tolist()})
    numbers = Tokenizer(WordLevel({str(k): k for k in range(LLAMA["vocab_size"])}, unk_token="0"))
    words = PreTrainedTokenizerFast(tokenizer_object=numbers, pad_token="0")  # is asked for, and not used
    weights = QuantizationArgs(num_bits=case["bits"], type="int", symmetric=False, strategy="channel")

    def work(model):
        model.config._name_or_path = model.name_or_path = stored.name
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        recipe = GPTQModifier(ignore=["lm_head"], config_groups={"group_0": scheme})
        oneshot(
            model=model, processor=words, dataset=texts, recipe=recipe, num_calibration_samples=len(rows), max_seq_length=48
        )

    def size(model, made):
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_compressed=True)
            return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))

    return timed(arrays, work, size)
