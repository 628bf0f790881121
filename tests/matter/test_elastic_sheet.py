"""The sheet against closed forms, another finite-element library's numbers, finite differences and a dense solution."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.matter import elastic_sheet
from broadsheet.matter.elastic_sheet import (
    BULK,
    MASS,
    SHEAR,
    STRAIN,
    ElasticSheet,
    disc_displacement,
    node_displacement,
    pixel_means,
    strip_displacement,
)
from broadsheet.matter.sheet_inversion import recover_tensions

REFERENCES = Path(__file__).parent.parent / "references"


def blob(size=16, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    mask = np.hypot(x, 1.3 * y) < size / 2 - 2
    return mask, np.where(mask, 0.02 + 0.2 * rng.random(mask.shape), 0.0)


def test_disc():
    y, x = 0.8 * (np.mgrid[:64, :64] - 31.5)
    r = np.hypot(x, y)
    found = ElasticSheet(r < 20, 0.8).equilibrium(np.full(r.shape, 0.02), 1.3, 0.4)
    near = abs(r - 10) < 1
    radial = (found.displacement[0] * x + found.displacement[1] * y)[near] / r[near]
    np.testing.assert_allclose(radial.mean(), disc_displacement(r[near], 20.0, 0.02, 1.3, 0.4).mean(), rtol=0.01)
    assert (radial < 0).all()
    np.testing.assert_allclose(found.forces.sum(axis=0), 0, atol=1e-10)


def test_strip():
    """Free edges along the strip are held straight by an active stress that cancels the elastic one across it."""
    h, n, alpha, Y = 0.25, 80, 0.5, 0.05
    mask = np.pad(np.ones((6, n), bool), 1)
    x = h * (np.arange(n + 2) - (n + 1) / 2)
    step = 1e-4
    slope = (strip_displacement(x + step, 10.0, Y, 1.0, alpha) - strip_displacement(x - step, 10.0, Y, 1.0, alpha)) / (2 * step)
    active = np.stack([np.ones(mask.shape), np.broadcast_to(-alpha * slope, mask.shape), np.zeros(mask.shape)])
    u = ElasticSheet(mask, h).equilibrium(np.full(mask.shape, Y), 0.0, alpha, active).displacement
    np.testing.assert_allclose(u[0, 3, 1:-1], strip_displacement(x[1:-1], 10.0, Y, 1.0, alpha), atol=2e-3)
    assert abs(u[1]).max() < 2e-3


@pytest.mark.parametrize("limit", [elastic_sheet.BAND_LIMIT, 0])
def test_against_scikit_fem(limit, monkeypatch):
    """tests/references/elastic_sheet.json: made by bench/references_sheet.py. Both ways of factoring."""
    monkeypatch.setattr(elastic_sheet, "BAND_LIMIT", limit)
    elastic_sheet._lattice.cache_clear()
    told = json.loads((REFERENCES / "elastic_sheet.json").read_text())
    mask, Y = np.array(told["mask"], bool), np.array(told["Y"])
    found = ElasticSheet(mask, told["h"]).equilibrium(Y, told["sigma_a"], told["alpha"], np.array(told["active"]))
    expected = np.array(told["displacement"])
    assert abs(found.displacement - expected).max() < 1e-6 * abs(expected).max()


def test_against_a_dense_solution():
    mask, Y = blob(10)
    h, alpha, rng = 0.7, 0.3, np.random.default_rng(1)
    active = rng.normal(size=(3, *mask.shape))
    K, f = np.zeros((242, 242)), np.zeros(242)
    for r, c in np.argwhere(mask):
        nodes = [(r + i) * 11 + c + j for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
        at = np.array([2 * node + k for node in nodes for k in (0, 1)])
        K[np.ix_(at, at)] += SHEAR + alpha * BULK + h * h * Y[r, c] * MASS
        f[at] -= h * STRAIN.T @ active[:, r, c]
    used = np.flatnonzero(K.any(axis=0))
    u = np.zeros(242)
    u[used] = np.linalg.solve(K[np.ix_(used, used)], f[used])
    expected = pixel_means(u.reshape(11, 11, 2).transpose(2, 0, 1)) * mask
    np.testing.assert_allclose(ElasticSheet(mask, h).equilibrium(Y, 0.0, alpha, active).displacement, expected, atol=1e-10)


def test_gradient_vmap_and_masks():
    with jax.enable_x64(True):
        (mask, Y), (other, Z) = blob(seed=0), blob(seed=1)
        sheet, target = ElasticSheet(mask, 1.0), np.random.default_rng(2).normal(size=(2, *mask.shape))
        fibres = np.random.default_rng(3).normal(size=(3, *mask.shape))

        def error(Y, sigma_a, alpha, fibres):
            return jnp.sum((sheet.solve(Y, sigma_a, alpha, fibres)[1] - target) ** 2)

        at, told = (Y, np.asarray(0.9), np.asarray(0.4), fibres), jax.jit(error)
        for k, slope in enumerate(jax.jit(jax.grad(error, argnums=(0, 1, 2, 3)))(*at)):
            way = 1e-6 * np.random.default_rng(4).normal(size=at[k].shape) * (at[k] != 0)
            up, down = (told(*(v + s * way if j == k else v for j, v in enumerate(at))) for s in (1, -1))
            np.testing.assert_allclose(np.sum(slope * way), (float(up) - float(down)) / 2, rtol=1e-6)
        ones = np.ones((3, *mask.shape))
        displaced = jax.jit(lambda mask, Y, active: node_displacement(1.0, mask, Y, active, 0.5))
        both = jax.jit(jax.vmap(lambda mask, Y: displaced(mask, Y, ones)))
        found = np.asarray(both(np.stack([mask, other]), np.stack([Y, Z])))
        np.testing.assert_allclose(found[1], np.asarray(displaced(other, Z, ones)), rtol=1e-12)
        assert np.isnan(np.asarray(displaced(mask, -Y, fibres))).all()


@pytest.mark.parametrize("sides", [(12, 12), (9, 14), (14, 7)])
def test_a_program_solves_small_sheets_as_the_host_does(sides, monkeypatch):
    """Displacements and slopes of both ways, under vmap too; the one by blocks of the band, the other by SciPy's band solver."""
    mask = np.pad(np.ones((sides[0] - 2, sides[1] - 2), bool), 1)
    mask[1:4, 1] = mask[-2, 2:] = False
    rng = np.random.default_rng(7)
    Y, fibres, aim = rng.uniform(0.01, 0.4, sides), rng.normal(size=(3, *sides)), rng.normal(size=(2, *sides))
    with jax.enable_x64(True):
        sheet = ElasticSheet(mask, 0.8)

        def error(Y, sigma_a, alpha, fibres):
            u, F = sheet.solve(Y, sigma_a, alpha, fibres)
            return jnp.sum((F - aim) ** 2), u

        found, text = {}, {}
        for small in (31, 0):
            monkeypatch.setattr(elastic_sheet, "SMALL", small)
            slopes = jax.jit(jax.vmap(jax.grad(error, argnums=(0, 1, 2, 3), has_aux=True), in_axes=(0, None, 0, None)))
            given = (jnp.stack([Y, 2 * Y]), 1.3, jnp.array([0.4, 0.7]), fibres)
            found[small], text[small] = slopes(*given), slopes.lower(*given).as_text()
        for told, exact in zip(jax.tree.leaves(found[31]), jax.tree.leaves(found[0]), strict=True):
            np.testing.assert_allclose(told, exact, rtol=1e-9, atol=1e-9 * abs(exact).max())
        assert ["callback" in each for each in text.values()] == [False, True]
        u = sheet.equilibrium(2 * Y, 1.3, 0.7, fibres).displacement
        np.testing.assert_allclose(found[31][1][1], u, rtol=1e-9, atol=1e-12)
        monkeypatch.setattr(elastic_sheet, "SMALL", 31)
        way = rng.normal(size=sides)
        forward = jax.jit(lambda Y: jax.jvp(lambda Y: error(Y, 1.3, 0.4, fibres)[0], (Y,), (way,))[1])(Y)
        np.testing.assert_allclose(forward, np.sum(found[0][0][0][0] * way), rtol=1e-9)
        for wrong in ((-Y, 1.0, 0.5), (Y, 1.0, -0.6)):
            assert np.isnan(jax.jit(sheet.solve)(*wrong)[0][:, mask]).all()


