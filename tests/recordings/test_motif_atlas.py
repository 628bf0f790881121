"""The atlas of motifs: from arrays and named traces, on files, and what it refuses."""

import csv
import json
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks

from broadsheet.errors import InputError
from broadsheet.recordings import NTF, DynamicConnectome, Session, Traces, WeightedSBM, write_nwb
from broadsheet.recordings.affinity import differential_affinity
from broadsheet.recordings.planted_motifs import motif_recordings, stimulated_worms
from commands import call, read

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NAMES = tuple(f"N{chr(65 + k)}L" for k in range(24))
SETTINGS = {"dt": 0.25, "n_starts": 2, "communities": WeightedSBM(n_starts=1, max_groups=6, degree_corrected=False)}


@pytest.fixture(scope="module")
def planted():
    return motif_recordings(np.random.default_rng(0), missing=0.2)


@pytest.fixture(scope="module")
def atlas(planted):
    return DynamicConnectome(3, **SETTINGS).fit(planted.traces.transpose(0, 2, 1), names=NAMES)


def named(planted, animal, shift=0.0):
    kept = np.flatnonzero(np.isfinite(planted.traces[animal, :, 0]))
    values = planted.traces[animal, kept].T
    return Traces(values, shift + 0.25 * np.arange(240), tuple(NAMES[k] for k in kept), "ratio", "RoiResponseSeries")


def test_motifs_come_back(atlas, planted):
    found = {k: [set(np.flatnonzero(atlas.labels_[k] == 0)), set(np.flatnonzero(atlas.animals_[:, k] > 0.2))] for k in range(3)}
    truth = [(set(range(8)), {0, 1, 2, 3}), (set(range(6, 16)), {1, 2, 3, 4, 5}), (set(range(16, 24)), {0, 2, 4, 5})]
    for members, animals in truth:
        assert any(len(members & got[0]) / len(members | got[0]) > 0.7 and animals == got[1] for got in found.values())
    assert (atlas.patterns_ == atlas.patterns_.swapaxes(1, 2)).all()
    assert atlas.times_[[0, -1]] == pytest.approx([0, 59.75])


def test_it_is_its_parts(atlas, planted):
    affinity = differential_affinity(planted.traces, 0.25)
    factors = NTF(3, n_starts=2).fit(affinity.values, mask=affinity.mask)
    np.testing.assert_allclose(atlas.pairs_, factors.pair_, atol=1e-5)
    assert atlas.error_ == pytest.approx(factors.error_)
    assert atlas.score(planted.traces.transpose(0, 2, 1)) == pytest.approx(1 - atlas.error_**2, abs=1e-3)


def test_traces_are_matched_by_name(atlas, planted):
    again = clone(atlas).set_params(dt=None).fit([named(planted, animal) for animal in range(6)])
    assert again.names_ == NAMES
    assert again.error_ == pytest.approx(atlas.error_, abs=1e-4)
    np.testing.assert_array_equal(again.seen_, atlas.seen_)
    late = clone(atlas).fit_factors([named(planted, animal, 0.25 * (animal == 0)) for animal in range(6)])
    assert late.times_[0] == 0.25  # all are seen from there on
    curves = again.transform([named(planted, animal) for animal in range(6)])
    np.testing.assert_allclose(curves, again.time_, atol=0.03 * again.time_.max())


def test_unequal_lengths_and_bounded_memory(planted):
    given = [planted.traces[w].T[: 240 - 40 * w] for w in range(3)]
    fit = DynamicConnectome(2, **{**SETTINGS, "memory": 240 * 4 * 3 * 276 / 4}).fit_factors(given)
    assert fit.every_ == 4
    assert fit.time_.shape == (60, 2)
    kept = clone(fit).set_factors(fit.factor_arrays())
    np.testing.assert_array_equal(kept.time_, fit.time_)
    assert kept.names_ == fit.names_
    with pytest.raises(InputError, match="give memory for two frames"):
        DynamicConnectome(2, **{**SETTINGS, "memory": 100.0}).fit(given)


def test_scan(planted):
    scan = DynamicConnectome(**SETTINGS).scan(planted.traces.transpose(0, 2, 1), (2, 3))
    assert scan[1].error < scan[0].error


