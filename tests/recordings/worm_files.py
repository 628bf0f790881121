"""Recordings of worms as laboratories write them: files of the shapes that the reader knows, with the traces that are in them."""

import csv
import json

import numpy as np

NAMES = ["AVAL", "VB02", "ric_l", None, "AVAR?", "AIBL"]
KNOWN = {"AVAL": 0, "VB2": 1, "RICL": 2, "AIBL": 5}


def traces(rng, samples=40):
    return 1 + 0.1 * rng.standard_normal((samples, len(NAMES))).cumsum(0)


def times(samples=40, dt=0.4):
    return 3.0 + dt * np.arange(samples)


def write_matlab_5(path, fields, name=None):
    """`fields` as variables, or as one struct; lists become cells."""
    from scipy.io import savemat

    made = {key: _cells(value) for key, value in fields.items()}
    savemat(path, {name: made} if name else made)
    return path


def _cells(value):
    if isinstance(value, list):
        out = np.empty((1, len(value)), object)
        for k, each in enumerate(value):
            out[0, k] = np.zeros((0, 0)) if each is None else _cells(each)
        return out
    return value


def write_matlab_73(path, fields, name):
    """One struct in MATLAB's HDF5: axes turned, cells as references, text as codes of its letters."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        count = 0

        def store(value):
            nonlocal count
            count += 1
            where = f"#refs#/{count}"
            put(where, value)
            return file[where].ref

        def put(where, value):
            if isinstance(value, list):
                refs = np.array([store(each) for each in value], object)[:, None]
                file.create_dataset(where, data=refs, dtype=h5py.ref_dtype).attrs["MATLAB_class"] = np.bytes_("cell")
            elif isinstance(value, str):
                data = file.create_dataset(where, data=np.array([[ord(char)] for char in value], np.uint16))
                data.attrs["MATLAB_class"] = np.bytes_("char")
            elif value is None:
                data = file.create_dataset(where, data=np.array([0, 0], np.uint64))
                data.attrs["MATLAB_class"], data.attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)
            else:
                file.create_dataset(where, data=np.atleast_2d(value).T).attrs["MATLAB_class"] = np.bytes_("double")

        for key, value in fields.items():
            put(f"{name}/{key}", value)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def write_lin(path, values, clock):
    """All cells of a worm in rows, those to be left out marked; the baseline's sample stands apart."""
    from scipy.io import savemat

    rows = np.vstack([values.T, np.full((1, len(values)), 9.0)])
    names = np.empty((len(rows), 1), object)
    names[:, 0] = [*(name or "" for name in NAMES), "AVBL"]
    first = rows[:, :1].copy()
    rows = rows.copy()
    rows[:, 0] = 0.0
    savemat(path, {"proofread_neurons": names, "use_flag": np.array([[1]] * len(values.T) + [[0]]), "corrected_F": rows,
                   "F_0": first, "times": {"times": clock[None]}})  # fmt: skip
    return path


def write_yemini(path, pair, single, animals=2, rate=4.0):
    """A class with two sides, (2 * animals) traces, left ones first, and a cell without a partner."""
    from scipy.io import savemat

    def cells(parts):
        out = np.empty((len(parts), 1), object)
        for k, each in enumerate(parts):
            out[k, 0] = each
        return out

    names, sides, values = (np.empty((2, 1), object) for _ in range(3))
    names[:, 0] = ["AVA", "RIS"]
    sides[0, 0], sides[1, 0] = np.array([[1.0]] * animals + [[0.0]] * animals), np.full((animals, 1), np.nan)
    values[0, 0], values[1, 0] = cells([each[None] for each in pair]), cells([each[None] for each in single])
    files = cells([f"worm{k}" for k in range(animals)])
    savemat(path, {"neurons": names, "is_L": sides, "norm_traces": values, "files": files, "fps": np.array([[rate]])})
    return path


def write_flavell(path, values, clock):
    """Cells in rows; labels by the cell's number from 1 on."""
    labels = {str(k + 1): {"label": name} for k, name in enumerate(NAMES) if name}
    path.write_text(json.dumps({"trace_array": values.T.tolist(), "timestamp_confocal": clock.tolist(), "labeled": labels}))
    return path


def write_dag(folder, values, clock):
    import h5py

    path = folder / "2022-01-01-01-data.h5"
    with h5py.File(path, "w") as file:
        file["gcamp/traces_array_F_F20"] = values
        file["timing/timestamp_confocal"] = np.concatenate([clock, clock[-1] + [1.0, 2.0]])
    labels = {str(k + 1): {"label": name} for k, name in enumerate(NAMES) if name}
    (folder / "NeuroPAL_labels_dict.json").write_text(json.dumps({"2022-01-01-01": [labels, None]}))
    return path


def write_leifer(folder, values, clock, stem="0"):
    path = folder / f"{stem}_gcamp.txt"
    path.write_text("\n".join(" ".join(f"{each:.12e}" for each in row) for row in values) + "\n")
    (folder / f"{stem}_labels.txt").write_text("\n".join(name or "" for name in NAMES) + "\n")
    (folder / f"{stem}_t.txt").write_text("\n".join(f"{each:.12e}" for each in clock) + "\n")
    return path


def write_venkatachalam(path, values):
    header = ["neuron", *(f"feature{k}" for k in range(106)), *map(str, range(len(values))), "end"]
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(header)
        for name, row in zip(NAMES, values.T, strict=True):
            rows.writerow([name or "", *[0] * 106, *row.tolist(), 0])
    return path


def write_table(path, values, clock):
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["time (s)", *(name or f"cell {k}" for k, name in enumerate(NAMES))])
        rows.writerows(np.column_stack([clock, values]).tolist())
    return path


def write_nwb_worm(path, values, clock):
    """Fluorescence of cells with a column of names, as WormID's files have it."""
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

    file = NWBFile(session_description="a worm", identifier="worm", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    device = file.create_device("microscope")
    channel = OpticalChannel(name="green", description="GCaMP", emission_lambda=510.0)
    plane = file.create_imaging_plane(name="head", optical_channel=channel, description="head", device=device,
                                      excitation_lambda=488.0, indicator="GCaMP6s", location="head")  # fmt: skip
    module = file.create_processing_module("CalciumActivity", "traces")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    cells = segmentation.create_plane_segmentation(name="cells", description="cells", imaging_plane=plane)
    cells.add_column("ID_labels", "names")
    for k, name in enumerate(NAMES):
        cells.add_roi(voxel_mask=[(k, 0, 0, 1.0)], ID_labels=name or "")
    region = cells.create_roi_table_region("all", region=list(range(len(NAMES))))
    series = RoiResponseSeries(name="SignalCalcium", data=values, rois=region, unit="n.a.", timestamps=clock)
    module.add(Fluorescence(roi_response_series=series, name="SignalRawFluor"))
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path
