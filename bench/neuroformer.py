"""Neuroformer: seconds of training steps, beside the authors' program at equal size; and the Poisson regression beside NeMoS.

The authors' program has no package: name its folder in NEUROFORMER_CODE, else that side is left out with a message.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from harness import Arrays, Case, Comparison, Run

comparison = Comparison(
    "Neuroformer: training steps, and a coupled Poisson regression",
    {
        "20 steps, 30 neurons": {"kind": "steps", "neurons": 30, "seconds": 60.0, "steps": 20, "width": 32, "windows": 75},
        "20 steps, 120 neurons": {"kind": "steps", "neurons": 120, "seconds": 60.0, "steps": 20, "width": 32, "windows": 75},
        "regression, 30 neurons": {"kind": "glm", "neurons": 30, "seconds": 120.0},
    },
    lambda case: {"counts": _counts(case)},
    text="A step is of 75 windows of 50 ms with 50 ms before them and three blocks, of the window, of what was before it and of the "
    "window again, of equal width; ours packs windows into rows, the authors' pads each to its block. The regression has the last "
    "five bins of all neurons as features.",
    shown={"likelihood": "nats a spike"},
)


def _counts(case: Case) -> np.ndarray:
    from broadsheet.recordings.hub_network import HubNetwork

    return HubNetwork(case["neurons"], 3, seconds=case["seconds"]).sample(0)[0]


def _recording(case: Case, arrays: Arrays) -> Any:
    from broadsheet.recordings.neuroformer.recording import Recording

    return Recording(arrays["counts"], block=400, past_block=400)


@comparison.side("broadsheet", packages=("jax",))
def ours(case: Case, arrays: Arrays) -> Run:
    counts = arrays["counts"].astype(float)
    if case["kind"] == "glm":
        from broadsheet.recordings.connectivity import fit_poisson, past_sums, poisson_log_likelihood

        def regression() -> dict[str, float]:
            features = past_sums(counts, (0, 1, 2, 3, 4, 5)).reshape(len(counts), -1)
            found = fit_poisson(features, counts, ridge=1.0)
            return {"likelihood": float(poisson_log_likelihood(counts, found.rates(features)).sum() / counts.sum())}

        return regression
    import jax

    from broadsheet.recordings.neuroformer.model import NeuroformerNet
    from broadsheet.recordings.neuroformer.training import train

    recording = _recording(case, arrays)
    data = recording.data(np.arange(len(recording.windows)))
    net = NeuroformerNet(recording.config(width=case["width"], heads=2, history=1), np.random.default_rng(0))

    def steps() -> dict[str, float]:
        made = train(net, data, steps=case["steps"], batch=case["windows"], key=jax.random.key(0))
        return {"loss": float(made.losses[-1])}

    return steps


@comparison.side("official", environment="neuroformer", packages=("torch",))
def official(case: Case, arrays: Arrays) -> Run:
    if case["kind"] == "glm":
        raise RuntimeError("the program has no regression")
    folder = os.environ.get("NEUROFORMER_CODE")
    if not folder:
        raise RuntimeError("the authors' program is not here: name its folder in NEUROFORMER_CODE")
    import types

    import torch

    import references_neuroformer as reference

    program = reference.official(Path(folder))
    counts, neurons = arrays["counts"], case["neurons"]
    windows = counts[: len(counts) // 5 * 5].reshape(-1, 5, neurons)
    block = int(windows.sum(axis=(1, 2)).max()) + 2
    reference.WIDTH, reference.BLOCK, reference.PAST = case["width"], block, block
    config = reference.settings(False, False)
    config.layers = types.SimpleNamespace(state_history=1, state=1, stimulus=0, behavior=0, self_att=0)
    sizes = {"ID": dict.fromkeys(range(neurons + 3)), "dt": dict.fromkeys(range(9))}
    model = program.Neuroformer(config, types.SimpleNamespace(ID_vocab_size=neurons + 3, dt_vocab_size=9, stoi=sizes))
    rule = torch.optim.AdamW(model.parameters(), 2e-3)
    ids, offsets = np.full((len(windows), block), neurons + 2), np.full((len(windows), block), 8)
    for k, window in enumerate(windows):
        bins, who = np.nonzero(window)
        times = window[bins, who]
        ids[k, : times.sum()], offsets[k, : times.sum()] = np.repeat(who, times), np.repeat(bins, times)
    ids, offsets = torch.as_tensor(ids), torch.as_tensor(offsets)
    rng = np.random.default_rng(0)

    def steps() -> dict[str, float]:
        for _ in range(case["steps"]):
            which = torch.as_tensor(rng.integers(1, len(ids) - 1, case["windows"]))
            now, then = ids[which], offsets[which]
            x = {
                "id": torch.roll(now, 1, 1),
                "dt": torch.roll(then, 1, 1),
                "id_prev": ids[which - 1],
                "dt_prev": offsets[which - 1],
            }
            x["id"][:, 0], x["dt"][:, 0] = neurons, 0
            features = model.feature_encoder(
                model.tok_emb(x["id"]) + model.temp_emb(x["dt"].float()) + model.pos_emb,
                torch.zeros(len(now), 0, case["width"]),
            )["id"]
            past = model.tok_emb(x["id_prev"]) + model.temp_emb_prev(x["dt_prev"].float()) + model.pos_emb_prev
            made = model.neural_visual_transformer({"id": features, "id_prev": past})
            cross = torch.nn.functional.cross_entropy
            loss = 0.6 * cross(model.head_id(made).flatten(0, 1), now.flatten(), ignore_index=neurons + 2)
            loss = loss + 0.4 * cross(model.head_dt(made).flatten(0, 1), then.flatten(), ignore_index=8)
            rule.zero_grad()
            loss.backward()
            rule.step()
        return {"loss": float(loss.detach())}

    return steps


@comparison.side("nemos", environment="neuroformer", packages=("nemos",))
def nemos(case: Case, arrays: Arrays) -> Run:
    if case["kind"] != "glm":
        raise RuntimeError("a regression, no transformer")
    import nemos as nmo

    counts = arrays["counts"].astype(float)
    total = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    at = np.arange(len(counts))
    features = np.concatenate([total[np.maximum(at - k, 0)] - total[np.maximum(at - k - 1, 0)] for k in range(5)], axis=1)

    def regression() -> dict[str, float]:
        model = nmo.glm.PopulationGLM(regularizer="Ridge", regularizer_strength=1.0 / len(counts), solver_name="LBFGS")
        model.fit(features, counts)
        rates = np.asarray(model.predict(features))
        from math import lgamma

        constant = sum(lgamma(value + 1) * count for value, count in zip(*np.unique(counts, return_counts=True), strict=True))
        value = (counts * np.log(np.maximum(rates, 1e-12)) - rates).sum() - constant
        return {"likelihood": float(value / counts.sum())}

    return regression
