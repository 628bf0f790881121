"""Recordings of the frontal cortex of two monkeys during Mental Pong, as published (Zenodo 10.5281/zenodo.13952210, MIT).

The files are Python pickles: they are read only where the user trusts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from broadsheet.errors import DataError, MissingDataError
from broadsheet.files import load_pickle
from broadsheet.recordings.mental_pong import DEGREES, FRAME, PongTrials, Starts
from broadsheet.recordings.simulated_frontal import BIN

FILES = {"perle": "perle_hand_dmfc_dataset_50ms.pkl", "mahler": "mahler_hand_dmfc_dataset_50ms.pkl"}
"""One for each monkey."""


@dataclass(frozen=True)
class FrontalRecording:
    """Means over trials in bins of 50 ms, of all trials and of two halves: (conditions, bins, units), NaN outside.

    - `ball`: (conditions, bins, 2) position of the ball in units of the task, also while hidden.
    - `running`, `hidden`: (conditions, bins) whether the trial is on, and whether the ball is out of sight.
    """

    responses: Float[np.ndarray, "conditions bins units"]
    halves: tuple[np.ndarray, np.ndarray]
    ball: Float[np.ndarray, "conditions bins 2"]
    running: Bool[np.ndarray, "conditions bins"]
    hidden: Bool[np.ndarray, "conditions bins"]


def read_frontal(path: str | Path, *, reliable: bool = True) -> FrontalRecording:
    """One published file; with `--trust` (or `BROADSHEET_TRUST=1`) only.

    **Arguments:** `reliable`: the units that the authors found reliable, where the file says which.

    **Raises:** `UntrustedError`, `DataError`.
    """
    held = load_pickle(path)

    def array(*keys: str) -> np.ndarray:
        found = held
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                raise DataError(
                    f"{path} has no {'/'.join(keys)}; a data set of Mental Pong recordings in bins of 50 ms is wanted."
                )
            found = found[key]
        return np.asarray(found, float)

    name = "neural_responses"
    if reliable and isinstance(held, dict) and "neural_responses_reliable" in held:
        name = "neural_responses_reliable"
    parts = [array(name + half, "occ") for half in ("", "_sh1", "_sh2")]
    running, hidden = (np.isfinite(array("masks", "occ", mask)) for mask in ("start_end_pad0", "occ_end_pad0"))
    # true positions come from trials in which the ball was not caught; they go on behind the paddle
    suffix = "_TRUE" if "ball_pos_x_TRUE" in _keys(held, "behavioral_responses", "occ") else ""
    ball = np.stack([array("behavioral_responses", "occ", f"ball_pos_{axis}{suffix}") for axis in "xy"], axis=-1)
    shapes = {part.shape for part in parts}
    if len(shapes) != 1 or parts[0].ndim != 3 or parts[0].shape[1:] != running.shape or ball.shape[:2] != running.shape:
        raise DataError(
            f"{path} holds responses {parts[0].shape} and masks {running.shape}; (units, conditions, bins) and "
            "(conditions, bins) are wanted."
        )
    if hidden.shape != running.shape or not hidden.any():
        raise DataError(f"{path}: no condition has a bin in which the ball is hidden.")
    whole, first, second = (part.transpose(1, 2, 0) for part in parts)
    return FrontalRecording(whole, (first, second), ball / DEGREES + 16, running, hidden)


def read_monkeys(folder: str | None) -> dict[str, FrontalRecording]:
    """Both monkeys' recordings from a folder.

    **Raises:** `MissingDataError` where a file is not there, and what `read_frontal` does.
    """
    where = Path(folder) if folder else None
    if where is None or not all((where / name).is_file() for name in FILES.values()):
        raise MissingDataError(
            f"The recordings of Mental Pong are needed: {' and '.join(FILES.values())} from doi.org/10.5281/zenodo.13952210, "
            "in a folder that --data names; they are pickles, so --trust is needed too."
        )
    return {monkey: read_frontal(where / name) for monkey, name in FILES.items()}


def as_trials(recording: FrontalRecording) -> tuple[PongTrials, Float[np.ndarray, "conditions bins"]]:
    """The recorded conditions as trials of the task, in frames of 41 ms; and when each bin is, in frames (NaN outside)."""
    bins = np.arange(recording.running.shape[1])
    paths, hidden, end = [], [], []
    frames = np.full(recording.running.shape, np.nan)
    for k, (running, out) in enumerate(zip(recording.running, recording.hidden, strict=True)):
        on = np.flatnonzero(running & np.isfinite(recording.ball[k]).all(axis=-1))
        if len(on) < 2:
            raise DataError(f"Condition {k} has {len(on)} bins with a position of the ball; two or more are wanted.")
        frames[k, on] = (bins[on] - on[0]) * BIN / FRAME
        grid = np.arange(int(frames[k, on[-1]]) + 1)
        paths.append(np.stack([np.interp(grid, frames[k, on], recording.ball[k, on, axis]) for axis in range(2)]))
        first = on[np.searchsorted(on, np.flatnonzero(out)[0])] if out.any() else on[-1]
        hidden.append(int(np.ceil(frames[k, first])))
        end.append(len(grid) - 1)
    width = max(end) + 1
    x, y = (
        np.stack([np.pad(path[axis], (0, width - path.shape[1]), constant_values=np.nan) for path in paths])
        for axis in range(2)
    )
    turns = np.diff(np.sign(np.diff(y, axis=1)), axis=1)
    bounced = np.nan_to_num(turns) != 0
    at = np.arange(1, width - 1)
    speed = np.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]])
    starts = Starts(x[:, 0], y[:, 0], np.arctan2(speed[1], speed[0]), np.hypot(*speed))
    where = np.array(hidden)
    made = PongTrials(
        x, y, where, np.array(end), bounced.sum(axis=1), (bounced & (at >= where[:, None])).sum(axis=1), starts
    )  # fmt: skip
    return made, frames


def _keys(held: Any, *keys: str) -> set[str]:
    for key in keys:
        held = held.get(key, {}) if isinstance(held, dict) else {}
    return set(held) if isinstance(held, dict) else set()
