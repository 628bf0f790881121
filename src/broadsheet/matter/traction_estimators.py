"""Tractions from images, learned: a U-Net, a physical bottleneck and a Green's function network as scikit-learn estimators.

Images are (cells, channels, height, width); forces (cells, 2, height, width) in kPa, x along columns before y along rows. What
is learned is saved as safetensors (`save_forces`, `load_forces`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.matter.elastic_sheet import checked_mask, node_displacement, pixel_means
from broadsheet.matter.traction_baselines import ForceEstimator, as_images, paired
from broadsheet.matter.traction_nets import GreensNet, SheetNet, UNet

Batch = tuple[Array, Array]
Progress = Callable[[float, float], None]


class Samples(eqx.Module):
    """Cells drawn at random, turned and mirrored at random where `turn` is set."""

    X: Float[Array, "cells height width channels"]
    F: Float[Array, "cells height width 2"]
    size: int = eqx.field(static=True)
    turn: bool = eqx.field(static=True)

    def __call__(self, key: Array) -> Batch:
        k_rows, k_turn = jax.random.split(key)
        rows = jax.random.randint(k_rows, (self.size,), 0, len(self.X))
        X, F = self.X[rows], self.F[rows]
        if not self.turn:
            return X, F
        swap, left, up = jax.random.bernoulli(k_turn, 0.5, (3, self.size, 1, 1, 1))
        if X.shape[1] == X.shape[2]:
            X, F = jnp.where(swap, X.swapaxes(1, 2), X), jnp.where(swap, F.swapaxes(1, 2)[..., ::-1], F)
        X, F = jnp.where(left, X[:, :, ::-1], X), jnp.where(left, F[:, :, ::-1] * jnp.array([-1.0, 1.0]), F)
        return jnp.where(up, X[:, ::-1], X), jnp.where(up, F[:, ::-1] * jnp.array([1.0, -1.0]), F)


@functools.lru_cache(maxsize=32)
def _adamw(rate: float, decay: float, steps: int, kernels: float = 0.0) -> optax.GradientTransformation:
    """AdamW with a rate that rises for a tenth of the steps and then falls to nothing; another one for Fourier kernels."""

    def rule(peak: float, decay: float) -> optax.GradientTransformation:
        schedule = optax.warmup_cosine_decay_schedule(0.1 * peak, peak, max(1, steps // 10), max(2, steps), 0.01 * peak)
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=decay))

    if not kernels:
        return rule(rate, decay)

    def groups(net: GreensNet) -> GreensNet:
        made = jax.tree.map(lambda _: "net", net)
        return eqx.tree_at(lambda net: (net.log_kernel, net.sign), made, ("kernel", "kernel"))

    return optax.multi_transform({"net": rule(rate, decay), "kernel": rule(kernels, 0.0)}, groups)


class NetForce(ForceEstimator):
    """What the three have in common: scales, training, prediction in batches. `report(share, loss)` is called as it trains."""

    @property
    def multiple(self) -> int:
        """Images are padded to a multiple of so many pixels."""
        return 1

    def fit(self, X: Any, y: Any, report: Progress | None = None) -> NetForce:
        X, F = paired(X, y)
        self._check(X, F)
        self.n_channels_, self.shape_ = X.shape[1], X.shape[2:]
        self.image_scale_ = np.sqrt((X**2).mean(axis=(0, 2, 3))).astype(np.float32)
        self.force_scale_ = float(np.sqrt((F**2).sum(axis=1).mean()))
        if not (self.image_scale_ > 0).all() or not self.force_scale_ > 0:
            raise InputError(f"{type(self).__name__}: a channel of the images, or the forces, are 0 everywhere.")
        images = self._scaled(X)
        forces = jnp.asarray(np.moveaxis(self._padded(F / self.force_scale_), 1, -1), jnp.float32)
        self.losses_ = np.zeros(0)
        self.network_ = self._train(self._network(), Samples(images, forces, min(self.batch, len(X)), self.turn), report)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "cells 2 height width"]:
        check_is_fitted(self, "network_")
        X = as_images(X, self.n_channels_)
        self._check_images(X)
        height, width = X.shape[2:]
        images, made = self._scaled(X), []
        for start in range(0, len(X), self.batch):
            force = np.asarray(self._forces(images[start : start + self.batch]), float) * self.force_scale_
            made.append(np.moveaxis(force, -1, 1)[:, :, :height, :width])
        return np.concatenate(made)

    def _run(self, net: Any, loss: Any, data: Samples, optimiser: Any, steps: int, report: Progress | None,
             stage: int = 0) -> Any:  # fmt: skip
        whole = self.steps + getattr(self, "pretrain", 0)
        done = whole - steps if stage == 0 else 0
        made = fit(
            net, loss, data, optimiser=optimiser, steps=steps, key=jax.random.key(self.random_state + stage),
            report=None if report is None else lambda step, value: report((done + step) / whole, value),
        )  # fmt: skip
        self.losses_ = np.concatenate([self.losses_, made.losses])
        return made.model

    def _padded(self, images: np.ndarray) -> np.ndarray:
        rest = [-side % self.multiple for side in images.shape[2:]]
        return np.pad(images, ((0, 0), (0, 0), (0, rest[0]), (0, rest[1])))

    def _scaled(self, X: np.ndarray) -> Array:
        return jnp.asarray(np.moveaxis(self._padded(X / self.image_scale_[:, None, None]), 1, -1))

    def _check(self, X: np.ndarray, F: np.ndarray) -> None:
        if self.steps + getattr(self, "pretrain", 0) < 1 or min(self.steps, self.batch - 1) < 0:
            raise InputError(f"{type(self).__name__}: steps = {self.steps}, batch = {self.batch}; 1 at least is wanted.")
        self._check_images(X)

    def _check_images(self, X: np.ndarray) -> None:
        """Nothing more is asked of images here."""

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.random_state)


class FieldLoss(eqx.Module):
    """Squared error of a network's field; `polar`: of amount, and of angle where there is a force, as published."""

    polar: bool = eqx.field(static=True)

    def __call__(self, net: Any, batch: Batch, key: Array) -> Array:
        X, F = batch
        found = net(X)
        if not self.polar:
            return jnp.mean(jnp.sum((found - F) ** 2, axis=-1))
        size = jnp.sqrt(jnp.sum(F**2, axis=-1))
        away = jnp.arctan2(F[..., 1], F[..., 0]) - found[..., 1]
        wrapped = jnp.arctan2(jnp.sin(away), jnp.cos(away)) ** 2
        there = size > 0
        return 10 * jnp.mean((found[..., 0] - size) ** 2) + jnp.sum(wrapped * there) / jnp.maximum(there.sum(), 1)


