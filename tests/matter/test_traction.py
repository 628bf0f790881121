"""Generated cells, networks, baselines, formulas and files of tractions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import convolve

from broadsheet.errors import DataError, InputError
from broadsheet.matter import PBNN, CentralForce, SparseGreens, SyntheticCells, UNetForce, WienerForce, load_forces, save_forces
from broadsheet.matter.sparse_greens import local_sources
from broadsheet.matter.traction_errors import dipole, force_metrics, net_force, nmse
from broadsheet.matter.traction_files import read_frames, write_frame
from broadsheet.matter.traction_nets import Convolution, Depthwise, GreensNet

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cells():
    return SyntheticCells(0, size=48, h=64 / 48).sample(6)


def stacked(cells, *names):
    return np.stack([np.asarray(getattr(cells, name), np.float32) for name in names], axis=1)


def test_cells_are_in_balance_and_repeat(cells):
    assert cells.imbalance.max() < 1e-8
    assert cells.torque.max() < 1e-8
    assert (dipole(cells.true_force) > 0).all()
    again = SyntheticCells(0, size=48, h=64 / 48).sample(6)
    np.testing.assert_array_equal(again.force, cells.force)
    assert not cells.mask[:, [0, -1]].any()
    assert not cells.true_force[np.broadcast_to(~cells.mask[:, None], cells.force.shape)].any()
    movie = SyntheticCells(1, size=48, h=64 / 48).washout(np.array([1.0, 0.5]), follows=0.0)
    np.testing.assert_allclose(movie.true_force[1], movie.true_force[0] / 2, rtol=1e-5)  # linear in tension


def test_depthwise_is_a_convolution():
    x = RNG.normal(size=(1, 9, 11, 2)).astype(np.float32)
    for edge, mode in ((False, "constant"), (True, "nearest")):
        layer = Depthwise(RNG, 2, 5, edge=edge)
        found = np.asarray(eqx.filter_jit(layer)(jnp.asarray(x)))
        for c in range(2):
            kernel = np.asarray(layer.weight)[::-1, ::-1, c]
            np.testing.assert_allclose(found[0, :, :, c], convolve(x[0, :, :, c], kernel, mode=mode), atol=1e-5)


def test_patches_are_a_strided_convolution():
    layer, x = Convolution(RNG, 3, 2, 4, patches=True), jnp.asarray(RNG.normal(size=(1, 8, 8, 3)), jnp.float32)
    direct = jax.lax.conv_general_dilated(x, layer.weight, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(np.asarray(layer(x)), np.asarray(direct), atol=1e-5)


def test_greens_network_is_grad_phi_plus_psi_grad_chi():
    """Against the derivative of smooth potentials in space, far from the edge; x along columns."""
    net = GreensNet(np.random.default_rng(0), 1, (32, 32), channels=2, kernels="none")
    x = jnp.asarray(np.exp(-0.5 * ((np.arange(32) - 15.5) ** 2 / 16 + (np.arange(32)[:, None] - 12.5) ** 2 / 25)), jnp.float32)
    scalars, forces = eqx.filter_jit(lambda n, x: (n.scalars(x), n(x)))(net, x[None, :, :, None])
    sources = np.asarray(scalars, float)[0]
    phi, psi, chi = sources * np.exp(np.asarray(net.log_kernel, float))[:, :1, None]
    found = np.asarray(forces)[0]
    for k, axis in ((0, 1), (1, 0)):
        expected = np.gradient(phi, axis=axis) + psi * np.gradient(chi, axis=axis)
        inner = np.s_[6:-6, 6:-6]
        assert abs(found[..., k] - expected)[inner].max() < 0.1 * abs(expected[inner]).max()


def test_wiener_filter_recovers_a_linear_map():
    X = RNG.normal(size=(12, 1, 10, 10))
    kernel = RNG.normal(size=(2, 3, 3))
    F = np.stack([[convolve(x[0], k, mode="constant") for k in kernel] for x in X])
    assert WienerForce(noise=(1e-9,)).fit(X[:10], F[:10]).score(X[10:], F[10:]) > 0.95


def test_central_force_recovers_rings(cells):
    X = stacked(cells, "zyxin", "mask")
    model = CentralForce()
    model.n_channels_ = 2
    model.coefficients_ = RNG.normal(size=28)
    F = model.predict(X)
    np.testing.assert_allclose(CentralForce(ridge=1e-10).fit(X[:4], F[:4]).predict(X), F, atol=1e-3 * abs(F).max())


def test_sources_and_sparse_formula(cells):
    wave = np.cos(2 * np.pi * np.arange(64) / 16) * np.exp(-((np.arange(64) - 32.0) ** 2) / 200)
    z, slope, lap, *_ = local_sources(np.broadcast_to(wave, (1, 64, 64)).copy(), 0.5)[0]
    inner = np.s_[16:-16, 16:-16]
    np.testing.assert_allclose(slope[inner], (np.gradient(z, axis=1) ** 2)[inner], atol=0.03)
    np.testing.assert_allclose(lap[inner], np.gradient(np.gradient(z, axis=1), axis=1)[inner], atol=0.03)
    X = stacked(cells, "zyxin")
    model = SparseGreens((2.0, 15.0), (), alphas=(1e-4,), pixels=800)
    model.fit(X, cells.true_force)
    coef = np.zeros_like(model.coef_)
    coef[3], coef[12 + 5] = 1.0, -2.0
    F = model._predicted(X, coef)
    again = SparseGreens((2.0, 15.0), (), alphas=(1e-4,), pixels=800).fit(X, F)
    assert nmse(F, again.predict(X)).max() < 0.05
    assert again.terms_[3] == "grad (|grad z|^2 * exp(-r/15))"


def test_networks_learn_save_and_load(cells, tmp_path):
    """The bottleneck balances whatever its weights; what is loaded predicts the same."""
    X = stacked(cells, "zyxin", "mask")
    model = PBNN(64 / 48, channels=2, blocks=0, pretrain=2, steps=3, batch=2)
    model.fit(X, cells.force)
    found = model.predict(X)
    assert net_force(found).max() < 1e-6
    assert found.shape == cells.force.shape
    Y, sigma_a, alpha = model.fields(X)
    assert (Y[cells.mask] >= 1e-3).all()
    assert sigma_a.shape == alpha.shape == (6,)
    save_forces(tmp_path / "m.safetensors", model, pixel=0.5)
    again, facts = load_forces(tmp_path / "m.safetensors")
    assert facts == {"pixel": 0.5}
    np.testing.assert_array_equal(again.predict(X), found)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="is no model"):
        load_forces(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="border"):
        model.predict(np.ones_like(X))


def test_unet_learns_and_pads():
    """A field that is a multiple of the image and of its mirror image's sign is learned in a few steps; sizes need not fit."""
    X = RNG.random((4, 1, 10, 10))
    F = np.concatenate([X, -0.5 * X], axis=1)
    model = UNetForce(2, stages=1, blocks=0, steps=40, batch=4, rate=3e-2, turn=False).fit(X, F)
    assert model.losses_[-1] < 0.3 * model.losses_[0]
    assert model.predict(X[:, :, :9]).shape == (4, 2, 9, 10)
    for bad, words in ((X[:, 0, 0], "shape"), (X * np.nan, "finite"), (np.concatenate([X, X], axis=1), "channels")):
        with pytest.raises(InputError, match=words):
            model.predict(bad)


