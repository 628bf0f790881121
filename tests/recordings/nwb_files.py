"""NWB files in the shapes of public dandisets, written by pynwb from made-up data; each function returns what it put in."""

import datetime
import tempfile
import warnings

import numpy as np
import pynwb
from pynwb import TimeSeries
from pynwb.behavior import BehavioralTimeSeries, Position, SpatialSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.image import ImageSeries
from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

START = datetime.datetime(2024, 3, 1, 12, tzinfo=datetime.UTC)


def new_file(session="test", **subject):
    """An empty file with an animal."""
    nwb = pynwb.NWBFile(f"a session of {session}", session, START, lab="a lab", institution="an institution")
    nwb.subject = Subject(**{"subject_id": "m1", "species": "Mus musculus", "sex": "F", "age": "P90D", **subject})
    return nwb


def write(nwb, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(nwb)
    return path


def poisson(rng, rate, dt):
    """Spike times of a rate (bins,) in 1/s, none twice."""
    counts = rng.poisson(rate * dt)
    times = np.repeat(np.arange(len(rate)) * dt, counts) + rng.uniform(0, dt, counts.sum())
    return np.unique(times)


def add_probe(nwb, channels=4):
    device = nwb.create_device("Neuropixels")
    nwb.add_electrode_column("depth", "um")
    for k in range(channels):
        name = f"shank{k % 2}"
        group = nwb.electrode_groups.get(name) or nwb.create_electrode_group(name, "a shank", "MOs", device)
        nwb.add_electrode(location="MOs" if k % 2 else "VISp", group=group, depth=float(20 * k))
    return nwb.electrodes


def write_probe(path, units=24, seconds=120.0, seed=0, trials=True):
    """(a) Extracellular units, trials of choices, running, pupil and wheel position: as Steinmetz's and the IBL's.

    Half of the units follow the running speed. Returns a dict with `times`, `speed`, `speed_times`, `choice`.
    """
    rng = np.random.default_rng(seed)
    nwb = new_file("a probe")
    add_probe(nwb)
    grid = np.arange(0, seconds, 0.01)
    speed = 20 * np.clip(np.sin(2 * np.pi * grid / 11) + 0.3 * np.sin(2 * np.pi * grid / 3.1), 0, None)
    nwb.add_unit_column("quality", "good or mua")
    nwb.add_unit_column("peak_channel", "the channel of the largest waveform")
    times = []
    for k in range(units):
        rate = rng.uniform(2, 8) + (0.6 * speed if k % 2 else 0.0)
        times.append(poisson(rng, np.broadcast_to(rate, grid.shape), 0.01))
        nwb.add_unit(spike_times=times[-1], obs_intervals=[[0.0, seconds]], electrodes=[k % 4], quality="good" if k % 3 else "mua",
                     peak_channel=k % 4, waveform_mean=rng.normal(size=(20,)))  # fmt: skip
    running = TimeSeries(name="running_speed", data=(speed * 100).astype(np.int16), unit="cm/s", rate=100.0, starting_time=0.0,
                         conversion=0.01)  # fmt: skip
    pupil_times = np.arange(0.3, seconds - 0.3, 1 / 30) + rng.uniform(-0.001, 0.001, len(np.arange(0.3, seconds - 0.3, 1 / 30)))
    pupil = 5 + np.sin(pupil_times / 7)
    pupil[100:110] = np.nan
    behavior = nwb.create_processing_module("behavior", "behaviour")
    behavior.add(
        BehavioralTimeSeries(
            time_series=[running, TimeSeries(name="pupil_area", data=pupil, unit="px^2", timestamps=pupil_times)]
        )
    )
    wheel = SpatialSeries(name="wheel_position", data=np.cumsum(speed) * 0.01, unit="cm", rate=100.0, reference_frame="start")
    behavior.add(Position(name="Position", spatial_series=wheel))
    nwb.add_stimulus(ImageSeries(name="gratings", data=np.zeros((5, 4, 4), np.uint8), unit="n.a.", rate=1.0))
    starts = np.arange(2.0, seconds - 3.0, 4.0)
    choice = rng.choice(["left", "right", "none"], len(starts))
    if trials:
        for name in ("choice", "contrast_left", "feedback_type"):
            nwb.add_trial_column(name, name)
        nwb.add_trial_column("lick_times", "licks", index=True)
        for k, start in enumerate(starts):
            nwb.add_trial(start_time=start, stop_time=start + 2.5, choice=str(choice[k]), contrast_left=float(rng.choice([0, 0.25, 1])),
                          feedback_type=int(rng.choice([-1, 1])), lick_times=list(start + np.sort(rng.uniform(0, 2, k % 4))))  # fmt: skip
    write(nwb, path)
    return {
        "times": times,
        "speed": (speed * 100).astype(int) / 100,
        "speed_times": grid,
        "choice": choice,
        "starts": starts,
    }


def add_plane(nwb, name="imaging_plane", indicator="GCaMP6f"):
    device = nwb.create_device(f"microscope of {name}")
    channel = OpticalChannel(name="green", description="green", emission_lambda=510.0)
    return nwb.create_imaging_plane(
        name=name, optical_channel=channel, description="a plane", device=device, excitation_lambda=910.0, indicator=indicator,
        location="VISp",
    )  # fmt: skip


def write_two_photon(path, cells=30, seconds=120.0, rate=30.0, seed=0):
    """(b) Two-photon dF/F and neuropil, running and stimuli: as the Allen Institute's visual behaviour.

    Every third cell follows the running speed. Returns a dict with `dff`, `speed`, `ids`.
    """
    rng = np.random.default_rng(seed)
    nwb = new_file("two photons")
    plane = add_plane(nwb)
    segmentation = ImageSegmentation()
    table = segmentation.create_plane_segmentation("cells", plane, "cell_specimen_table")
    table.add_column("valid_roi", "whether it is a cell")
    ids = 1000 + np.arange(cells)
    for k in range(cells):
        table.add_roi(pixel_mask=[(k, 1, 1.0), (k, 2, 1.0)], id=int(ids[k]), valid_roi=bool(k % 7))
    ophys = nwb.create_processing_module("ophys", "two photons")
    ophys.add(segmentation)
    samples = int(seconds * rate)
    clock = 5.0 + np.arange(samples) / rate
    speed = 15 * np.clip(np.sin(2 * np.pi * clock / 13), 0, None)
    noise = rng.normal(size=(samples, cells))
    dff = np.zeros((samples, cells))
    for t in range(1, samples):
        dff[t] = 0.95 * dff[t - 1] + 0.1 * noise[t]
    dff[:, ::3] += 0.05 * speed[:, None]
    region = table.create_roi_table_region("all", region=list(range(cells)))
    ophys.add(DfOverF(name="dff", roi_response_series=RoiResponseSeries(name="traces", data=dff.astype(np.float32), unit="n.a.",
                      rois=region, timestamps=clock)))  # fmt: skip
    part = table.create_roi_table_region("half", region=list(range(0, cells, 2)))
    ophys.add(Fluorescence(name="neuropil", roi_response_series=RoiResponseSeries(name="neuropil_traces", data=dff[:, ::2] + 100,
                           unit="n.a.", rois=part, rate=rate, starting_time=5.0)))  # fmt: skip
    running = nwb.create_processing_module("running", "running")
    encoder = np.arange(0, seconds + 10, 1 / 60)
    running.add(
        TimeSeries(name="speed", data=15 * np.clip(np.sin(2 * np.pi * encoder / 13), 0, None), unit="cm/s", timestamps=encoder)
    )
    shown = TimeIntervals(name="natural_images_presentations", description="images")
    shown.add_column("image_name", "the image")
    for k, start in enumerate(np.arange(6.0, seconds, 0.75)):
        shown.add_interval(start_time=start, stop_time=start + 0.25, image_name=f"im{k % 8:03d}")
    nwb.add_time_intervals(shown)
    nwb.add_acquisition(
        ImageSeries(
            name="movie", external_file=["movie.avi"], starting_frame=[0], format="external", timestamps=clock, unit="n.a."
        )
    )
    write(nwb, path)
    return {"dff": dff.astype(np.float32), "times": clock, "speed": speed, "ids": ids}


NEURONS = (
    "AVAL",
    "AVAR",
    "AVBL",
    "AVBR",
    "RIML",
    "RIMR",
    "AIBL",
    "AIBR",
    "RIVL",
    "RIVR",
    "RMEL",
    "RMER",
    "SMDVL",
    "SMDVR",
    "ASEL",
    "ASER",
)


def write_worm(path, labels=(*NEURONS, "", "", "AVAL"), seconds=240.0, rate=4.0, seed=0, form="column"):
    """(c) Whole-brain calcium of a worm with NeuroPAL labels, at 4 Hz for 240 s: as WormID's.

    `form`: where the labels are: "column" `ID_labels` of the segmentation, "letters" the same as lists of letters, "beside" an
    object `NeuronIDs` with `labels` of an extension, "turned" as "beside" with the data as (cells, samples).
    Returns a dict with `raw` (samples, cells), `labels`, `times`.
    """
    rng = np.random.default_rng(seed)
    nwb = new_file("a worm", species="Caenorhabditis elegans", sex="O", age="P3D", subject_id="worm1")
    plane = add_plane(nwb, "CalciumImVol")
    segmentation = ImageSegmentation(name="CalciumSeriesSegmentation")
    table = segmentation.create_plane_segmentation("neurons", plane, "Aligned_neuron_coordinates")
    if form == "column":
        table.add_column("ID_labels", "names")
    elif form == "letters":
        table.add_column("ID_labels", "names", index=True)
    for k, label in enumerate(labels):
        more = {"column": {"ID_labels": label}, "letters": {"ID_labels": list(label)}}.get(form, {})
        table.add_roi(voxel_mask=[(k, 1, 2, 1.0)], **more)
    module = nwb.create_processing_module("CalciumActivity", "activity")
    module.add(segmentation)
    samples = int(seconds * rate)
    drive = np.cumsum(rng.normal(size=samples)) / 10
    raw = 100 + 10 * rng.normal(size=(samples, len(labels))) + 20 * np.outer(drive, rng.normal(size=len(labels)))
    region = table.create_roi_table_region("all", region=list(range(len(labels))))
    clock = {"timestamps": np.arange(samples) / rate} if form == "beside" else {"rate": rate, "starting_time": 0.0}
    data = raw.T if form == "turned" else raw
    series = RoiResponseSeries(name="SignalCalciumImResponseSeries", data=data, unit="lumens", rois=region, **clock)
    module.add(Fluorescence(name="SignalRawFluor", roi_response_series=series))
    if form in ("beside", "turned"):
        module.add(_labels()(name="NeuronIDs", labels=list(labels)))
    behavior = nwb.create_processing_module("Behavior", "behaviour")
    behavior.add(
        BehavioralTimeSeries(name="velocity", time_series=TimeSeries(name="velocity", data=drive, unit="mm/s", rate=rate))
    )
    write(nwb, path)
    return {"raw": raw, "labels": list(labels), "times": np.arange(samples) / rate}


def _labels():
    """The type of WormID's `NeuronIDs`, made anew: an object with a list of labels."""
    from pynwb.spec import NWBDatasetSpec, NWBGroupSpec, NWBNamespaceBuilder

    known = "SegmentationLabels", "ndx-multichannel-volume"
    if known[1] not in pynwb.get_manager().namespace_catalog.namespaces:
        builder = NWBNamespaceBuilder(
            "volumes with several channels", known[1], version="0.1.9", author="an author", contact="a@b.c"
        )
        builder.include_type("NWBDataInterface", namespace="core")
        labels = NWBDatasetSpec("labels", "text", name="labels", shape=(None,))
        kind = NWBGroupSpec(
            "labels of neurons", neurodata_type_def=known[0], neurodata_type_inc="NWBDataInterface", datasets=[labels]
        )
        builder.add_spec("volumes.extensions.yaml", kind)
        with tempfile.TemporaryDirectory() as folder:
            builder.export("volumes.namespace.yaml", outdir=folder)
            pynwb.load_namespaces(f"{folder}/volumes.namespace.yaml")
    return pynwb.get_class(*known)


def write_prefrontal(path, units=18, trials=60, seed=0):
    """(d) 18 prefrontal units of a rat that are recorded in trials: `obs_intervals` are the trials, as in older files.

    Returns a dict with `times`, `starts`, `state` (of each trial).
    """
    rng = np.random.default_rng(seed)
    nwb = new_file("prefrontal", species="Rattus norvegicus", subject_id="r1")
    starts = 10.0 + 6.0 * np.arange(trials)
    stops = starts + 4.0
    state = np.repeat(rng.integers(0, 2, (trials + 4) // 5), 5)[:trials]
    intervals = np.column_stack([starts, stops])
    nwb.add_unit_column("cell_type", "putative")
    times = []
    gains = rng.uniform(2, 20, (2, units))
    for k in range(units):
        own = [start + poisson(rng, np.full(400, gains[state[i], k]), 0.01) for i, start in enumerate(starts)]
        times.append(np.unique(np.concatenate(own)))
        nwb.add_unit(spike_times=times[-1], obs_intervals=intervals, cell_type="narrow" if k % 4 == 0 else "broad")
    nwb.add_trial_column("rule", "the rule of the block")
    nwb.add_trial_column("correct", "whether the choice was right")
    for k in range(trials):
        nwb.add_trial(
            start_time=starts[k], stop_time=stops[k], rule=("place", "cue")[state[k]], correct=bool(rng.random() < 0.7)
        )
    write(nwb, path)
    return {"times": times, "starts": starts, "state": state}
