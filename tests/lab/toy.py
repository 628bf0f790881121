"""A paper for the tests, quick to run: no JAX in its experiment beyond the key."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import figure, label

paper = Paper(slug="toy", arxiv="2501.99999", title="A toy", published="2025-01-01", authors=1, basis="code", summary="A toy.")


@dataclass(frozen=True)
class Coin:
    """A biased coin."""

    bias: float = 0.9
    tosses: int = 400
    pause: float = 0.0  # s
    data: str | None = None
    crash: str = ""
    diary: str | None = None  # a file: what it was doing, and when
    alone: bool = False  # it notes two times alone, a second apart; otherwise many


def toss(config: Coin, key) -> np.ndarray:
    return np.asarray(jax.random.bernoulli(key, config.bias, (config.tosses,)))


@paper.experiment(
    presets={"smoke": Coin(tosses=20), "quick": Coin()},
    variants={"fair": {"bias": 0.5}},
    claims=[
        Claim(
            "T1",
            "heads win",
            kind="paper",
            ablation="fair",
            null=NONE_YET,
            grows="tosses",
            checks=[at_least("heads", 0.8), at_most("heads", 0.7, of="fair")],
        )
    ],
    data="data",
)
def coin(config: Coin, key, log: Log) -> Report:
    """How often does it show heads?"""
    log.progress(0.5, live=1.0)
    if config.pause:
        time.sleep(config.pause)
    if config.diary is not None:
        with Path(config.diary).open("a") as diary:
            for _ in range(1 if config.alone else 60):
                with log.alone() if config.alone else contextlib.nullcontext():
                    print("alone" if config.alone else "beside", time.time(), file=diary, flush=True)
                    time.sleep(1.0 if config.alone else 0.05)
                    print("alone" if config.alone else "beside", time.time(), file=diary, flush=True)
    if config.crash == "error":
        raise RuntimeError("it fell off the table")
    if config.crash == "kill":
        flag = log.checkpoint("was-here")
        if not flag.exists():  # only the first attempt is lost
            flag.parent.mkdir(parents=True)
            flag.write_text("x")
            os.kill(os.getpid(), 9)
    shown = toss(config, key)
    return Report(metrics={"heads": shown.mean()}, arrays={"shown": shown})


@coin.figure
def heads(runs: Runs):
    """Heads so far."""
    fig, axis = figure()
    for name, run in runs.items():
        axis.plot(np.cumsum(run.arrays["shown"]), label=name)
    label(axis, "toss", "heads")
    return fig


@paper.experiment(presets={"quick": Coin()}, precision="float64", deterministic=True, cost=1.0,
                  claims=[Claim("T2", "float64", kind="check", checks=[at_most("error", 1e-12)], reference="1/3")])  # fmt: skip
def thirds(config: Coin, key, log: Log) -> Report:
    """Is the precision set before JAX is imported?"""
    import jax.numpy as jnp

    return Report(metrics={"error": abs(float(jnp.asarray(1.0) / 3) - 1 / 3), "x64": float(jax.config.jax_enable_x64)})
