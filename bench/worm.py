"""The worm's data: homogenising recordings, opening connectomes, resampling, fitting vector autoregressions."""

import os
import sys
import time
import types

import numpy as np

from harness import Comparison

CASES = {
    **{f"homogenise {cells} neurons, {frames} frames, {smooth}": {"task": "homogenise", "cells": cells, "frames": frames, "smooth": smooth}
       for cells, frames, smooth in ((300, 6000, "none"), (300, 6000, "exponential"), (300, 1500, "none"), (300, 3000, "none"),
                                     (75, 6000, "none"), (150, 6000, "none"))},
    "homogenise 300 neurons, 1500 frames, moving average": {"task": "homogenise", "cells": 300, "frames": 1500, "smooth": "moving"},
    "resample 100 neurons, 10 min at 4 Hz": {"task": "resample", "cells": 100, "frames": 2400},
    "open White's connectome": {"task": "open"},
    "VAR of 60 neurons, 3000 samples": {"task": "var", "cells": 60, "frames": 3000},
}  # fmt: skip


def inputs(case):
    """Traces (samples, cells) that drift, at uneven times of about 0.5 s."""
    if case["task"] == "open":
        return {}
    rng = np.random.default_rng(0)
    x = 100 + rng.standard_normal((case["frames"], case["cells"])).cumsum(0)
    if case["task"] == "var":
        x = rng.standard_normal((case["frames"], case["cells"]))
        for t in range(1, len(x)):
            x[t] += 0.5 * x[t - 1] + 0.1 * np.roll(x[t - 1], 1)
    times = np.cumsum(rng.uniform(0.4, 0.6, case["frames"])).astype(np.float32).astype(float)
    return {"x": x, "times": times - times[0]}


def timed(work, spread):
    """A run's seconds, and what sides must share, which is not timed."""
    start = time.perf_counter()
    made = work()
    return {"seconds": time.perf_counter() - start, **({} if spread is None else {"spread": spread(made)})}


comparison = Comparison(
    "The worm: homogenising, connectomes, forecasts",
    CASES,
    inputs,
    text="Homogenising beside the authors' own pipeline (worm-data-preprocess, named by WORM_DATA_PREPROCESS, run in Broadsheet's "
    "environment), z-scores taken last as there; its arrays come in half precision after the last step, which `spread` forgives. "
    "Pynapple interpolates alone. Spreads are not timed. A connectome is opened in a process that has imported the package. statsmodels' VAR also "
    "estimates the noise.",
    agree={"spread": 2e-3, "synapses": 0.0, "own": 1e-2},
    shown={"import_ms": "import (ms)"},
    turns=5,
)  # fmt: skip


@comparison.side("broadsheet", packages=("numpy", "jax"))
def ours(case, given):
    start = time.perf_counter()
    from broadsheet.recordings.worm.connectomes import Connectome, _shipped
    from broadsheet.recordings.worm.names import canonical_names

    spent = 1000 * (time.perf_counter() - start)
    if case["task"] == "open":

        def opened():
            _shipped.cache_clear()
            return {"synapses": Connectome.load("white").tables["chemical"].total, "import_ms": spent}

        return opened
    if case["task"] == "var":
        from broadsheet.recordings.worm.forecasts import RidgeVAR

        return lambda: {"own": np.diag(RidgeVAR(ridge=0.0).fit(given["x"]).coef_[0]).mean()}
    from broadsheet.recordings.worm.pipeline import homogenise, interpolate

    if case["task"] == "resample":

        def resampled():
            return interpolate(given["x"], given["times"], np.arange(given["times"][0], given["times"][-1], 0.333))

        return lambda: timed(resampled, np.std)
    names = canonical_names()[: case["cells"]]
    options = {
        "none": {},
        "exponential": {"smooth": "exponential", "amount": 0.5},
        "moving": {"smooth": "moving", "amount": 15.0},
    }

    def homogenised():
        return homogenise(given["x"], given["times"], names, 0.333, zscore="last", **options[case["smooth"]])

    def spread(made):
        return np.abs(made.calcium[:, : case["cells"]]).mean()

    return lambda: timed(homogenised, spread if case["smooth"] != "moving" else None)


@comparison.side("the authors' pipeline", packages=("torch",))
def authors(case, given):
    if case["task"] != "homogenise":
        raise RuntimeError("no peer in this case")
    for name in ("mat73", "torch_geometric", "torch_geometric.data", "torch_geometric.utils"):
        sys.modules[name] = types.ModuleType(name)  # not used by these steps
    sys.modules["torch_geometric.data"].Data = sys.modules["torch_geometric.data"].download_url = None
    for name in ("coalesce", "to_dense_adj", "dense_to_sparse"):
        setattr(sys.modules["torch_geometric.utils"], name, None)
    folder = os.environ["WORM_DATA_PREPROCESS"]
    sys.path.insert(0, folder)
    os.chdir(folder)
    from preprocess.preprocessors._base_preprocessors import NeuralBasePreprocessor
    from preprocess.preprocessors._helpers import reshape_calcium_data
    from sklearn.preprocessing import StandardScaler

    from broadsheet.recordings.worm.names import canonical_names

    names = list(canonical_names()[: case["cells"]])
    options = {"none": {}, "exponential": {"alpha": 0.5}, "moving": {"window_size": 15}}[case["smooth"]]
    made = NeuralBasePreprocessor("bench", StandardScaler(), case["smooth"], "linear", 0.333, **options)

    def homogenised():
        worm = made.preprocess_traces([names], [given["x"]], [given["times"]], {}, 0, {"data_file": ""})[0]["worm0"]
        return reshape_calcium_data(worm)["calcium_data"]

    def spread(calcium):
        return np.abs(calcium.float().numpy()[:, : case["cells"]]).mean()

    return lambda: timed(homogenised, spread if case["smooth"] != "moving" else None)


@comparison.side("pynapple", environment="worm", packages=("pynapple",))
def pynapple(case, given):
    if case["task"] != "resample":
        raise RuntimeError("no peer in this case")
    import pynapple as nap

    traces = nap.TsdFrame(t=given["times"], d=given["x"])

    def resampled():
        return traces.interpolate(nap.Ts(np.arange(given["times"][0], given["times"][-1], 0.333))).values

    return lambda: timed(resampled, np.std)


@comparison.side("cect", environment="worm", packages=("cect",))
def cect(case, given):
    if case["task"] != "open":
        raise RuntimeError("no peer in this case")
    start = time.perf_counter()
    from cect.readers import White_whole

    spent = 1000 * (time.perf_counter() - start)
    return lambda: {"synapses": White_whole.get_instance(from_cache=True).connections["Generic_CS"].sum(), "import_ms": spent}


@comparison.side("statsmodels", environment="worm", packages=("statsmodels",))
def statsmodels(case, given):
    if case["task"] != "var":
        raise RuntimeError("no peer in this case")
    from statsmodels.tsa.api import VAR

    return lambda: {"own": np.diag(VAR(given["x"]).fit(1).coefs[0]).mean()}
