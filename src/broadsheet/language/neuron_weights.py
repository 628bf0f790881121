"""The weights of MLP neurons, layer by layer: of a model in memory, or read in slices from the safetensors files of a folder.

What is read from a folder is never held whole: a slice is copied and its file closed again. Only which part is which is asked
of a skeleton of the model, without weights but for those of its first block.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.files import read_json
from broadsheet.language import anatomy
from broadsheet.language.models import model_folder

SITES = ("up", "gate", "down")
"""A neuron's vectors in the residual stream: its rows of the maps up and gate, by which it reads, and its column of the map
down, by which it writes."""


class NeuronWeights(Protocol):
    """Where the vectors of neurons come from."""

    layers: int
    tokens: int

    def count(self, layer: int) -> int:
        """Neurons of a layer."""

    def vectors(self, site: str, layer: int, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The vectors (neurons, width) of some neurons of a layer, float32."""

    def unembedding(self) -> torch.Tensor:
        """(tokens, width), in the precision that it has."""

    def final_norm(self) -> Any:
        """The norm before the unembedding, in float32."""

    def input_norm(self, layer: int) -> Any:
        """The norm that the MLP of a layer reads through, in float32; None where there is none."""


def neuron_weights(source: Any) -> NeuronWeights:
    """Those of a model, or of a folder or name on the Hub with safetensors, which is not loaded.

    **Raises:** `InputError` for a model without unembedding or without an MLP of separate maps, `MissingDataError` and
    `DataError` for a folder without weights.
    """
    if isinstance(source, str | Path):
        return StoredNeurons(model_folder(str(source)))
    return source if isinstance(source, LoadedNeurons | StoredNeurons) else LoadedNeurons(source)


def _float_copy(module: Any) -> Any:
    return copy.deepcopy(module).float()


class LoadedNeurons:
    """The neurons of a model in memory."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = len(anatomy.blocks(model))
        self.tokens = anatomy.matrix(anatomy.unembedding(model)).shape[0]
        self._mlps = [anatomy.mlp(model, layer) for layer in range(self.layers)]

    def count(self, layer: int) -> int:
        return self._mlps[layer].neurons

    def vectors(self, site: str, layer: int, start: int = 0, stop: int | None = None) -> torch.Tensor:
        module = _site(site, self._mlps[layer], self.model)
        found = anatomy.matrix(module).detach()
        return _whole((found.T if site == "down" else found)[start:stop].float(), site, layer)

    def unembedding(self) -> torch.Tensor:
        return anatomy.matrix(anatomy.unembedding(self.model)).detach()

    def final_norm(self) -> Any:
        return _float_copy(anatomy.final_norm(self.model))

    def input_norm(self, layer: int) -> Any:
        norm = anatomy.norm_before(self.model, layer, self._mlps[layer].up)
        return None if norm is None else _float_copy(norm)


class StoredNeurons:
    """The neurons of a model that stays on the disk.

    **Raises:** `MissingDataError` for a folder without configuration or safetensors, `DataError` for weights that are not
    there or have another shape, `InputError` as `anatomy.mlp` does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = _files(folder)
        self._model = _skeleton(folder)
        self.layers = len(anatomy.blocks(self._model))
        first = anatomy.block(self._model, 0)
        start = anatomy.path_of(self._model, first)
        self._fill(first, start, whole=False)  # what is no MLP of separate maps says so itself
        try:
            found = anatomy.mlp(self._model, 0)
        except (RuntimeError, NotImplementedError):
            raise DataError(f"{folder} has not all weights of the MLP of block 0; its configuration asks for them.") from None
        self._paths = {}
        self._turned = {}
        for site in SITES:
            module = getattr(found, site)
            if module is not None:
                self._paths[site] = anatomy.path_of(self._model, module).removeprefix(f"{start}.")
                self._turned[site] = (site == "down") != hasattr(module, "nf")
        first.to("meta")
        self._blocks = start.removesuffix("0")
        self.tokens = int(self._shape(self._unembedding_name())[0])

    def count(self, layer: int) -> int:
        return self._shape(self._name("down", layer))[0 if self._turned["down"] is False else 1]

    def vectors(self, site: str, layer: int, start: int = 0, stop: int | None = None) -> torch.Tensor:
        _check_site(site, self._paths, self._model)
        name, turned = self._name(site, layer), self._turned[site]
        with self._open(name) as (file, key):
            part = file.get_slice(key)
            found = part[:, start:stop].T if turned else part[start:stop]
            return _whole(found.to(torch.float32, copy=True, memory_format=torch.contiguous_format), site, layer)

    def unembedding(self) -> torch.Tensor:
        return self._tensor(self._unembedding_name())

    def final_norm(self) -> Any:
        return self._read(anatomy.final_norm(self._model))

    def input_norm(self, layer: int) -> Any:
        first = anatomy.part(self._model, f"{self._blocks}{layer}.{self._paths['up']}")
        norm = anatomy.norm_before(self._model, layer, first)
        return None if norm is None else self._read(norm)

    def _name(self, site: str, layer: int) -> str:
        return f"{self._blocks}{layer}.{self._paths[site]}.weight"

    def _unembedding_name(self) -> str:
        """The embedding's name where it is tied to it; files may call it otherwise (GPT-NeoX: `embed_out`), as the only one of
        its shape that the model does not know."""
        last = anatomy.unembedding(self._model)
        own = f"{anatomy.path_of(self._model, last)}.weight"
        if getattr(self._model.config.get_text_config(decoder=True), "tie_word_embeddings", False):
            return f"{anatomy.path_of(self._model, anatomy.embedding(self._model))}.weight"
        if self._key(own) is None:
            known = {self._key(name) for name in self._model.state_dict()}
            like = list(anatomy.matrix(last).shape)
            others = [name for name in self._files if name not in known and self._shape(name) == like]
            own = others[0] if len(others) == 1 else own
        return own

    def _key(self, name: str) -> str | None:
        """What the files call a parameter: they may leave out the prefix of the model's body, or have it."""
        prefix = f"{self._model.base_model_prefix}."
        tried = (name, name.removeprefix(prefix), prefix + name)
        return next((each for each in tried if each in self._files), None)

    def _open(self, name: str) -> _Tensor:
        key = self._key(name)
        if key is None:
            raise DataError(f"{self.folder} has no weights {name!r}; its configuration asks for them.")
        return _Tensor(self._files[key], key)

    def _shape(self, name: str) -> list[int]:
        with self._open(name) as (file, key):
            return file.get_slice(key).get_shape()

    def _tensor(self, name: str) -> torch.Tensor:
        with self._open(name) as (file, key):
            found = file.get_tensor(key).clone()
        if not torch.isfinite(found).all():
            raise DataError(f"The weights {name!r} of {self.folder} hold NaN or infinity.")
        return found

    def _read(self, module: Any) -> Any:
        """A copy of a part of the skeleton with its weights, in float32."""
        return self._fill(copy.deepcopy(module), anatomy.path_of(self._model, module)).float()

    def _fill(self, module: Any, path: str, whole: bool = True) -> Any:
        """Gives a part its weights; all of them, or those that are there."""
        names = [name for name in module.state_dict() if whole or self._key(f"{path}.{name}") is not None]
        try:
            module.load_state_dict({name: self._tensor(f"{path}.{name}") for name in names}, strict=whole, assign=True)
        except RuntimeError as error:
            raise DataError(
                f"The weights of {path!r} in {self.folder} do not fit: {str(error).splitlines()[-1].strip()}"
            ) from None
        return module


