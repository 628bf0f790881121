"""Simulated worms: the network against its equations, laboratories against what they are said to do."""

import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.recordings.worm import LABS, Connectome, Lab, Stimulus, WormNetwork, activity, canonicalise, record, simulate
from broadsheet.recordings.worm.names import slots

WIRING = Connectome.load("witvliet8")


def test_the_network_follows_its_equations():
    """Without noise: ten steps of plain loops, with a drive of one sensory cell."""
    seconds, dt = 0.5, 0.05
    drive = Stimulus(0.0, 1.0, ("ASHL",), 2.0)
    times, v, c = activity(WIRING, seconds, key=0, stimuli=[drive], warm_up=0.0, dt=dt, sigma=0.0)
    net = WormNetwork(WIRING, sigma=0.0)
    chem, gap = np.asarray(net.chem, float), np.asarray(net.gap, float)
    now, calcium = np.zeros(300), np.zeros(300)
    joined = (WIRING.gap.sum(0) > 0).astype(float)
    for k in range(len(times)):
        u = np.zeros(300)
        u[slots()["ASHL"]] = 2.0
        flow = -now + 0.9 * np.tanh(now) @ chem + 0.5 * (now @ gap - joined * now) + u
        now, calcium = now + dt / 0.5 * flow, calcium + dt / 1.5 * (np.maximum(now, 0) - calcium)
        np.testing.assert_allclose(v[0, k], now, atol=1e-5)
        np.testing.assert_allclose(c[0, k], calcium, atol=1e-5)
    assert v[0, -1, slots()["AVAL"]] > 0 == v[0, 0, slots()["AVAL"]]


def test_signs_and_scales_of_the_wiring():
    net = WormNetwork(Connectome.load("white"))
    chem = np.asarray(net.chem)
    assert (chem[slots()["DD1"]] <= 0).all()
    assert (chem[slots()["AVAL"]] >= 0).all()
    total = np.abs(chem).sum(0)
    assert np.allclose(total[total > 0], 1, atol=1e-5)


def test_a_seed_decides_and_worms_differ():
    (_, a, _), (_, b, _), (_, c, _) = (activity(WIRING, 2.0, 2, key=key, warm_up=1.0) for key in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(a[0], a[1])


def test_noise_has_the_spread_of_its_equation():
    """A cell without inputs is an Ornstein-Uhlenbeck process: variance σ² / (2 τ), lowered by steps of dt / τ."""
    nothing = Connectome("nothing", np.zeros((300, 300)), np.zeros((300, 300)), np.ones(300, bool))
    _, v, _ = activity(nothing, 30.0, 2, key=0)
    step = 0.05 / 0.5
    assert v.var() == pytest.approx((0.5 / 0.5) ** 2 * 0.05 / (1 - (1 - step) ** 2), rel=0.05)


def test_laboratories():
    times, _, calcium = activity(WIRING, 60.0, key=0)
    rng = np.random.default_rng(0)
    for lab in LABS:
        raw = record(times, calcium[0], lab, rng)
        known = [canonicalise(name) for name in raw.names if name is not None]
        assert len(known) == lab.labelled == len(set(known))
        assert None not in known
        assert raw.names.count(None) == lab.unlabelled
        assert np.median(np.diff(raw.times)) == pytest.approx(lab.dt, rel=0.05)
        assert raw.traces.shape == (len(raw.times), len(raw.names))
    assert "VB02" not in {name for raw in simulate(WIRING, 5.0, LABS[:1], worms=1, key=0) for name in raw.names}
    whole = record(times, calcium[0], Lab("all", labelled=None, noise=0.0, bleach=np.inf, jitter=0.0, unit="ΔF/F"), rng)
    assert len(whole.names) == 300
    order = [whole.names.index(name) for name in WIRING.names]
    at = np.rint(whole.times / 0.05).astype(int)
    np.testing.assert_allclose(whole.traces[:, order], 0.8 * calcium[0][at], atol=1e-9)


def test_one_sentence():
    with pytest.raises(InputError, match="AVA'"):
        activity(WIRING, 1.0, stimuli=[Stimulus(0.0, 1.0, ("AVA",))])
    with pytest.raises(InputError, match="cannot be simulated"):
        activity(WIRING, 0.0)
    with pytest.raises(InputError, match="no setting"):
        activity(WIRING, 1.0, tempo=2.0)