def test_estimators_keep_the_rules(atlas, planted):
    for made in (NTF(), WeightedSBM(), DynamicConnectome()):
        name = type(made).__name__
        for check in ("no_attributes_set_in_init", "get_params_invariance", "set_params", "parameters_default_constructible"):
            function = getattr(estimator_checks, f"check_{check}")
            function(name, made)
    again = pickle.loads(pickle.dumps(atlas))
    np.testing.assert_array_equal(again.labels_, atlas.labels_)


def test_designed_worms():
    made = stimulated_worms(np.random.default_rng(0), 5, frames=400, onsets=(20.0, 45.0, 75.0), responds=1.0)
    assert made.windows.tolist() == [[80, 120], [180, 220], [300, 340]]
    assert (np.isnan(made.traces).all(axis=2).sum(axis=1) == 10).all()
    for k, (start, stop) in enumerate(made.windows):
        mean = np.nanmean(made.traces[:, made.groups == k], axis=(0, 1))
        assert mean[start + 12 : stop].mean() > mean[: start - 1].mean() + 1
    assert sorted(set(made.groups)) == [-2, -1, 0, 1, 2]


def test_refused(atlas, planted):
    given = planted.traces.transpose(0, 2, 1)
    broken = given.copy()
    broken[0, 3, np.flatnonzero(np.isfinite(given[0, 0]))[0]] = np.nan
    fit = DynamicConnectome(2, **SETTINGS)
    for wrong, words in (
        (lambda: fit.fit(given, names=NAMES[:5]), "24 neurons have 5 different names"),
        (lambda: fit.fit(given[:, :, :1]), "no pair"),
        (lambda: fit.fit(broken), "whole trace"),
        (lambda: fit.fit([named(planted, 0), named(planted, 1, 1000.0)]), "3 or more are wanted"),
        (lambda: atlas.transform(given[:2]), "2 animals are not the 6"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()


@pytest.fixture(scope="module")
def files(tmp_path_factory, planted):
    folder = tmp_path_factory.mktemp("worms")
    for animal in range(3):
        traces = named(planted, animal)
        traces = traces.choose([name for name in traces.names if name in NAMES[:20]])
        if animal < 2:
            write_nwb(Session(f"worm{animal}", traces={"calcium": traces}), folder / f"worm{animal}.nwb")
        else:
            write_table(folder / "worm2.csv", traces)
    return folder


def write_table(path, traces):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["time", *traces.names], *np.column_stack([traces.times, traces.values]).tolist()])


def test_files(files, tmp_path):
    words = ("recordings", "connectome", *sorted(files.iterdir()), "--rank", 3, "--starts", 2, "--scan", 2)
    found = read(*words, "--out", tmp_path / "c.json", "--csv", tmp_path / "c.csv", BROADSHEET_HOME=str(tmp_path))
    assert json.loads((tmp_path / "c.json").read_text()) == found
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    assert len(found["components"]) == 3
    assert len(found["time"][0]) == found["frames"] == 240
    assert [each["components"] for each in found["scan"]] == [1, 2]
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert len(rows) == 3 * len(found["neurons"])
    said = call(*words, BROADSHEET_HOME=str(tmp_path)).stdout
    assert f"3 animals, {len(found['neurons'])} neurons" in said


def test_files_refused(files, planted, tmp_path):
    one = files / "worm0.nwb"
    gap, odd, mute = tmp_path / "gap.csv", tmp_path / "odd.csv", tmp_path / "mute.csv"
    traces = named(planted, 0)
    values = traces.values.copy()
    values[7, 1] = np.nan
    write_table(gap, Traces(values, traces.times, traces.names))
    write_table(odd, Traces(traces.values, traces.times, (traces.names[0].lower(), *traces.names[1:])))
    write_table(mute, Traces(traces.values, traces.times, tuple(map(str, range(len(traces.names))))))
    for others, words in (
        ((), "1 recordings were given; 2 animals or more"), ((gap,), f"the trace of {traces.names[1]} is NaN at 1.75 s"),
        ((odd,), "one spelling is wanted"), ((mute,), "0 neurons with a name"), ((tmp_path / "none.csv",), "There is no file"),
    ):  # fmt: skip
        told = call("recordings", "connectome", one, *others, code=2).stderr
        assert words in " ".join(told.split())
        assert "Traceback" not in told