class _Tensor:
    """A file of tensors and the key of one, open for a while."""

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key

    def __enter__(self) -> tuple[Any, str]:
        try:
            self.open = safe_open(self.file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise DataError(f"{self.file} cannot be read: {error}") from None
        return self.open.__enter__(), self.key

    def __exit__(self, *error: Any) -> None:
        self.open.__exit__(*error)


def _files(folder: Path) -> dict[str, Path]:
    """Name of each tensor -> its file."""
    if not (folder / "config.json").is_file():
        raise MissingDataError(f"{folder} has no config.json; a folder with a Hugging Face model is wanted.")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = read_json(index).get("weight_map", {})
        if not all((folder / Path(file).name).is_file() for file in named.values()):
            raise MissingDataError(f"{folder} lacks files of weights that {index.name} names.")
        return {name: folder / Path(file).name for name, file in named.items()}
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stream:
                found |= dict.fromkeys(stream.keys(), file)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file} cannot be read: {error}") from None
    if not found:
        raise MissingDataError(f"{folder} has no weights in safetensors.")
    return found


def _skeleton(folder: Path) -> Any:
    """The model without weights."""
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config).eval()
    except (OSError, ValueError) as error:
        raise MissingDataError(
            f"{folder} cannot be read: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
        ) from None


def _site(site: str, found: anatomy.MLP, model: Any) -> Any:
    _check_site(site, {name for name in SITES if getattr(found, name) is not None}, model)
    return getattr(found, site)


def _check_site(site: str, there: Any, model: Any) -> None:
    if site not in SITES:
        raise InputError(f"The site is {site!r}; {', '.join(SITES)} are there.")
    if site not in there:
        raise InputError(f"The MLPs of a {type(model).__name__} have no gate; up and down can be read.")


def _whole(found: torch.Tensor, site: str, layer: int) -> torch.Tensor:
    if not torch.isfinite(found).all():
        raise DataError(f"The weights {site} of layer {layer} hold NaN or infinity.")
    return found
