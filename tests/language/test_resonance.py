"""The recurrence against a plain loop over single synapses, closed forms, and itself in other forms."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from broadsheet.errors import InputError
from broadsheet.language import resonance_checks as checks
from broadsheet.language.resonance import resonance_scan, unit

REFERENCES = Path(__file__).parents[1] / "references"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def given():
    """Pairs that come again and again, so that there is resonance: k, q, v, r."""
    often = torch.from_numpy(np.random.default_rng(1).integers(0, 7, 50))
    k, v = unit(draw(2, 3, 7, 6))[:, :, often], draw(2, 3, 7, 5, seed=1)[:, :, often]
    return k, unit(draw(2, 3, 50, 6, seed=2)), v, torch.sigmoid(draw(2, 3, 50, seed=3))


def written_out(k, q, v, r, lam, eta, kappa, delta):
    """The definition in NumPy, one row, one head and one step at a time."""
    k, q, v, r = (x.numpy() for x in (k, q, v, r))
    m, rho, last = np.zeros_like(v), np.zeros_like(r), np.zeros((*k.shape[:2], k.shape[3], v.shape[3]))
    for b, h in np.ndindex(*k.shape[:2]):
        S = np.zeros((k.shape[3], v.shape[3]))
        for t in range(k.shape[2]):
            m[b, h, t] = S.T @ q[b, h, t]
            told = S.T @ k[b, h, t]
            if np.linalg.norm(told) >= 1e-6:
                rho[b, h, t] = max(0.0, told @ v[b, h, t] / np.linalg.norm(told) / np.linalg.norm(v[b, h, t]))
            content = v[b, h, t] - told if delta else v[b, h, t]
            S = lam[h] * S + eta * r[b, h, t] * (1 + kappa * rho[b, h, t]) * np.outer(k[b, h, t], content)
        last[b, h] = S
    return m, last, rho


@pytest.mark.parametrize("rule", ["hebb", "delta"])
def test_all_forms_are_the_definition(given, rule):
    lam = torch.tensor([0.9, 0.98, 1.0], dtype=torch.float64)
    exact = written_out(*given, lam.numpy(), 0.7, 2.0, rule == "delta")
    for form, chunk in (("loop", 1), ("chunk", 16), ("chunk", 7), ("chunk", 64)):
        found = resonance_scan(*given, lam, 0.7, 2.0, rule=rule, form=form, chunk=chunk)
        for mine, theirs in zip(found, exact, strict=True):
            assert_allclose(mine, theirs, atol=1e-11)


@pytest.mark.parametrize("form", ["loop", "chunk"])
def test_without_resonance_it_is_what_flash_linear_attention_computes(form):
    """Its PyTorch code, run by bench/references_fast_weights.py: it reads after the write, with queries over sqrt(width)."""
    with np.load(REFERENCES / "fast_weights.npz") as found:
        k, q, v, r = (torch.from_numpy(found[name]).double() for name in ("k", "q", "v", "r"))
        for name, lam, rule in (("attention", float(found["lam"]), "hebb"), ("delta", 1.0, "delta")):
            late = torch.cat([torch.zeros_like(q[:, :, :1]), q[:, :, :-1]], 2)
            m = resonance_scan(k, late, v, r, lam, kappa=0.0, rule=rule, form=form, chunk=8).m[:, :, 1:]
            assert_allclose(m / 2, found[name][:, :, :-1], atol=1e-6)


def test_all_at_once_without_resonance_and_no_other_way(given):
    loop = resonance_scan(*given, kappa=0.0)
    for mine, theirs in zip(resonance_scan(*given, kappa=0.0, form="parallel"), loop, strict=True):
        assert_allclose(mine, theirs, atol=1e-12)
    with pytest.raises(InputError, match="need kappa = 0"):
        resonance_scan(*given, form="parallel")


@pytest.mark.parametrize("form", ["loop", "chunk"])
def test_a_scan_goes_on_where_another_ended(given, form):
    whole = resonance_scan(*given, form=form)
    first = resonance_scan(*(x[:, :, :21] for x in given), form=form)
    second = resonance_scan(*(x[:, :, 21:] for x in given), S0=first.S, form=form)
    assert_allclose(torch.cat([first.m, second.m], 2), whole.m, atol=1e-12)
    assert_allclose(second.S, whole.S, atol=1e-12)


def test_each_refinement_makes_one_more_step_of_a_chunk_exact(given):
    exact = resonance_scan(*given)
    errors = []
    for refine in range(5):
        found = resonance_scan(*given, form="chunk", chunk=50, refine=refine)
        assert_allclose(found.rho[:, :, : refine + 1], exact.rho[:, :, : refine + 1], atol=1e-12)
        errors.append(float((found.m - exact.m).norm() / exact.m.norm()))
    assert errors[0] > 0.05
    assert all(after < before / 3 for before, after in pairwise(errors))


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("rule", ["hebb", "delta"])
def test_gradients_of_chunks_are_those_of_the_loop(given, rule, stop):
    def gradients(**options):
        leaves = [x.clone().requires_grad_() for x in (*given, torch.full((3,), 0.95, dtype=torch.float64))]
        found = resonance_scan(*leaves, rule=rule, stop_gradient=stop, **options)
        (found.m.square().sum() + found.S.sum()).backward()
        return [leaf.grad for leaf in leaves]

    for mine, theirs in zip(gradients(form="chunk", chunk=16), gradients(), strict=True):
        assert_allclose(mine, theirs, atol=1e-9)
    cut = gradients(form="chunk", chunk=16, bptt=16)
    for mine, theirs in zip(cut, gradients(bptt=16), strict=True):
        assert_allclose(mine, theirs, atol=1e-9)
    assert_allclose(cut[1], gradients()[1], atol=1e-9)  # the queries' gradient does not go through the memory's past
    assert (cut[0] - gradients()[0]).abs().max() > 1e-3


def test_gradients_are_numerical_ones():
    k, q, v = unit(draw(1, 1, 6, 3)), unit(draw(1, 1, 6, 3, seed=1)), draw(1, 1, 6, 3, seed=2)
    r = torch.sigmoid(draw(1, 1, 6, seed=3))
    leaves = [x.requires_grad_() for x in (k, q, v, r)]

    def scan(*given):
        return resonance_scan(*given, form="chunk", chunk=4, stop_gradient=False).m

    assert torch.autograd.gradcheck(scan, leaves)


def test_laws():
    assert checks.law_error(5) < 1e-12
    assert checks.attention_error(5) < 1e-12
    assert checks.bound_violations(5) == 0


def test_what_comes_again_is_reinforced_and_a_key_with_other_values_is_not():
    found = checks.reinforcement(5, (0.0, 0.5, 8.0), draws=60)
    assert np.all(np.diff(found["resonance"]) > 0)
    assert found["shuffled"][-1] < found["shuffled"][0] - 0.02
    assert found["resonance_selectivity"] > 0.5
    assert found["familiar_selectivity"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lam": 1.5}, "lam is 1.5"), ({"kappa": -1.0}, "neither is negative"), ({"rule": "oja"}, "rule is 'oja'"),
        ({"form": "tree"}, "form 'tree'"), ({"chunk": 0}, "chunk is 0"), ({"refine": -1}, "refine -1"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(given, options, said):
    with pytest.raises(InputError, match=said):
        resonance_scan(*given, **options)


def test_shapes_that_do_not_fit_are_refused(given):
    k, q, v, r = given
    with pytest.raises(InputError, match=r"r \(2, 3, 9\)"):
        resonance_scan(k, q, v, r[:, :, :9])
    assert resonance_scan(k[:, :, :0], q[:, :, :0], v[:, :, :0], r[:, :, :0]).m.shape == (2, 3, 0, 5)
