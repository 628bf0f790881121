"""Everything that is fitted can be saved and loaded, copied, and searched over as scikit-learn does it."""

import ast
import io
import pickle
from pathlib import Path

import jax
import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import broadsheet
from broadsheet.conversion import DynamicConfidence
from broadsheet.matter import (
    GFNN,
    PBNN,
    CentralForce,
    PhotoproductionFit,
    SparseGreens,
    UNetForce,
    WienerForce,
)
from broadsheet.networks import ContinualClassifier, SNNClassifier
from broadsheet.networks.random_readouts import RandomReadouts
from broadsheet.neurons import DendriticNeuron, ELMNeuron
from broadsheet.plasticity import Tempotron
from broadsheet.recordings import (
    HMMGLM,
    NTF,
    DynamicConnectome,
    FrameEncoder,
    LatentPredictor,
    Neuroformer,
    VideoPredictor,
    WeightedSBM,
)
from broadsheet.recordings.worm import GRUForecaster, RidgeVAR
from broadsheet.transport import SBIRR, PositiveDiffusion
from broadsheet.transport.additive_diffusion import AdditiveDiffusion
from broadsheet.transport.reference_processes import family
from broadsheet.vision import ModularVPR, MotionDetector
from broadsheet.vision.count_detector import CountDetector
from broadsheet.vision.event_movies import Movie

RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 2
TRAINS = (RNG.random((24, 12, 4)) < 0.3).astype(np.float32)
RECORDED = (RNG.random((4, 60, 3)) < 0.2).astype(np.float32)
MOVIES = [Movie(RNG.random((2, 30, 10, 10)) < 0.1, RNG.integers(0, 2, 30)) for _ in range(4)]
LOGITS = np.cumsum(RNG.normal(size=(24, 5, 2)) + 0.5 * np.eye(2)[LABELS][:, None], axis=1)
SERIES = RNG.normal(size=(4, 30, 3))
PLACES = RNG.random((1, 4, 7, 7))
WEIGHTS = np.triu(RNG.random((8, 8)), 1)
PHOTONS = np.linspace(8.5, 11.0, 6)[:, None]  # GeV
CELLS = RNG.random((4, 2, 16, 16)) * np.pad(np.ones((8, 8)), 4)
PULLS = CELLS[:, :1] * np.array([1.0, -1.0])[:, None, None]
FILMS = RNG.integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)

