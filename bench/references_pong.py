"""Writes tests/references/pong.npz: what the published programs make of small inputs.

    python bench/references_pong.py TASK METRIC    the folders of github.com/RishiRajalingham/MPongBehavior_public and
                                                   github.com/anayebi/brainmodel_utils (MIT)

Trials of the task, the measure of predictivity (RidgeCV and a fixed penalty), consistency of errors, and positions of filterpy's Kalman
filter. Needs numpy below 2, xarray, scikit-learn, pandas, h5py, Pillow and filterpy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def task(folder: Path) -> dict[str, np.ndarray]:
    sys.path.insert(0, str(folder / "PongDatasets"))
    from PongDataset import PongTrial, TrialEncoder

    rng = np.random.default_rng(0)
    count = 400
    starts = np.stack([
        32 * rng.choice(np.arange(0.05, 0.55, 0.01), count), 32 * rng.choice(np.arange(0.05, 0.95, 0.01), count),
        rng.choice(np.linspace(-0.4 * np.pi, 0.4 * np.pi, 144), count), rng.choice([0.25, 0.5, 0.75], count),
    ], axis=1)  # fmt: skip
    one = PongTrial(n_frames=100)
    labels, kept, paths = [], [], []
    for x, y, heading, speed in starts:
        across = speed * np.cos(heading)
        if not (16 <= (24 - x) / across <= 44 and 16 <= 8 / across <= 44):
            kept.append(False)
            continue
        one.run_forward(x=x, y=y, r=0.64, heading=heading, speed=speed)
        kept.append(one.trial is not None)
        if one.trial is not None:
            labels.append(one.label)
            paths.append(one.trial[:, :2])
    encoder = TrialEncoder(ball_size=1, pad=8, img_h=32, img_w=32, grid_size=4)
    some = np.array(paths[:2])[:, 5:40:17]
    pictures = encoder.convert_trial_pxl(some)
    return {"starts": starts, "kept": np.array(kept), "labels": np.array(labels), "paths": np.array(paths[:6]),
            "drawn": some, "pictures": pictures.astype(np.uint8)}  # fmt: skip


def predictivity(folder: Path) -> dict[str, np.ndarray]:
    sys.path.insert(0, str(folder))
    from brainmodel_utils.core.constants import RIDGECV_ALPHA_CV
    from brainmodel_utils.metrics.consistency import get_linregress_consistency

    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 5))
    Y = (X @ rng.standard_normal((5, 4)) + 1.5 * rng.standard_normal((8, 60, 4))).round(3)
    Y[0, :, 0] = np.nan  # a unit that misses a trial
    source = (X @ rng.standard_normal((5, 3)) + 1.5 * rng.standard_normal((6, 60, 3))).round(3)
    halves, own = (np.zeros((3, n), bool) for n in (8, 6))
    for k in range(3):
        for ways in (halves, own):
            order = list(range(ways.shape[1]))
            np.random.RandomState(seed=1234 + k).shuffle(order)
            ways[k, order[: len(order) // 2]] = True
    splits = [{"train": order[:45], "test": order[45:]} for order in (rng.permutation(60) for _ in range(2))]
    made = {
        "X": X,
        "Y": Y,
        "halves": halves,
        "own_halves": own,
        "source": source,
        "order": np.array([np.append(*s.values()) for s in splits]),
    }
    for name, kind, kwargs in (("cv", "RidgeCV", {"alphas": RIDGECV_ALPHA_CV}), ("fixed", "Ridge", {"alpha": 10.0})):
        mapping = {"map_type": "sklinear", "map_kwargs": {"regression_type": kind, "regression_kwargs": kwargs}}
        for what, given in (("model", X), ("animal", source)):
            found = get_linregress_consistency(given, Y, mapping, num_bootstrap_iters=3, splits=splits)["test"]
            made |= {f"{name}_{what}_{key}": found[key] for key in ("r_xy_n_sb", "r_xy", "r_xx", "r_yy")}
    return made


def consistency(folder: Path) -> dict[str, np.ndarray]:
    """The class is cut out of its file, whose other imports are of the authors' machine."""
    import ast

    text = (folder / "PongBehavior" / "BehavioralCharacterizer.py").read_text()
    wanted = "get_noise_corrected_corr_base"
    found = next(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == wanted)
    found.decorator_list = []
    from scipy.stats import pearsonr, spearmanr

    names = {"np": np, "pearsonr": pearsonr, "spearmanr": spearmanr}
    exec(compile(ast.Module([found], []), "BehavioralCharacterizer.py", "exec"), names)
    rng = np.random.default_rng(2)
    truth = rng.standard_normal((4, 1, 30))
    halves = truth + 0.7 * rng.standard_normal((4, 4, 30))
    halves[0, 1, 3] = np.nan
    return {"behaviour_halves": halves, "behaviour": np.array([names[wanted](*each) for each in halves])}


def kalman() -> dict[str, np.ndarray]:
    from filterpy.kalman import KalmanFilter

    rng = np.random.default_rng(3)
    path = np.cumsum(rng.uniform(0.1, 0.4, 30)) + 0.1 * rng.standard_normal(30)
    one = KalmanFilter(dim_x=2, dim_z=1)
    one.x, one.P, one.F = np.array([path[0], 0.0]), np.diag([0.01, 1.0]), np.array([[1.0, 1.0], [0.0, 1.0]])
    one.H, one.R, one.Q = np.array([[1.0, 0.0]]), np.array([[0.01]]), 0.02**2 * np.array([[0.25, 0.5], [0.5, 1.0]])
    states = [one.x.copy()]
    for t in range(1, 30):
        one.predict()
        if t < 20:
            one.update(path[t])
        states.append(one.x.copy())
    return {"kalman_path": path, "kalman": np.array(states)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", type=Path)
    parser.add_argument("metric", type=Path)
    asked = parser.parse_args()
    sys.argv = sys.argv[:1]
    made = task(asked.task) | predictivity(asked.metric) | consistency(asked.task) | kalman()
    np.savez_compressed(ROOT / "tests" / "references" / "pong.npz", **made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
