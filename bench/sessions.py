"""Spikes and a trace put on the same bins: an hour of a thousand neurons."""

import time

import numpy as np

from harness import Comparison

RATE = 100.0  # samples of the trace a second


def inputs(case):
    """Poisson spikes of 5 a second on average, and a running speed."""
    rng = np.random.default_rng(0)
    seconds = case["seconds"]
    rates = rng.gamma(2.0, 2.5, case["units"])
    times = [np.unique(rng.uniform(0, seconds, rng.poisson(rate * seconds))) for rate in rates]
    clock = np.arange(int(seconds * RATE)) / RATE
    return {
        "times": np.concatenate(times),
        "ends": np.cumsum([len(each) for each in times]),
        "speed": np.sin(clock),
        "clock": clock,
    }


def split(given):
    return np.split(given["times"], given["ends"][:-1])


def timed(binned):
    """A run's seconds, and what sides must share, which is not timed: all spikes, one late bin, and the trace in the middle."""
    start = time.perf_counter()
    counts, speed = binned()
    seconds = time.perf_counter() - start
    middle, of_unit = len(counts) // 2, counts.sum(axis=0)
    return {"seconds": seconds, "spikes": of_unit.sum(), "unit of most": int(of_unit.argmax()) + 1,
            "in the middle": counts[middle].sum() + 1, "speed": 2.0 if speed is None else speed[middle] + 2.0}  # fmt: skip


comparison = Comparison(
    "Spikes and a trace put on the same bins",
    {
        "1000 neurons, 1 h, bins of 0.1 s": {"units": 1000, "seconds": 3600.0, "dt": 0.1},
        "1000 neurons, 1 h, bins of 0.02 s": {"units": 1000, "seconds": 3600.0, "dt": 0.02},
        "1000 neurons, 30 min, bins of 0.1 s": {"units": 1000, "seconds": 1800.0, "dt": 0.1},
        "1000 neurons, 15 min, bins of 0.1 s": {"units": 1000, "seconds": 900.0, "dt": 0.1},
        "500 neurons, 1 h, bins of 0.1 s": {"units": 500, "seconds": 3600.0, "dt": 0.1},
        "250 neurons, 1 h, bins of 0.1 s": {"units": 250, "seconds": 3600.0, "dt": 0.1},
    },
    inputs,
    text="Counts of all neurons and the means of a running speed sampled at 100 Hz, in the same bins: `aligned` here, `TsGroup.count` "
    "and `bin_average` of pynapple, `BinnedSpikeTrain` of Elephant, which has the counts alone; sums that show that they are equal "
    "are not timed. Neurons fire 5 spikes a second. The "
    "cases are a curve: cost is linear in the time, in bins and in neurons.",
    agree={"spikes": 0.0, "unit of most": 0.0, "in the middle": 2e-3},
    turns=5,
)  # fmt: skip


@comparison.side("broadsheet", packages=("numpy",))
def ours(case, given):
    from broadsheet.recordings import Session, Spikes, Traces, aligned

    times = split(given)
    spikes = Spikes(times, tuple(map(str, range(len(times)))), 0.0, case["seconds"])
    session = Session("s", spikes, {"speed": Traces(given["speed"], given["clock"], ("speed",))})

    def binned():
        made = aligned(session, case["dt"], "speed")
        return made.counts, made.values[:, 0]

    return lambda: timed(binned)


@comparison.side("pynapple", packages=("pynapple", "numba"))
def pynapple(case, given):
    import pynapple as nap

    whole = nap.IntervalSet(0.0, case["seconds"])
    group = nap.TsGroup({k: nap.Ts(times) for k, times in enumerate(split(given))}, time_support=whole)
    speed = nap.Tsd(given["clock"], given["speed"], time_support=whole)

    return lambda: timed(lambda: (group.count(case["dt"]).values, speed.bin_average(case["dt"]).values))


@comparison.side("Elephant", environment="elephant", packages=("elephant", "neo"))
def elephant(case, given):
    import neo
    import quantities as pq
    from elephant.conversion import BinnedSpikeTrain

    trains = [neo.SpikeTrain(times * pq.s, t_start=0 * pq.s, t_stop=case["seconds"] * pq.s) for times in split(given)]

    return lambda: timed(lambda: (BinnedSpikeTrain(trains, bin_size=case["dt"] * pq.s).to_array().T, None))
