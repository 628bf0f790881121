"""Data sets of homogenised worms on disk: the authors' table (one row a neuron of a worm, arXiv 2411.12091) and a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import write_atomic, writing
from broadsheet.errors import DataError, InputError, MissingDataError, MissingExtraError
from broadsheet.files import existing, load_arrays, read_json
from broadsheet.recordings.worm.names import canonical_names, canonicalise, slots
from broadsheet.recordings.worm.pipeline import Recording, gradient

WANTED = ("source_dataset", "worm", "neuron", "is_labeled_neuron", "calcium_data", "time_in_seconds")
"""Columns without which a table is none of the authors'."""
SERIES = {"residual_calcium": "residual", "smooth_calcium_data": "smooth_calcium", "smooth_residual_calcium": "smooth_residual"}
ALSO = ("raw_data_file", "smooth_method", "normalization_method", "original_median_dt", *SERIES)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("A table of worms (pyarrow)", "recordings") from None
    return pyarrow


def rows_of(recording: Recording) -> dict[str, list[Any]]:
    """The authors' columns of one worm: identified neurons first, in the order of their slots, then the others in the slots
    that are free, which say nothing about who they are."""
    cells = np.flatnonzero(recording.mask)
    free = np.flatnonzero(~recording.mask)[: len(recording.other_names)]
    names = [canonical_names()[k] for k in cells] + list(recording.other_names[: len(free)])
    count = len(names)

    def series(values: np.ndarray, others: np.ndarray | None = None) -> list[np.ndarray]:
        known = [values[:, k].astype(np.float32) for k in cells]
        return known + [(np.zeros(0) if others is None else others[:, k]).astype(np.float32) for k in range(len(free))]

    return {
        "source_dataset": [recording.source] * count,
        "raw_data_file": [recording.file] * count,
        "worm": [recording.worm] * count,
        "neuron": names,
        "slot": [*map(int, cells), *map(int, free)],
        "is_labeled_neuron": [True] * len(cells) + [False] * len(free),
        "smooth_method": [recording.smooth] * count,
        "interpolate_method": ["previous" if recording.causal else "linear"] * count,
        "normalization_method": ["causal" if recording.causal else "standard"] * count,
        "calcium_data": series(recording.calcium, recording.others),
        "smooth_calcium_data": series(recording.smooth_calcium),
        "residual_calcium": series(recording.residual),
        "smooth_residual_calcium": series(recording.smooth_residual),
        "time_in_seconds": [recording.time.astype(np.float32)] * count,
        "original_median_dt": [float(recording.original_dt)] * count,
        "median_dt": [float(recording.dt)] * count,
        "max_timesteps": [len(recording.time)] * count,
    }


def write_parquet(path: str | Path, recordings: Iterable[Recording]) -> int:
    """Writes worms one after the other as row groups of a table with the authors' columns; the number of worms."""
    arrow = _arrow()
    count, seen, writer = 0, set(), None
    with writing(Path(path)) as stream:
        try:
            for recording in recordings:
                if (recording.source, recording.worm) in seen:
                    raise InputError(
                        f"Two worms of {recording.source!r} are named {recording.worm!r}; each name is wanted once."
                    )
                seen.add((recording.source, recording.worm))
                table = arrow.table(rows_of(recording), schema=_schema(arrow))
                writer = writer or arrow.parquet.ParquetWriter(stream, table.schema, compression="zstd")
                if table.num_rows:
                    writer.write_table(table)
                count += 1
        finally:  # before the stream closes
            if writer is not None:
                writer.close()
        if not count:
            raise InputError("No worm was given; a table needs one or more.")
    return count


def _schema(arrow: Any) -> Any:
    series = {"calcium_data", *SERIES, "time_in_seconds"}
    kinds = {"slot": arrow.int32(), "max_timesteps": arrow.int32(), "is_labeled_neuron": arrow.bool_()}
    kinds |= {"original_median_dt": arrow.float32(), "median_dt": arrow.float32()}
    columns = (
        "source_dataset", "raw_data_file", "worm", "neuron", "slot", "is_labeled_neuron", "smooth_method", "interpolate_method",
        "normalization_method", "calcium_data", "smooth_calcium_data", "residual_calcium", "smooth_residual_calcium",
        "time_in_seconds", "original_median_dt", "median_dt", "max_timesteps",
    )  # fmt: skip
    return arrow.schema(
        [(name, arrow.list_(arrow.float32()) if name in series else kinds.get(name, arrow.string())) for name in columns]
    )


