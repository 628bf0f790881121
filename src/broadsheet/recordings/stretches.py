"""Stretches of time as arrays (n, 2) of starts and ends, and the spikes that should lie in them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from broadsheet.errors import InputError


def check_times(name: str, times: np.ndarray, stretches: np.ndarray) -> None:
    """Raises `InputError` for spike times that are no list, not finite, fall, come twice or lie outside the stretches (s)."""
    if times.ndim != 1 or not np.isfinite(times).all():
        raise InputError(f"Unit {name}: spike times must be a list of finite numbers (s).")
    if times.size > 1 and (steps := np.diff(times)).min() <= 0:
        k = int(steps.argmin())
        what = "twice" if steps[k] == 0 else f"after {times[k]:.6g} s"
        raise InputError(f"Unit {name}: the spike at {times[k + 1]:.6g} s comes {what}; rising times are wanted.")
    if not times.size:
        return
    slack = max(1e-9 * float(np.abs(stretches).max(initial=0.0)), 1e-6)
    inside = within(times, stretches, slack)
    if not inside.all():
        when = ", ".join(f"{start:g} to {stop:g}" for start, stop in stretches[:3]) + (" …" if len(stretches) > 3 else "")
        raise InputError(
            f"Unit {name}: {int((~inside).sum())} of {times.size} spikes, the first at {times[~inside][0]:.6g} s, lie outside "
            f"the time that it was observed ({when or 'none'} s)."
        )


def joined(stretches: np.ndarray) -> np.ndarray:
    """Stretches (n, 2) in order, those that touch or overlap made one."""
    made: list[list[float]] = []
    for start, stop in stretches[np.argsort(stretches[:, 0], kind="stable")].tolist():
        if made and start <= made[-1][1] + 1e-9:
            made[-1][1] = max(made[-1][1], stop)
        else:
            made.append([start, stop])
    return np.array(made).reshape(-1, 2)


def clipped(stretches: np.ndarray, start: float, stop: float) -> np.ndarray:
    """What of the stretches lies between `start` and `stop`."""
    cut = np.clip(stretches, start, stop)
    return cut[cut[:, 1] > cut[:, 0]]


def shared_stretches(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The stretches that lie in all of the lists of stretches, each in order."""
    first, *rest = {each.tobytes(): each for each in parts}.values()
    for other in rest:
        first = np.concatenate([clipped(other, start, stop) for start, stop in first] or [np.empty((0, 2))])
    return first


def within(times: np.ndarray, stretches: np.ndarray, slack: float = 0.0) -> np.ndarray:
    """Which of the times lie in one of the stretches, which are in order."""
    if not len(stretches):
        return np.zeros(len(times), bool)
    at = np.searchsorted(stretches[:, 0], times + slack, "right") - 1
    return (at >= 0) & (times <= stretches[np.maximum(at, 0), 1] + slack)
