"""Quantised models in the format compressed-tensors (`pack-quantized`), which Transformers and vLLM load.

A matrix is kept as `weight_packed`, its codes in rows of bits, 32 to a word, the smallest code as 0; `weight_scale`, in the
model's precision; `weight_zero_point`, packed like codes but down the columns, where the grid is asymmetric; `weight_shape`.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, linear_maps
from broadsheet.language.quantisation import Quantised
from broadsheet.language.quantisers import Integers, Scheme
from broadsheet.numerics.quantisation import code_range

FORMAT = "pack-quantized"


def packed(codes: torch.Tensor, bits: int, symmetric: bool) -> torch.Tensor:
    """Codes (rows, columns) as words of 32 bits, (rows, ceil(columns bits / 32)), int32; a row begins in a new word."""
    least = code_range(bits, symmetric)[0]
    raised = (codes.cpu().numpy().astype(np.int16) - least).astype(np.uint8)
    each = np.unpackbits(raised[..., None], axis=-1, count=bits, bitorder="little").reshape(len(raised), -1)
    words = np.packbits(np.pad(each, ((0, 0), (0, -each.shape[1] % 32))), axis=1, bitorder="little")
    return torch.from_numpy(np.ascontiguousarray(words).view("<i4"))


def packed_tensors(integers: Integers, scheme: Scheme) -> dict[str, torch.Tensor]:
    """What the format keeps of a matrix, by the names that follow its module's."""
    kept = {
        "weight_packed": packed(integers.codes, scheme.bits, scheme.symmetric),
        "weight_scale": integers.step,
        "weight_shape": torch.tensor(integers.codes.shape),
    }
    if not scheme.symmetric:
        kept["weight_zero_point"] = packed(integers.zero.T, scheme.bits, False).T.contiguous()
    return kept


def check_writable(model: Any) -> None:
    """Raises `InputError` where the format has no place for the maps of a model's blocks: it packs `torch.nn.Linear` alone."""
    for layer in range(len(blocks(model))):
        for path, found in linear_maps(model, layer).items():
            if not isinstance(found, torch.nn.Linear):
                raise InputError(
                    f"{path} of the {type(model).__name__} is a {type(found).__name__}; compressed-tensors packs "
                    "torch.nn.Linear alone, and cannot hold such a model."
                )
    for name, weights in blocks(model).named_parameters():
        if weights.ndim > 2:
            raise InputError(
                f"Block {name.replace('.', ': ', 1)} of the {type(model).__name__} has the shape {tuple(weights.shape)}; "
                "compressed-tensors packs matrices alone, and Transformers would not load the model again."
            )


def check_folder(folder: Path) -> None:
    """Raises `InputError` where a model cannot be written without writing over something."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is there already; a new folder is wanted.")


def quantization_config(model: Any, made: Quantised) -> dict[str, Any]:
    """What a model's `config.json` says of the format."""
    scheme, chosen = made.plan.scheme, set(made.integers)
    linear = [path for path, found in model.named_modules() if isinstance(found, torch.nn.Linear)]
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "group" if scheme.per == "group" else "channel",  # where all steps of a matrix are one it is repeated
        "group_size": scheme.group_size if scheme.per == "group" else None,
        "dynamic": False,
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None, "format": FORMAT}
    # Transformers 5.24 has room for packed zeros only where it unpacks while it loads
    unpacked = {} if scheme.symmetric else {"dequantize": True}
    return unpacked | {
        "quant_method": "compressed-tensors",
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [path for path in linear if path not in chosen],
        "kv_cache_scheme": None,
        "version": version("compressed-tensors"),
    }


def write_compressed(folder: str | Path, model: Any, tokenizer: Any, made: Quantised) -> Path:
    """Writes a quantised model as a folder that `AutoModelForCausalLM.from_pretrained` loads, with its tokenizer.

    What is loaded in the precision of the model has its weights, bit by bit. The folder appears when it is whole. Transformers
    loads all of 2 to 8 bits; vLLM 4 and 8, and groups of 32, 64 or 128.

    **Raises:** `InputError` where the folder is there already, or a quantised map is no `torch.nn.Linear` (GPT-2).
    """
    folder = Path(folder)
    check_folder(folder)
    check_writable(model)
    state = {name: value for name, value in model.state_dict().items() if name.removesuffix(".weight") not in made.integers}
    for path, integers in made.integers.items():
        state |= {f"{path}.{name}": value for name, value in packed_tensors(integers, made.plan.scheme).items()}
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    try:
        model.save_pretrained(scratch, state_dict=state)
        tokenizer.save_pretrained(scratch)
        file = scratch / "config.json"
        settings = json.loads(file.read_text()) | {"quantization_config": quantization_config(model, made)}
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return folder


def weight_bytes(folder: str | Path) -> int:
    """Bytes of the weights in a model's folder."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