def iter_parquet(path: str | Path) -> Iterator[Recording]:
    """The worms of an authors' table, one at a time, so that memory holds one worm and one batch of rows.

    Rows of a worm must stand together. Columns of smoothed traces and derivatives are read where the table has them.

    **Raises:** `DataError` for tables with other columns, rows out of order, names in two spellings.
    """
    arrow = _arrow()
    place = Path(path).expanduser()
    if not place.is_file():
        raise MissingDataError(
            f"{place} is not there: the authors' table is worm_data_short.parquet of the data set qsimeon/celegans_neural_data "
            "on Hugging Face; download it and name its path."
        )
    try:
        file = arrow.parquet.ParquetFile(place)
    except (arrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{place} is no parquet file ({str(error)[:60]}).") from None
    columns = set(file.schema_arrow.names)
    if lacking := [name for name in WANTED if name not in columns]:
        raise DataError(f"{place} lacks the columns {', '.join(lacking)}; it has {', '.join(sorted(columns)[:8])}.")
    done: set[tuple[str, str]] = set()
    rows: list[dict[str, Any]] = []
    for batch in file.iter_batches(batch_size=64, columns=[*WANTED, *(name for name in ALSO if name in columns)]):
        given = {name: batch.column(name) for name in batch.schema.names}
        for k in range(batch.num_rows):
            row = {name: column[k] for name, column in given.items()}
            key = (row["source_dataset"].as_py(), row["worm"].as_py())
            if rows and key != rows[0]["key"]:
                done.add(rows[0]["key"])
                yield _worm(place, rows)
                rows = []
            if key in done:
                raise DataError(
                    f"{place}: rows of {key[1]} of {key[0]} stand in two places; sort the table by source and worm."
                )
            rows.append({**row, "key": key})
    if rows:
        yield _worm(place, rows)


def load_parquet(path: str | Path) -> list[Recording]:
    """All worms of an authors' table."""
    return list(iter_parquet(path))


def _worm(path: Path, rows: list[dict[str, Any]]) -> Recording:
    """A worm of its rows, with the slots by name: the table's own slots of unlabelled cells mean nothing."""
    first = rows[0]
    source, worm = first["key"]
    time = _series(path, first["time_in_seconds"], f"{worm} of {source}")
    time = _evened(time)
    size = (len(time), len(slots()))
    if len(time) < 2 or (np.diff(time) <= 0).any():
        raise DataError(f"{path}: the times of {worm} of {source} do not rise.")
    arrays = {name: np.zeros(size) for name in ("calcium_data", *(each for each in SERIES if each in first))}
    mask, others, other_names = np.zeros(size[1], bool), [], []
    for row in rows:
        name = str(row["neuron"].as_py())
        where = f"{name} of {worm} of {source}"
        values = {kind: _series(path, row[kind], where) for kind in arrays}
        if any(len(each) not in (0, len(time)) for each in values.values()):
            raise DataError(f"{path}: {where} has {len(values['calcium_data'])} samples for {len(time)} times.")
        plain = canonicalise(name) if row["is_labeled_neuron"].as_py() else None
        if plain is None:
            others.append(values["calcium_data"])
            other_names.append(name)
            continue
        slot = slots()[plain]
        if mask[slot]:
            raise DataError(f"{path}: {worm} of {source} has {plain} twice, once as {name}.")
        mask[slot] = True
        for kind, each in values.items():
            if len(each):
                arrays[kind][:, slot] = each
    calcium = arrays["calcium_data"]
    residual = arrays["residual_calcium"] if "residual_calcium" in arrays else gradient(calcium.T, time).T
    dt = float(np.median(np.diff(time)))
    original = first["original_median_dt"].as_py() if "original_median_dt" in first else None
    how = first["normalization_method"].as_py() if "normalization_method" in first else "standard"
    return Recording(
        calcium, residual, arrays.get("smooth_calcium_data", calcium), arrays.get("smooth_residual_calcium", residual), mask,
        time, dt, float("nan") if original is None else float(original), how == "causal",
        str(first["smooth_method"].as_py()) if "smooth_method" in first else "none",
        np.stack(others, 1) if others else np.zeros((len(time), 0)), tuple(other_names), str(source), str(worm),
        str(first["raw_data_file"].as_py()) if "raw_data_file" in first else "",
    )  # fmt: skip


def _evened(time: np.ndarray) -> np.ndarray:
    """Times that have been through half precision, as the authors' code stores them, on an even grid again: half precision
    tells 512.25 s no more from 512 s, so that steps of 0.333 s come out as 0 or 0.5 s."""
    with np.errstate(over="ignore"):
        halved = len(time) > 2 and np.array_equal(time, time.astype(np.float16).astype(float))
    if not halved or (np.diff(time) < 0).any() or np.ptp(np.diff(time)) < 1e-9:
        return time
    return np.linspace(time[0], time[-1], len(time))


def _series(path: Path, cell: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(cell.values.to_numpy(zero_copy_only=False), float)
    except AttributeError:
        raise DataError(f"{path}: {where} has no list of numbers in a column of traces or times.") from None


def write_folder(path: str | Path, recordings: Iterable[Recording]) -> int:
    """Writes one .npz a worm and `dataset.json`, which lists them; the number of worms."""
    folder = Path(path)
    entries = []
    for k, each in enumerate(recordings):
        name = f"worm{k:04d}.npz"
        with writing(folder / name) as stream:
            np.savez_compressed(
                stream, calcium=each.calcium.astype(np.float32), residual=each.residual.astype(np.float32),
                smooth_calcium=each.smooth_calcium.astype(np.float32), smooth_residual=each.smooth_residual.astype(np.float32),
                mask=each.mask, time=each.time, others=each.others.astype(np.float32),
                other_names=np.array(each.other_names, str),
            )  # fmt: skip
        entries.append({"file": name, "source": each.source, "worm": each.worm, "raw": each.file, "dt": each.dt,
                        "original_dt": each.original_dt, "causal": each.causal, "smooth": each.smooth})  # fmt: skip
    if not entries:
        raise InputError("No worm was given; a data set needs one or more.")
    write_atomic(folder / "dataset.json", json.dumps({"neurons": canonical_names(), "worms": entries}, indent=1) + "\n")
    return len(entries)


def read_folder(path: str | Path) -> list[Recording]:
    """The worms of a folder that `write_folder` made."""
    folder = existing(path)
    listed = read_json(folder / "dataset.json")
    if list(listed.get("neurons", ())) != list(canonical_names()):
        raise DataError(f"{folder}: dataset.json lists other neurons than the 300 in their order.")
    made = []
    for entry in listed["worms"]:
        a = load_arrays(folder / Path(entry["file"]).name)
        made.append(Recording(
            a["calcium"].astype(float), a["residual"].astype(float), a["smooth_calcium"].astype(float),
            a["smooth_residual"].astype(float), a["mask"], a["time"], entry["dt"], entry["original_dt"], entry["causal"],
            entry["smooth"], a["others"].astype(float), tuple(map(str, a["other_names"])), entry["source"], entry["worm"],
            entry["raw"],
        ))  # fmt: skip
    return made


class Summary:
    """What a data set holds, gathered worm by worm.

    - `coverage`: neurons identified, (300,) counts of worms; `sources`: source -> [worms, identified traces].
    - `durations`, `steps`, `original_steps`: s, one a worm; `largest_mean`: of an identified trace, in deviations.
    """

    def __init__(self) -> None:
        self.coverage = np.zeros(len(slots()), int)
        self.masks: list[np.ndarray] = []
        self.sources: dict[str, list[int]] = {}
        self.durations: list[float] = []
        self.steps: list[float] = []
        self.original_steps: list[float] = []
        self.unlabelled = 0
        self.largest_mean = 0.0
        self.causal: set[bool] = set()

    def add(self, recording: Recording) -> Recording:
        """Counts a worm, and returns it."""
        self.coverage += recording.mask
        self.masks.append(recording.mask)
        entry = self.sources.setdefault(recording.source, [0, 0])
        entry[0] += 1
        entry[1] += int(recording.mask.sum())
        self.durations.append(float(recording.time[-1] - recording.time[0]))
        self.steps.append(float(np.median(np.diff(recording.time))))
        self.original_steps.append(recording.original_dt)
        self.unlabelled += len(recording.other_names)
        means = np.abs(recording.calcium[:, recording.mask].mean(0))
        self.largest_mean = max(self.largest_mean, float(means.max(initial=0.0)))
        self.causal.add(recording.causal)
        return recording

    def as_json(self) -> dict[str, Any]:
        """Counts as JSON values."""
        return {
            "worms": len(self.durations),
            "neurons": int((self.coverage > 0).sum()),
            "labelled_traces": int(self.coverage.sum()),
            "unlabelled_traces": self.unlabelled,
            "sources": {name: {"worms": worms, "labelled": cells} for name, (worms, cells) in self.sources.items()},
            "seconds": float(np.sum(self.durations)),
            "dt": float(np.median(self.steps)) if self.steps else None,
            "largest_mean": self.largest_mean,
            "preprocessing": ["causal" if each else "acausal" for each in sorted(self.causal)],
        }