@eqx.filter_jit
def _field(net: Any, X: Array, polar: bool) -> Array:
    found = net(X)
    if polar:
        found = found[..., :1] * jnp.stack([jnp.cos(found[..., 1]), jnp.sin(found[..., 1])], axis=-1)
    return found


class UNetForce(NetForce, BaseEstimator):
    """Tractions by the ConvNext U-Net, straight from the image.

    **Parameters:**

    - `channels`: at full size, twice as many at each of the `stages`, each of which is 4 times smaller; `blocks`: in a row.
    - `target`: `"xy"`, the two components, or `"polar"`: amount and angle, the published loss (angles are learned where there
      is a force: set weak ones to 0).
    - `steps`, `batch`, `rate`, `decay` (of weights); `turn`: turn and mirror cells at random; `random_state`.

    **Attributes:** `network_`; `losses_`; `image_scale_`; `force_scale_`.
    """

    def __init__(
        self, channels: int = 4, *, stages: int = 3, blocks: int = 4, target: Literal["xy", "polar"] = "xy", steps: int = 1000,
        batch: int = 8, rate: float = 1e-3, decay: float = 1e-2, turn: bool = True, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.channels = channels
        self.stages = stages
        self.blocks = blocks
        self.target = target
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.decay = decay
        self.turn = turn
        self.random_state = random_state

    @property
    def multiple(self) -> int:
        return 4**self.stages

    def _network(self) -> UNet:
        return UNet(self._rng(), self.n_channels_, channels=self.channels, stages=self.stages, blocks=self.blocks)

    def _train(self, net: UNet, data: Samples, report: Progress | None) -> UNet:
        if self.target not in ("xy", "polar"):
            raise InputError(f"UNetForce: target = {self.target!r}; xy or polar is wanted.")
        loss, optimiser = FieldLoss(self.target == "polar"), _adamw(self.rate, self.decay, self.steps)
        return self._run(net, loss, data, optimiser, self.steps, report)

    def _forces(self, images: Array) -> Array:
        return _field(self.network_, images, self.target == "polar")


class SheetPhysics(eqx.Module):
    """From what a `SheetNet` says to tractions: exp, blur, and the elastic sheet. Images have the mask as last channel."""

    h: float = eqx.field(static=True)
    blur: float = eqx.field(static=True)
    floor: float = eqx.field(static=True)

    def fields(self, net: SheetNet, X: Array) -> tuple[Array, Array, Array, Array]:
        """Mask, stiffness, sigma_a and alpha."""
        mask = X[..., -1] > 0
        field, numbers = net(X, mask.astype(X.dtype))
        Y = self.floor + self._blurred(jnp.exp(jnp.clip(field, -12.0, 4.0)))
        return mask, Y, jnp.exp(jnp.clip(numbers[:, 0], -8.0, 8.0)), jnp.exp(jnp.clip(numbers[:, 1] - 1, -5.0, 2.0))

    def forces(self, net: SheetNet, X: Array) -> Array:
        return self.pulled(*self.fields(net, X))

    def pulled(self, mask: Array, Y: Array, sigma_a: Array, alpha: Array) -> Array:
        """Tractions of such fields."""
        pull = jnp.broadcast_to(sigma_a[:, None, None], Y.shape)
        active = jnp.stack([pull, pull, jnp.zeros_like(pull)], axis=1)
        nodes = jax.vmap(functools.partial(node_displacement, self.h))(mask, Y, active, alpha)
        return jnp.moveaxis(jax.vmap(pixel_means)(nodes) * (mask * Y)[:, None], 1, -1)

    def _blurred(self, image: Array) -> Array:
        if not self.blur:
            return image
        reach = max(1, round(3 * self.blur))
        kernel = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / self.blur) ** 2)
        kernel = kernel / kernel.sum()
        for axis in (1, 2):
            ends = [(reach, reach) if k == axis else (0, 0) for k in range(3)]
            wide = jnp.pad(image, ends, mode="edge")
            side = image.shape[axis]
            parts = [kernel[k] * jax.lax.slice_in_dim(wide, k, k + side, axis=axis) for k in range(2 * reach + 1)]
            image = functools.reduce(jnp.add, parts)
        return image