def test_metrics():
    F = RNG.normal(size=(1, 2, 8, 8))
    mask = np.ones((8, 8))
    turned = np.stack([-F[:, 1], F[:, 0]], axis=1)
    found = force_metrics(F, turned, mask)
    np.testing.assert_allclose(found.angle, 90)
    np.testing.assert_allclose(found.magnitude_r2, 1)
    np.testing.assert_allclose(found.nmse, 2)
    np.testing.assert_allclose(nmse(F, 0 * F), 1)
    x = np.arange(8) - 3.5
    inward = -np.stack(np.broadcast_arrays(x, x[:, None]))[None]
    np.testing.assert_allclose(dipole(inward, 2.0), 8 * 2 * (x**2).sum() * 8)
    with pytest.raises(InputError, match="no force anywhere"):
        nmse(0 * F, F)


def test_movies_in_the_authors_layout(cells, tmp_path):
    for cell, frames in (("cell_0", (2, 10)), ("cell_1", (0,))):
        for k in frames:
            write_frame(tmp_path / cell / f"frame_{k}.npy", force=cells.force[k % 6], mask=cells.mask[k % 6],
                        zyxin=100 + 50 * cells.zyxin[k % 6], protein=cells.actin[k % 6])  # fmt: skip
    frames = read_frames(tmp_path)
    assert frames.names == ("frame_2.npy", "frame_10.npy", "frame_0.npy")
    assert frames.cells.tolist() == [0, 0, 1]
    np.testing.assert_allclose(frames.forces[0], cells.force[2], rtol=1e-5)
    np.testing.assert_array_equal(frames.masks[2], cells.mask[0])
    ready = frames.normalised()
    for cell in (0, 1):
        rows = ready.cells == cell
        np.testing.assert_allclose(np.mean([z[m].mean() for z, m in zip(ready.images[rows], ready.masks[rows], strict=True)]), 1,
                                   atol=0.05)  # fmt: skip
    small = frames.shrunk(2)
    np.testing.assert_allclose(small.forces.sum() * 4, frames.forces.sum(), rtol=1e-3)
    assert small.images.shape == (3, 24, 24)


def frame(**changed):
    values = RNG.random((7, 20, 20)).astype(np.float32)
    values[4] = 0
    values[4, 5:12, 5:12] = 1
    for k, value in changed.items():
        values[int(k[1:])] = value
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (frame(c4=0.5 * np.ones((20, 20))), "7, 20, 20|mask"),
        (frame(c6=3.0), "the same everywhere"),
        (frame(c2=np.nan), "not a finite number"),
        (np.ones((5, 20, 20, 20), np.float32), "7 or 8 channels"),
        (np.ones((2, 20, 20), np.float32), "the same everywhere"),
        (np.ones(7, np.float32), "has shape"),
        (np.array(["a"]), "no .npy array of numbers"),
        (np.ones((8, 8), complex), "complex"),
    ],
)
def test_files_are_refused(values, words, tmp_path):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=words):
        read_frames(tmp_path / "x.npy", layout="movie" if values.ndim == 3 and len(values) == 7 and "mask" in words else "auto")


def test_plain_images(tmp_path):
    np.save(tmp_path / "z.npy", RNG.random((2, 20, 20)))
    np.save(tmp_path / "m.npy", np.ones((2, 20, 20)))
    np.save(tmp_path / "f.npy", np.ones((3, 2, 20, 20)))
    assert read_frames(tmp_path / "z.npy").masks is None
    with pytest.raises(InputError, match="mask is full"):
        read_frames(tmp_path / "z.npy", masks=tmp_path / "m.npy")
    with pytest.raises(InputError, match="wanted"):
        read_frames(tmp_path / "z.npy", forces=tmp_path / "f.npy")
    with pytest.raises(InputError, match="no such file"):
        read_frames(tmp_path / "q.npy")
    (tmp_path / "p.npy").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"no \.npy array"):
        read_frames(tmp_path / "p.npy")