CASES = {
    "SNNClassifier": [
        (SNNClassifier(kind, hidden=3, epochs=1, rule=rule), TRAINS, LABELS, "predict", {"rate": [0.01]})
        for kind, rule in (("lif", "backprop"), ("probabilistic", "backprop"), ("lif", "stdp"), ("lif", "tempotron"))
    ],
    "ContinualClassifier": [
        (ContinualClassifier((8, 8), 2, batch=6, epochs=1, rows=((2, 2, 2),)), TRAINS[:, 0], LABELS, "predict", {"steps": [5]})
    ],
    "RandomReadouts": [(RandomReadouts(6, 2), TRAINS[:, 0], LABELS, "predict", {"ridge": [0.1, 1.0]})],
    "DynamicConfidence": [(DynamicConfidence(), LOGITS, LABELS, "predict", {"signal": ["margin", "entropy"]})],
    "Tempotron": [(Tempotron(epochs=2), TRAINS, LABELS, "predict", {"rate": [0.01, 0.02]})],
    "ELMNeuron": [
        (ELMNeuron(3, targets=("voltage",), steps=5, **tree), RECORDED, RECORDED[..., :1], "predict", {"learning_rate": [0.01]})
        for tree in ({}, {"d_tree": 2, "d_brch": 2, "routing": "random"})
    ],
    "DendriticNeuron": [
        (DendriticNeuron(4, 3, 1, random_state=0), TRAINS.reshape(24, -1), LABELS, "predict", {"theta": [1, 2]})
    ],
    "MotionDetector": [(MotionDetector(3, 3, iterations=40), MOVIES, None, "predict", {"C": [0.01, 0.05]})],
    "CountDetector": [(CountDetector(3, 3, iterations=40), MOVIES, None, "answers", {"C": [0.01, 0.05]})],
    "RidgeVAR": [(RidgeVAR(), SERIES, None, "predict", {"ridge": [1.0, 10.0]})],
    "GRUForecaster": [(GRUForecaster(hidden=3, steps=2), SERIES, None, "predict", {"rate": [1e-3]})],
    "HMMGLM": [
        (HMMGLM(2, restarts=1, max_iter=2, random_state=0), (RECORDED > 0).astype(int), None, "predict", {"penalty": [1.0, 5.0]})
    ],
    "NTF": [(NTF(2, n_starts=1, max_sweeps=5), RNG.random((12, 3, 6)), None, "transform", {"rank": [1, 2]})],
    "WeightedSBM": [(WeightedSBM(n_starts=1), WEIGHTS + WEIGHTS.T, None, "fit_predict", {})],
    "DynamicConnectome": [
        (DynamicConnectome(2, n_starts=1), RNG.normal(size=(3, 40, 4)), None, "transform", {"rank": [1, 2]})
    ],
    "PositiveDiffusion": [
        (PositiveDiffusion(hidden=3, depth=1, steps=2, batch=4), WEIGHTS + 0.1, None, "score", {"sigma": [0.8, 1.0]})
    ],
    "AdditiveDiffusion": [
        (AdditiveDiffusion(kind, log=log, hidden=3, depth=1, steps=2, batch=4), WEIGHTS + 0.1, None, "score", {"sigma": [0.8, 1.0]})
        for kind, log in (("preserving", True), ("exploding", False))
    ],
    "SBIRR": [
        (SBIRR(family("lotka-volterra", 2, 0.5, jax.random.key(0)), outer=1, dt=1.0), SERIES[:, :6, :2].reshape(24, 2), LABELS, "predict", {"outer": [1, 2]})
    ],
    "ModularVPR": [(ModularVPR(2, 4, epochs=1), PLACES, None, "responses", {})],
    "LatentPredictor": [
        (LatentPredictor(kind, context=2, hidden=4, steps=2), RECORDED, None, "predict", {"residual": [True, False]})
        for kind in ("linear", "lstm", "ctrnn")
    ],
    "FrameEncoder": [
        (FrameEncoder(kind, 2, steps=2, batch=4), FILMS, np.arange(6), "transform", {"latents": [2, 3]}) for kind in ("pca", "dynamic")
    ],
    "VideoPredictor": [(VideoPredictor(slots, 2, context=2, steps=2, batch=4), FILMS, np.arange(6), "transform", {"steps": [2]}) for slots in (0, 2)],
    "WienerForce": [(WienerForce(), CELLS, PULLS, "predict", {"noise": [(0.1,), (1.0,)]})],
    "CentralForce": [(CentralForce(), CELLS, PULLS, "predict", {"images": [True, False]})],
    "SparseGreens": [(SparseGreens((3.0,), ()), CELLS[:, :1], PULLS, "predict", {"l1_ratio": [0.5, 0.9]})],
    "UNetForce": [(UNetForce(2, stages=1, blocks=0, steps=2, batch=2), CELLS, PULLS, "predict", {"batch": [2]})],
    "PBNN": [(PBNN(channels=2, blocks=0, pretrain=0, steps=2, batch=2), CELLS, PULLS, "predict", {"batch": [2]})],
    "GFNN": [(GFNN(2, kernels="none", steps=2, batch=2), CELLS, PULLS, "predict", {"batch": [2]})],
    "PhotoproductionFit": [
        (PhotoproductionFit(nodes=6, waves=1), PHOTONS, np.full((6, 2), (0.5, 0.2)), "predict", {"mu": [0.3, 0.6]})
    ],
    "Neuroformer": [
        (Neuroformer(width=4, steps=1, batch=2, tuning_steps=0), RNG.poisson(0.2, (6, 40, 2)), None, "score", {"rate": [0.01]})
    ],
}  # fmt: skip
EACH = [(name, k) for name, cases in CASES.items() for k in range(len(cases))]


def test_no_estimator_is_left_out():
    """Classes of the package that are scikit-learn's."""
    found = set()
    for file in Path(broadsheet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "BaseEstimator" for base in node.bases
            ):
                found.add(node.name)
    assert found == set(CASES)


@pytest.mark.parametrize(("name", "k"), EACH)
def test_a_fitted_estimator_is_saved_copied_and_loaded(name, k):
    model, x, y, method, _ = CASES[name][k]
    assert clone(model).get_params() == model.get_params()
    fitted = clone(model).fit(x, y)
    given = x[0].events if name in ("MotionDetector", "CountDetector") else x[0] if name == "ModularVPR" else x
    expected = getattr(fitted, method)(given)
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    for again in (pickle.loads(pickle.dumps(fitted)), joblib.load(stream)):
        for one, other in zip(np.atleast_1d(getattr(again, method)(given)), np.atleast_1d(expected), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not [field for field in vars(clone(fitted)) if field.endswith("_")]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CASES
        if name not in ("ModularVPR", "FrameEncoder", "VideoPredictor", "WeightedSBM", "DynamicConnectome")
    ],
)  # what learns one passage, one graph or these animals is not split; encoders have no score
def test_a_grid_search_tries_estimators(name):
    model, x, y, _, grid = CASES[name][0]
    scoring = None if hasattr(model, "score") else lambda fitted, x, y: 0.0
    search = GridSearchCV(clone(model), grid, cv=2, error_score="raise", scoring=scoring).fit(x, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert pickle.loads(pickle.dumps(search)).best_params_ == search.best_params_