class SheetLoss(eqx.Module):
    """Mean squared error of the sheet's tractions inside masks: the sheet has none outside. First, without mechanics where
    `begins`: stiffness in proportion to the amount of force, up to `scale`, sigma_a = 1 and alpha = 1/e. One program."""

    begins: Array
    physics: SheetPhysics
    scale: float = eqx.field(static=True)

    def __call__(self, net: SheetNet, batch: Batch, key: Array) -> Array:
        X, F = batch
        fields = self.physics.fields(net, X)
        return jax.lax.cond(self.begins, lambda: self._of_stiffness(fields, F), lambda: self._of_forces(fields, F))

    def _of_forces(self, fields: tuple[Array, Array, Array, Array], F: Array) -> Array:
        return jnp.mean(jnp.sum((self.physics.pulled(*fields) - fields[0][..., None] * F) ** 2, axis=-1))

    def _of_stiffness(self, fields: tuple[Array, Array, Array, Array], F: Array) -> Array:
        mask, Y, sigma_a, alpha = fields
        size = jnp.sqrt(jnp.sum(F**2, axis=-1))
        aim = self.physics.floor + self.scale * size / jnp.maximum(size.max(axis=(1, 2), keepdims=True), 1e-12)
        error = jnp.where(mask, jnp.log(Y) - jnp.log(aim), 0.0) ** 2
        numbers = (jnp.log(sigma_a)) ** 2 + (jnp.log(alpha) + 1) ** 2
        return error.sum() / mask.sum() + jnp.mean(numbers)


@eqx.filter_jit
def _sheet_forces(physics: SheetPhysics, net: SheetNet, X: Array) -> Array:
    return physics.forces(net, X)


@eqx.filter_jit
def _sheet_fields(physics: SheetPhysics, net: SheetNet, X: Array) -> tuple[Array, Array, Array, Array]:
    return physics.fields(net, X)