def test_dissection_fills_less_than_a_band(monkeypatch):
    mask = np.pad(np.ones((60, 60), bool), 1)
    monkeypatch.setattr(elastic_sheet, "BAND_LIMIT", 0)
    lattice = elastic_sheet._Lattice(mask)
    assert sorted(zip(*lattice.nodes, strict=True)) == [(r, c) for r in range(1, 62) for c in range(1, 62)]
    assert lattice.factor(1.0, np.full(3600, 0.1), 0.5)._lu.nnz < 2 * 61 * lattice.size  # L and U; of a band each has as many


def test_a_gradient_takes_the_factor_of_its_solution_and_keeps_none(monkeypatch):
    made, factor = [], elastic_sheet._Lattice.factor
    monkeypatch.setattr(elastic_sheet._Lattice, "factor", lambda *given: made.append(1) or factor(*given))
    mask, Y = blob(seed=5)
    slope = jax.jit(jax.grad(lambda Y: jnp.sum(ElasticSheet(mask, 1.0).solve(Y)[1] ** 2)))
    slope(Y).block_until_ready()
    before = len(elastic_sheet._kept._factors)
    for k in range(3):
        slope((1.1 + k) * Y).block_until_ready()
    assert len(made) == 4
    assert len(elastic_sheet._kept._factors) == before


def test_tensions_are_recovered():
    with jax.enable_x64(True):
        mask, Y = blob()
        sheet = ElasticSheet(mask, 1.0)
        found = recover_tensions(sheet, Y, sheet.equilibrium(Y, 1.2, 0.35).traction)
    np.testing.assert_allclose(found[:2], (1.2, 0.35), rtol=1e-4)


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.zeros((8, 8)), "empty"), (np.ones((8, 8)), "border"), (np.ones(8), "an image"), (np.eye(8), "border")],
)
def test_masks_are_refused(mask, words):
    with pytest.raises(InputError, match=words):
        ElasticSheet(mask, 1.0)


def test_numbers_are_refused():
    mask, Y = blob()
    for arguments, words in (
        ((0 * Y,), "smallest stiffness"), ((Y * np.nan,), "smallest stiffness"), ((Y, np.inf), "active stress"),
        ((Y, 1.0, -0.6), "alpha"), ((Y[1:],), "shape"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            ElasticSheet(mask, 1.0).equilibrium(*arguments)
    with pytest.raises(InputError, match="positive size"):
        ElasticSheet(mask, 0.0)
