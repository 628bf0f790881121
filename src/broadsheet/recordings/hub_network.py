"""A network with a few hubs: neurons that make many others fire some bins later, and are not made to fire by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from broadsheet.errors import InputError
from broadsheet.numerics import generator


@dataclass(frozen=True)
class HubNetwork:
    """`sample(key)` draws the network and its spikes.

    Hubs fire as Poisson processes, which a slow factor (gamma, a second) modulates; each makes `fan_out` others fire, each with
    `reliability` a spike, after a delay of the edge's own; all fire at `background` beside.

    **Arguments:** `hub_rate`, `background`: Hz; `delays`: shortest and longest, in bins; `modulation`: shape of the gamma
    factor,
    whose variance is its inverse; `drive`: Hz of a common slow drive of all neurons but the hubs, which couples none of them;
    `seconds`, `dt`: s.
    """

    neurons: int = 30
    hubs: int = 3
    fan_out: int = 8
    hub_rate: float = 20.0
    background: float = 3.0
    reliability: float = 0.5
    delays: tuple[int, int] = (1, 3)
    modulation: float = 4.0
    drive: float = 0.0
    seconds: float = 300.0
    dt: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.hubs < self.neurons or not 0 < self.fan_out < self.neurons:
            raise InputError(f"{self.hubs} hubs with {self.fan_out} targets among {self.neurons} neurons; fewer are wanted.")

    def sample(self, key: Any) -> tuple[Int[np.ndarray, "bins neurons"], Bool[np.ndarray, "neurons neurons"]]:
        """(counts, edges): edges[target, source]. Hubs are the first neurons."""
        rng = generator(key)
        bins, second = round(self.seconds / self.dt), round(1 / self.dt)
        edges = np.zeros((self.neurons, self.neurons), bool)
        counts = rng.poisson(self.background * self.dt, (bins, self.neurons))
        blocks = -(-bins // second)
        slow = np.repeat(rng.gamma(self.modulation, 1 / self.modulation, (blocks, self.hubs)), second, axis=0)[:bins]
        counts[:, : self.hubs] = rng.poisson(self.hub_rate * self.dt * slow)
        if self.drive:
            common = np.repeat(rng.gamma(1.0, 1.0, blocks), second)[:bins, None]
            counts[:, self.hubs :] += rng.poisson(self.drive * self.dt * common, (bins, self.neurons - self.hubs))
        fired = counts[:, : self.hubs].copy()
        for hub in range(self.hubs):
            others = np.delete(np.arange(self.neurons), hub)
            for target in rng.choice(others, self.fan_out, replace=False):
                delay = int(rng.integers(self.delays[0], self.delays[1] + 1))
                edges[target, hub] = True
                counts[delay:, target] += rng.binomial(fired[: bins - delay, hub], self.reliability)
        return counts.astype(np.int32), edges
