"""Rules as they come: numbers of the papers where a paper gives them, of the room's page otherwise."""

import inspect

import numpy as np
import pytest

from broadsheet.plasticity import STDP, ErrorModulated, LateralSubspace, RecursiveLeastSquares, Tempotron, ThreeFactor, Triplet
from broadsheet.plasticity.tempotron import psp_kernel
from options import options

AS_THEY_COME = [
    # Song, Miller and Abbott (2000): both windows 20 ms, depression the stronger
    (STDP, {
        "a_plus": 0.01, "a_minus": 0.012, "tau_plus": 20.0, "tau_minus": 20.0, "bounds": (0.0, 1.0), "soft": False, "axonal": 0,
        "dendritic": 0, "pairing": "all", "zero_lag": True, "dt": 1.0,
    }),
    # Pfister and Gerstner (2006), table 4: visual cortex, all to all, minimal model (A2+ = 0)
    (Triplet, {
        "a_plus": 0.0, "a_minus": 0.007, "triplet_plus": 0.0062, "triplet_minus": 0.00023, "tau_plus": 16.8, "tau_minus": 33.7,
        "tau_x": 101.0, "tau_y": 125.0,
    }),
    # Gütig and Sompolinsky (2006): tau = 15 ms, tau / tau_s = 4
    (psp_kernel, {"tau": 15.0, "tau_s": 15.0 / 4}),
    (Tempotron, {
        "tau": 15.0, "tau_s": 15.0 / 4, "threshold": 1.0, "rate": 0.02, "epochs": 100, "momentum": 0.0, "rate_tau": 0.0,
        "rate_threshold": 0.0, "dt": 1.0, "random_state": 0,
    }),
    (ThreeFactor, {"rate": 0.01, "tau": 20.0, "tau_e": 0.0, "bounds": (-np.inf, np.inf), "dt": 1.0}),
    (ErrorModulated, {"rate": 0.2, "split": False, "hebbian": False}),
    (RecursiveLeastSquares, {"alpha": 0.1, "forget": 1.0}),
    (LateralSubspace, {"capacity": 0, "rate": 0.01, "momentum": 0.9, "iterations": 5, "sees_old": True, "width": 0}),
    (LateralSubspace.freeze, {"orthonormal": False}),
]  # fmt: skip


@pytest.mark.parametrize(("made", "expected"), AS_THEY_COME, ids=lambda part: getattr(part, "__name__", ""))
def test_rules_as_they_come(made, expected):
    assert options(made) == expected


@pytest.mark.parametrize("made", [STDP, Triplet, ThreeFactor, ErrorModulated, RecursiveLeastSquares, LateralSubspace])
def test_options_are_given_by_name(made):
    by_place = [each.name for each in inspect.signature(made).parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert by_place in (["weights"], ["n"])
