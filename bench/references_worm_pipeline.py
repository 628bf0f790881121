"""Makes tests/references/worm_pipeline.json: what the authors' pipeline makes of a few traces.

    python bench/references_worm_pipeline.py FOLDER_OF_worm-data-preprocess

Packages of theirs that these steps do not use (mat73, torch_geometric) are stood in for by empty modules. Inputs are drawn here,
from a seed that the test draws them from too.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "tests/references/worm_pipeline.json"
NAMES = ["AVAL", "AVAR", "RIS", "VB2"]
EVERY = 40


def traces() -> tuple[np.ndarray, np.ndarray]:
    """(samples, cells) and times, as the test draws them."""
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.uniform(0.4, 0.6, 700)).astype(np.float32).astype(float)
    return 100 + rng.standard_normal((700, len(NAMES))).cumsum(0), times - times[0]


def authors(folder: str):
    """Their base class and helpers."""
    for name in ("mat73", "torch_geometric", "torch_geometric.data", "torch_geometric.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torch_geometric.data"].Data = sys.modules["torch_geometric.data"].download_url = None
    for name in ("coalesce", "to_dense_adj", "dense_to_sparse"):
        setattr(sys.modules["torch_geometric.utils"], name, None)
    sys.path.insert(0, folder)
    os.chdir(folder)
    from preprocess.preprocessors import _base_preprocessors, _helpers

    return _base_preprocessors.NeuralBasePreprocessor, _helpers


def main(folder: str) -> None:
    from sklearn.preprocessing import StandardScaler

    base, helpers = authors(folder)
    x, times = traces()
    found = {}
    for smooth, options in (("none", {}), ("exponential", {"alpha": 0.5})):
        made = base("reference", StandardScaler(), smooth, "linear", 0.333, **options)
        worm = made.preprocess_traces([NAMES], [x], [times], {}, 0, {"data_file": ""})[0]["worm0"]
        order = [worm["neuron_to_idx"][name] for name in NAMES]
        found[smooth] = {
            kind: np.asarray(worm[kind])[::EVERY, order].tolist()
            for kind in ("calcium_data", "residual_calcium", "smooth_residual_calcium")
        } | {"time_in_seconds": np.asarray(worm["time_in_seconds"]).ravel()[::EVERY].tolist()}
    found["running"] = helpers.CausalNormalizer().fit_transform(x)[::EVERY].tolist()
    found["gaussian"] = np.asarray(helpers.gaussian_kernel_smooth(x, times, 5))[::EVERY].tolist()
    found["moving"] = np.asarray(helpers.moving_average_smooth(x, times, 15))[::EVERY].tolist()
    TARGET.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))
