"""Models in the format compressed-tensors: against the package's own packing, and what Transformers loads back."""

import json

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from broadsheet.errors import InputError
from broadsheet.language.anatomy import linear_maps, matrix
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.compressed import packed, weight_bytes, write_compressed
from broadsheet.language.models import load
from broadsheet.language.quantisation import quantise
from broadsheet.language.quantisers import Scheme
from broadsheet.language.tiny_world import WORDS, tokenizer

SIZES = Sizes(words=len(WORDS), width=64, blocks=2, heads=4, positions=24, mlp=96)
IDS = torch.randint(6, len(WORDS), (4, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_are_packed_as_the_package_packs_them(bits):
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 37), generator=torch.Generator().manual_seed(bits))
    theirs = pack_to_int32(codes.to(torch.int8), bits)
    assert torch.equal(packed(codes.to(torch.int8), bits, True), theirs)
    assert torch.equal(packed((codes + 2 ** (bits - 1)).to(torch.uint8), bits, False), theirs)


def stored(kind, dtype, folder):
    """A model as it comes from a folder, in a precision."""
    new_model(kind, SIZES, seed=4).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return load(str(folder), dtype=dtype, attention="eager")


@pytest.mark.parametrize(
    ("kind", "dtype", "scheme"),
    [
        ("llama", torch.float32, Scheme(4)),
        ("llama", torch.bfloat16, Scheme(4, symmetric=False, per="group", group_size=32)),
        ("llama", torch.float32, Scheme(8, symmetric=False)),
        ("llama", torch.bfloat16, Scheme(8, per="group", group_size=32)),
        ("qwen2", torch.float16, Scheme(4, symmetric=False)),
        ("mistral", torch.bfloat16, Scheme(3, per="group", group_size=16)),
        ("olmo2", torch.float32, Scheme(2, symmetric=False, per="group", group_size=32)),
        ("gpt_neox", torch.float32, Scheme(4, per="tensor")),
    ],
)
def test_a_model_that_is_loaded_back_gives_the_same_logits(kind, dtype, scheme, tmp_path):
    model, words = stored(kind, dtype, tmp_path / "full")
    made = quantise(model, IDS, scheme, iters=1, batch=4)
    folder = write_compressed(tmp_path / "small", model, words, made)
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        assert torch.equal(theirs(input_ids=IDS).logits, wanted)
        ours, again = load(str(folder), dtype=dtype, attention="eager")
        assert torch.equal(ours(input_ids=IDS).logits, wanted)
    assert again(["the city of"])["input_ids"] == words(["the city of"])["input_ids"]
    for one, other in zip(linear_maps(model, 1).values(), linear_maps(ours, 1).values(), strict=True):
        assert torch.equal(matrix(one), matrix(other))
    assert not list(tmp_path.glob(".*"))


def test_four_bits_take_an_eighth_of_thirty_two(tmp_path):
    model, words = stored("llama", torch.float32, tmp_path / "full")
    maps = [found for layer in range(2) for found in linear_maps(model, layer).values()]
    numbers, outputs = sum(matrix(found).numel() for found in maps), sum(len(matrix(found)) for found in maps)
    made = quantise(model, IDS, Scheme(4), method="rtn")
    folder = write_compressed(tmp_path / "small", model, words, made)
    saved = weight_bytes(tmp_path / "full") - weight_bytes(folder)
    shapes = 16 * len(maps)  # two integers of 64 bits each
    assert abs(saved - (4 * numbers - numbers // 2 - 4 * outputs - shapes)) < 4000  # names in the header
    held = load_file(folder / "model.safetensors")
    assert {str(part.dtype) for name, part in held.items() if name.endswith("weight_packed")} == {"torch.int32"}
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert settings.pop("version")
    read = QuantizationConfig.model_validate(settings)
    assert read.config_groups["group_0"].weights.num_bits == 4
    assert read.ignore == ["lm_head"]


def test_what_cannot_be_written_gets_a_sentence(tmp_path):
    model = new_model("gpt2", SIZES)
    made = quantise(model, IDS, Scheme(4), method="rtn")
    with pytest.raises(InputError, match=r"is a Conv1D; compressed-tensors packs torch.nn.Linear alone"):
        write_compressed(tmp_path / "small", model, tokenizer(), made)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_compressed(tmp_path / "full", model, tokenizer(), made)