class PBNN(NetForce, BaseEstimator):
    """The physical bottleneck: a network says how stiff the adhesions are and how strongly the cell contracts, and an elastic
    sheet does the rest, so that its forces are always in balance. The last channel of the images is the mask.

    **Parameters:**

    - `h`: µm a pixel; `blur`: of the stiffness, µm; `floor`: least stiffness, 1/µm²: without it a cell could float.
    - `channels`, `blocks`, `kernel` of the network.
    - `pretrain`: steps towards a stiffness in proportion to the measured force, up to `stiffness` (1/µm²), before the
      mechanics.
    - `steps`, `batch`, `rate`, `turn`, `random_state`.

    **Attributes:** `network_`; `losses_` of both stages.
    """

    def __init__(
        self, h: float = 1.0, *, channels: int = 8, blocks: int = 1, kernel: int = 15, blur: float = 0.5, floor: float = 1e-3,
        stiffness: float = 0.1, pretrain: int = 100, steps: int = 300, batch: int = 8, rate: float = 3e-3, turn: bool = True,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.h = h
        self.channels = channels
        self.blocks = blocks
        self.kernel = kernel
        self.blur = blur
        self.floor = floor
        self.stiffness = stiffness
        self.pretrain = pretrain
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.turn = turn
        self.random_state = random_state

    def fields(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stiffness (cells, height, width) in 1/µm², 0 outside masks; sigma_a in kPa µm, and alpha, of each cell."""
        check_is_fitted(self, "network_")
        X = as_images(X, self.n_channels_)
        self._check_images(X)
        mask, Y, sigma_a, alpha = map(np.asarray, _sheet_fields(self._physics, self.network_, self._scaled(X)))
        return (mask * Y)[:, : X.shape[2], : X.shape[3]], sigma_a * self.force_scale_, alpha

    @property
    def multiple(self) -> int:
        return 4

    @property
    def _physics(self) -> SheetPhysics:
        return SheetPhysics(self.h, self.blur / self.h, self.floor)

    def _network(self) -> SheetNet:
        return SheetNet(self._rng(), self.n_channels_, channels=self.channels, blocks=self.blocks, kernel=self.kernel)

    def _train(self, net: SheetNet, data: Samples, report: Progress | None) -> SheetNet:
        for stage, steps in ((1, self.pretrain), (0, self.steps)):
            if steps:
                loss = SheetLoss(jnp.asarray(stage == 1), self._physics, self.stiffness)
                net = self._run(net, loss, data, _adamw(self.rate, 0.0, steps), steps, report, stage)
        return net

    def _forces(self, images: Array) -> Array:
        return _sheet_forces(self._physics, self.network_, images)

    def _check_images(self, X: np.ndarray) -> None:
        if X.shape[1] < 2:
            raise InputError("PBNN: images have one channel; the mask is wanted as the last one of two or more.")
        for k, mask in enumerate(X[:, -1]):
            checked_mask(mask, f"PBNN, cell {k}")


class KernelLoss(eqx.Module):
    """Squared error, with a penalty on the power of the kernels: what an image does not need of them goes."""

    beta: Array

    def __call__(self, net: GreensNet, batch: Batch, key: Array) -> Array:
        X, F = batch
        error = jnp.mean(jnp.sum((net(X) - F) ** 2, axis=-1))
        if net.kernels == "none":
            return error
        power = jnp.abs(net.transfer((X.shape[1], X.shape[2]))) ** 2
        return error + self.beta * (power.sum() - power[:, 0, 0].sum()) / power.size


class GFNN(NetForce, BaseEstimator):
    """The Green's function network: F = grad phi + psi grad chi, where each potential is a local function of the image,
    convolved with a learned kernel.

    **Parameters:**

    - `channels`: of the local network; `kernels`: `"modes"` (one number a Fourier mode), `"radial"` (the same in all
      directions) or `"none"` (no reach: the control).
    - `beta`: penalty on the kernels' power; `rate`, `kernel_rate`: of network and kernels.
    - `steps`, `batch`, `turn`, `random_state`.

    **Attributes:** `network_`; `losses_`.
    """

    def __init__(
        self, channels: int = 64, *, kernels: Literal["modes", "radial", "none"] = "modes", beta: float = 0.1,
        steps: int = 1000, batch: int = 8, rate: float = 1e-3, kernel_rate: float = 1e-2, turn: bool = True,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.channels = channels
        self.kernels = kernels
        self.beta = beta
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.kernel_rate = kernel_rate
        self.turn = turn
        self.random_state = random_state

    def radial_kernels(self) -> tuple[Float[np.ndarray, " distances"], Float[np.ndarray, "3 distances"]]:
        """Distances in pixels and the three kernels in space, averaged over directions."""
        check_is_fitted(self, "network_")
        sides = (2 * self.shape_[0], 2 * self.shape_[1])
        kernels = np.fft.irfft2(np.asarray(self.network_.transfer(self.shape_)), sides)
        rows, columns = (np.minimum(np.arange(side), side - np.arange(side)) for side in sides)
        ring = np.round(np.hypot(rows[:, None], columns)).astype(int)
        count = min(self.shape_)
        inside = ring < count
        weight = np.bincount(ring[inside], minlength=count)
        means = np.stack([np.bincount(ring[inside], each[inside], count) / weight for each in kernels])
        return np.arange(count, dtype=float), means

    def _check_images(self, X: np.ndarray) -> None:
        if self.kernels not in ("modes", "radial", "none"):
            raise InputError(f"GFNN: kernels = {self.kernels!r}; modes, radial or none is wanted.")
        if self.kernels != "none" and X.shape[2:] != getattr(self, "shape_", X.shape[2:]):
            raise InputError(f"GFNN: images of {X.shape[2:]} pixels; its kernels were learned at {self.shape_}.")

    def _network(self) -> GreensNet:
        return GreensNet(self._rng(), self.n_channels_, self.shape_, channels=self.channels, kernels=self.kernels)

    def _train(self, net: GreensNet, data: Samples, report: Progress | None) -> GreensNet:
        rule = _adamw(self.rate, 0.0, self.steps, self.kernel_rate)
        return self._run(net, KernelLoss(jnp.asarray(self.beta)), data, rule, self.steps, report)

    def _forces(self, images: Array) -> Array:
        return _field(self.network_, images, False)


KINDS: dict[str, type[NetForce]] = {"unet": UNetForce, "pbnn": PBNN, "gfnn": GFNN}


def save_forces(path: Path, model: NetForce, **more: Any) -> None:
    """Writes a fitted network as safetensors; parameters, scales and `more` (JSON) stand in its header."""
    import json

    from safetensors.numpy import save

    from broadsheet.cache import write_atomic

    check_is_fitted(model, "network_")
    kind = next(name for name, each in KINDS.items() if type(model) is each)
    facts = {"kind": kind, "parameters": model.get_params(), "channels": model.n_channels_, "shape": list(model.shape_),
             "image_scale": model.image_scale_.tolist(), "force_scale": model.force_scale_, "more": more}  # fmt: skip
    leaves = {f"{k}": np.asarray(leaf) for k, leaf in enumerate(jax.tree.leaves(eqx.filter(model.network_, eqx.is_array)))}
    write_atomic(path, save(leaves, {"broadsheet-forces": json.dumps(facts)}))


def load_forces(path: Path) -> tuple[NetForce, dict[str, Any]]:
    """A network that `save_forces` wrote, and what was said with it; raises `DataError` where the file is another one."""
    import json

    from safetensors import SafetensorError, safe_open

    from broadsheet.errors import DataError

    if not path.is_file():
        raise InputError(f"{path}: no such file; a calibrated model (.safetensors) is wanted.")
    try:
        with safe_open(path, "numpy") as stream:
            facts = json.loads((stream.metadata() or {})["broadsheet-forces"])
            leaves = [stream.get_tensor(f"{k}") for k in range(len(stream.keys()))]
        model = KINDS[facts["kind"]](**facts["parameters"])
        model.n_channels_, model.shape_ = int(facts["channels"]), tuple(map(int, facts["shape"]))
        model.image_scale_ = np.asarray(facts["image_scale"], np.float32)
        model.force_scale_ = float(facts["force_scale"])
        arrays, static = eqx.partition(model._network(), eqx.is_array)
        expected, tree = jax.tree.flatten(arrays)
        if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in expected]:
            raise DataError(f"{path}: its weights are not those of the network that its header describes.")
        model.network_ = eqx.combine(jax.tree.unflatten(tree, list(map(jnp.asarray, leaves))), static)
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise DataError(f"{path} is no model that was calibrated with `broadsheet matter forces`.") from None
    return model, facts["more"]
