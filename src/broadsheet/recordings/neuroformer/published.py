"""The authors' recordings: visual navigation in virtual reality, and V1 with AL under three films, as their program reads
them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import DataError, MissingDataError
from broadsheet.files import load_arrays, load_pickle

WHERE = "it is in the Google Drive folder that the README of github.com/a-antoniades/Neuroformer names"


class VisNav(NamedTuple):
    """Spikes in bins of 0.01 s; film and behaviour in steps of 0.05 s."""

    counts: Int[np.ndarray, "bins neurons"]
    frames: Float[np.ndarray, "frames height width"]
    behaviour: dict[str, Float[np.ndarray, " frames"]]


def read_visnav(folder: str | Path | None) -> VisNav:
    """From the folder of one animal (`LateralVRDataset/NF_1.5`): `spikerates_dt_0.01.npy` (neurons, bins), `stimulus.npy`
    (frames,
    1, height, width), `behavior_speed_dt_0.05.npy`, `phi_dt_0.05.npy` and `th_dt_0.05.npy` (frames,).

    **Raises:** `MissingDataError` without a folder, `DataError` where the files do not fit each other.
    """
    root = _folder(folder, "VisNav_VR_Expt")
    if not (root / "spikerates_dt_0.01.npy").exists() and (root / "NF_1.5").is_dir():
        root = root / "NF_1.5"
    spikes, film = _array(root / "spikerates_dt_0.01.npy"), _array(root / "stimulus.npy")
    names = {"speed": "behavior_speed_dt_0.05", "phi": "phi_dt_0.05", "th": "th_dt_0.05"}
    behaviour = {name: np.ravel(_array(root / f"{file}.npy")).astype(float) for name, file in names.items()}
    counts = _counts(spikes, root / "spikerates_dt_0.01.npy")
    frames = film[:, 0] if film.ndim == 4 else film
    if frames.ndim != 3:
        raise DataError(f"{root / 'stimulus.npy'} is {film.shape}; (frames, 1, height, width) is wanted.")
    steps = counts.shape[0] // 5
    for name, values in {**behaviour, "stimulus": frames}.items():
        if len(values) < steps - 1:
            raise DataError(
                f"{root}: {name} has {len(values)} steps of 0.05 s, and the spikes last {steps}; as many are wanted."
            )
    return VisNav(counts, frames.astype(np.float32), behaviour)


def read_v1al(
    folder: str | Path | None,
) -> tuple[dict[int, Int[np.ndarray, "bins neurons"]], Float[np.ndarray, "films frames height width"]]:
    """(counts of each trial, films) from `Combo3_V1AL.pkl`, a dictionary of trials (neurons, bins), and
    `Combo3_V1AL_stimulus.npy`:
    the published `.pt` saved again by `np.save(…, torch.load(…).numpy())`. The pickle needs `--trust`.

    Trials 1 to 20 show the first film, the next 20 the second, and so on.
    """
    root = _folder(folder, "Combo3_V1AL")
    held = load_pickle(_there(root / "Combo3_V1AL.pkl"))
    if not isinstance(held, dict) or not held or not all(np.ndim(trial) == 2 for trial in held.values()):
        raise DataError(f"{root / 'Combo3_V1AL.pkl'} should hold a dictionary of trials, (neurons, bins) each.")
    films = np.squeeze(_array(root / "Combo3_V1AL_stimulus.npy")).astype(np.float32)
    if films.ndim != 4:
        raise DataError(f"{root / 'Combo3_V1AL_stimulus.npy'} is {films.shape}; (films, frames, height, width) is wanted.")
    return {int(trial): _counts(np.asarray(part), root / "Combo3_V1AL.pkl") for trial, part in held.items()}, films


def _folder(folder: str | Path | None, name: str) -> Path:
    if folder is None or not Path(folder).is_dir():
        raise MissingDataError(f"The recording {name} is needed: {WHERE}; name its folder with --data.")
    return Path(folder)


def _there(path: Path) -> Path:
    if not path.exists():
        raise MissingDataError(f"{path} is missing: {WHERE}.")
    return path


def _array(path: Path) -> np.ndarray:
    made = list(load_arrays(_there(path)).values())
    if len(made) != 1 or made[0].dtype.kind not in "biuf":
        raise DataError(f"{path} should hold one array of numbers.")
    if not np.isfinite(made[0]).all():
        raise DataError(f"{path} holds numbers that are not finite.")
    return made[0]


def _counts(spikes: np.ndarray, path: Path) -> np.ndarray:
    """(bins, neurons), rounded as the authors' program does."""
    if spikes.ndim != 2 or (spikes < 0).any():
        raise DataError(f"{path} is {spikes.shape}, or negative somewhere; (neurons, bins) from 0 on is wanted.")
    return np.round(spikes.T).astype(np.int32)
