"""Equinox models with weights of few bits, made from a few hundred samples and saved as packed integers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError
from broadsheet.files import load_arrays
from broadsheet.learn.reconstruction import Given, Quantised, Reconstruction, reconstruct
from broadsheet.learn.rounding import Activations, Params, Rounding, SecondOrder
from broadsheet.learn.surgery import (
    Around,
    Call,
    Place,
    arrays_of,
    block_of,
    calls,
    layers_of,
    module_at,
    name_of,
    outputs,
    passed,
    second_moment,
    with_modules,
)
from broadsheet.numerics.quantisation import Grid, pack, packed_bytes, unpack

Samples = Float[Array, "samples ..."]
SAMPLES_FOR_STEPS = 256
"""Samples on which the first steps of activations are found."""


class RoundedInput(Around):
    """A layer whose inputs are quantised."""

    rule: Activations
    params: Params

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Any:
        return self.module(self.rule.quantize(self.params, x), *args, **kwargs)


class QuantModel:
    """A model whose weights are integers times a step.

    **Arguments:**

    - `model`: an Equinox module, called with one sample (`batched`: with many along the first axis). Its layers and blocks are
      those of `broadsheet.learn.surgery`.
    - `quantizer`: of its weights; `others`: other quantisers by a layer's name (`"layers.0"`), such as 8 bits for the first.
    - `granularity`: learn layer by layer or block by block; `SecondOrder` always goes by layers.
    - `skip`: layers whose name has one of these words stay as they are.
    - `activations`: also quantise the inputs of these layers.
    - `iters`, `rate`, `batch`, `drop`: of `reconstruct`.

    After `fit` or `load`: `weights_` and `activations_` by layer, `model_`; after `fit` also `params_` by layer, what was
    learned, and `losses_` by block.

    **Raises:** `InputError` where nothing is left to quantise.
    """

    def __init__(
        self,
        model: PyTree,
        quantizer: Rounding,
        *,
        granularity: Literal["layer", "block"] = "layer",
        skip: Sequence[str] = ("embed", "head", "norm"),
        others: Mapping[str, Rounding] | None = None,
        activations: Activations | None = None,
        iters: int = 600,
        rate: float = 3e-3,
        batch: int = 32,
        drop: float = 0.0,
        batched: bool = False,
    ) -> None:
        if granularity not in ("layer", "block"):
            raise InputError(f"granularity is {granularity!r}; 'layer' or 'block' is wanted.")
        self.model, self.quantizer, self.granularity = model, quantizer, granularity
        self.others, self.activations, self.batched = dict(others or {}), activations, batched
        self.iters, self.rate, self.batch, self.drop = iters, rate, batch, drop
        self.places = layers_of(model, skip)
        if not self.places:
            raise InputError("The model has no layer to quantise: no module with a weight of two axes is left.")
        unknown = sorted(set(self.others) - set(self.places))
        if unknown:
            raise InputError(f"There is no layer {unknown[0]!r}; there are {', '.join(self.places)}.")

    def fit(
        self, calibration: Given, *, key: PRNGKeyArray | None = None, report: Callable[[float], None] | None = None
    ) -> QuantModel:
        """Learns the rounding on these samples, block after block; `report` is told how far it is."""
        x = jnp.asarray(calibration)
        if not len(x) or not np.isfinite(np.asarray(x)).all():
            raise InputError("The calibration samples are none, or hold numbers that are not finite.")
        key = jax.random.key(0) if key is None else key
        self.weights_: dict[str, Quantised] = {}
        self.params_: dict[str, Params] = {}
        self.activations_: dict[str, Params] = {}
        self.losses_: dict[str, np.ndarray] = {}
        self.model_ = self.model
        blocks = self._blocks(x)
        for k, (place, (names, call)) in enumerate(blocks.items()):
            found = self._fit_block(place, names, call, x, jax.random.fold_in(key, k))
            self.weights_ |= found.weights
            self.params_ |= found.params
            self.activations_ |= found.activations
            self.losses_[name_of(place)] = found.losses
            self.model_ = self._assembled(self.model)
            if report is not None:
                report((k + 1) / len(blocks))
        return self

    def _blocks(self, x: Samples) -> dict[Place, tuple[list[str], Call]]:
        """Place -> layers and call of each block, in the order of calls."""
        whole = self.granularity == "block" and not isinstance(self.quantizer, SecondOrder)
        members: dict[Place, list[str]] = {}
        for name, place in self.places.items():
            members.setdefault(block_of(place) if whole else place, []).append(name)
        return {place: (members[place], call) for place, call in calls(self.model, list(members), x[:1], self.batched).items()}

    def _fit_block(self, place: Place, names: list[str], call: Call, x: Samples, key: PRNGKeyArray) -> Reconstruction:
        x_full, y_full = passed(self.model, place, x, self.batched)
        x_now, _ = passed(self.model_, place, x, self.batched)
        inputs, moments = {}, {}
        numbers = {name: str(k) for k, name in enumerate(names)}  # not names: blocks of one shape are one program
        for name, number in numbers.items():
            layer = module_at(self.model, self.places[name])
            if self.activations is not None:
                inputs[number] = passed(self.model_, self.places[name], x[:SAMPLES_FOR_STEPS], self.batched)[0]
            if isinstance(self.others.get(name, self.quantizer), SecondOrder):
                given = x_now if self.places[name] == place else passed(self.model_, self.places[name], x, self.batched)[0]
                moments[number] = second_moment(layer, given, self.batched)
        within = {number: self.places[name][len(place) :] for name, number in numbers.items()}
        block = _Block(module_at(self.model, place), tuple(within.items()), call, self.batched)
        weights = {number: module_at(self.model, self.places[name]).weight for name, number in numbers.items()}
        found = reconstruct(
            block, weights, x_full, x_now, y_full, self.quantizer, iters=self.iters, rate=self.rate, batch=self.batch, key=key,
            drop=self.drop, activations=self.activations, inputs=inputs, moments=moments,
            others={numbers[name]: other for name, other in self.others.items() if name in numbers},
        )  # fmt: skip
        return found._replace(
            weights={name: found.weights[number] for name, number in numbers.items()},
            params={name: found.params[number] for name, number in numbers.items()},
            activations={name: found.activations[number] for name, number in numbers.items() if number in found.activations},
        )

    def _assembled(self, model: PyTree) -> PyTree:
        """The model with what was learned so far in its places."""
        weights = {(*self.places[name], "weight"): jnp.asarray(each.weight) for name, each in self.weights_.items()}
        model = with_modules(model, weights)
        if self.activations is None:
            return model
        return with_modules(model, {
            self.places[name]: RoundedInput(module_at(model, self.places[name]), self.activations, params)
            for name, params in self.activations_.items()
        })  # fmt: skip

    def predict(self, x: Given) -> Samples:
        """The outputs of the quantised model for samples along the first axis."""
        return outputs(self._fitted(), jnp.asarray(x), self.batched)

    def _fitted(self) -> PyTree:
        if not hasattr(self, "model_"):
            raise InputError("The model is not quantised yet; call fit with samples, or load.")
        return self.model_

    def size_bytes(self) -> int:
        """Bytes of packed integers with their steps and zero points, and of all arrays that are not quantised."""
        rest = _rest(self._fitted() if self.activations is None else self.model, self._weight_places())
        size = sum(leaf.nbytes for leaf in rest.values())
        size += sum(np.asarray(value).nbytes for row in self.activations_.values() for value in row.values())
        for codes, grid in self.weights_.values():
            size += packed_bytes(codes.size, grid.bits) + grid.step.nbytes + (0 if grid.symmetric else grid.zero.size)
        return size

    def _weight_places(self) -> set[Place]:
        return {(*place, "weight") for place in self.places.values()}

    def save(self, path: str | Path) -> None:
        """Writes packed integers, steps, zero points and all other arrays as safetensors."""
        from safetensors.numpy import save

        self._fitted()
        arrays: dict[str, np.ndarray] = {}
        about: dict[str, Any] = {}
        for name, (codes, grid) in self.weights_.items():
            arrays[f"{name}.codes"] = pack(codes, grid.bits, grid.symmetric)
            arrays |= {f"{name}.step": grid.step, f"{name}.zero": grid.zero}
            about[name] = {"bits": grid.bits, "symmetric": grid.symmetric, "shape": codes.shape}
        for name, row in self.activations_.items():
            arrays |= {f"{name}.inputs.{part}": np.asarray(value) for part, value in row.items()}
        arrays |= {
            f"rest.{name_of(place)}": np.asarray(leaf) for place, leaf in _rest(self.model, self._weight_places()).items()
        }
        with writing(Path(path)) as stream:
            stream.write(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, {"quantised": json.dumps(about)}))

    def load(self, path: str | Path) -> QuantModel:
        """Reads what `save` wrote for a model of this structure. Raises `DataError` where the file is of another."""
        arrays = load_arrays(path)
        about = _about(Path(path))
        if set(about) != set(self.places):
            raise DataError(f"{path} is of another model: its layers are {', '.join(about) or 'none'}.")
        try:
            weights = {name: _read_weight(arrays, name, row) for name, row in about.items()}
            steps = {
                name: {part: jnp.asarray(arrays[f"{name}.inputs.{part}"]) for part in ("log_step", "low", "high")}
                for name in about
                if self.activations is not None
            }
            rest = {
                place: jnp.asarray(arrays[f"rest.{name_of(place)}"]) for place in _rest(self.model, self._weight_places())
            }  # fmt: skip
        except KeyError as error:
            raise DataError(f"{path} is of another model: it has no {error.args[0]}.") from None
        except (TypeError, ValueError, InputError) as error:
            raise DataError(f"{path} is damaged ({error}).") from None
        places = {(*self.places[name], "weight"): each.codes.shape for name, each in weights.items()}
        for place, shape in (places | {place: leaf.shape for place, leaf in rest.items()}).items():
            if module_at(self.model, place).shape != shape:
                raise DataError(f"{path} is of another model: {name_of(place)} is {shape} there.")
        self.weights_, self.activations_, self.params_, self.losses_ = weights, steps, {}, {}
        self.model = with_modules(self.model, rest)
        self.model_ = self._assembled(self.model)
        return self


class _Block(eqx.Module):
    """A block as a function of its weights: `block(weights, x)`, or `block(weights, x, quantise)`."""

    module: Any
    within: tuple[tuple[str, Place], ...] = eqx.field(static=True)
    call: Call = eqx.field(static=True)
    batched: bool = eqx.field(static=True)

    def __call__(self, weights: Mapping[str, Array], x: Samples, quantise: Callable | None = None) -> Samples:
        module = with_modules(self.module, {(*place, "weight"): weights[name] for name, place in self.within})

        def run(x: Array, sample: Array | int) -> Array:
            made = module
            if quantise is not None:
                taken = {place: _Taken(module_at(module, place), name, quantise, sample) for name, place in self.within}
                made = with_modules(module, taken)
            return made(x, *self.call.args, **dict(self.call.kwargs))

        return run(x, 0) if self.batched else jax.vmap(run)(x, jnp.arange(len(x)))


class _Taken(Around):
    """A layer whose inputs go through `quantise`, while the rounding is learned."""

    name: str = eqx.field(static=True)
    quantise: Callable = eqx.field(static=True)
    sample: Array | int

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Any:
        return self.module(self.quantise(self.name, x, self.sample), *args, **kwargs)


def quantize_model(
    model: PyTree, calibration: Given, quantizer: Rounding, *, key: PRNGKeyArray | None = None, **options: Any
) -> QuantModel:
    """`QuantModel(model, quantizer, **options).fit(calibration)`."""
    return QuantModel(model, quantizer, **options).fit(calibration, key=key)


def _rest(model: PyTree, without: set[Place]) -> dict[Place, Array]:
    """All arrays of a model but these."""
    return {place: leaf for place, leaf in arrays_of(model).items() if place not in without}


def _about(path: Path) -> dict[str, Any]:
    """What the header of a saved model says of its weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})["quantised"])
        if not all(isinstance(row, dict) and {"bits", "symmetric", "shape"} <= row.keys() for row in about.values()):
            raise ValueError("layers without bits")
    except (SafetensorError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path} holds no quantised model ({error}).") from None
    return about


def _read_weight(arrays: Mapping[str, np.ndarray], name: str, row: Mapping[str, Any]) -> Quantised:
    codes = unpack(arrays[f"{name}.codes"], tuple(row["shape"]), row["bits"], row["symmetric"])
    return Quantised(codes, Grid(arrays[f"{name}.step"], arrays[f"{name}.zero"], row["bits"], row["symmetric"]))
