"""Files of laboratories: each shape gives the traces, times and names that were written, or one sentence."""

import json

import numpy as np
import pytest
import worm_files as files

from broadsheet.errors import DataError, InputError
from broadsheet.recordings.worm import canonicalise, fill_gaps, read_recordings
from broadsheet.recordings.worm.pipeline import Raw

RNG = np.random.default_rng(0)
X, T = files.traces(RNG), files.times()


def check(raw, values=X, clock=T):
    np.testing.assert_allclose(raw.times, clock, rtol=1e-9)
    found = {canonicalise(name): k for k, name in enumerate(raw.names) if canonicalise(name)}
    assert found.keys() == files.KNOWN.keys()
    for name, column in files.KNOWN.items():
        np.testing.assert_allclose(raw.traces[:, found[name]], values[:, column], rtol=1e-9)


NAMES = [name or None for name in files.NAMES]
CANDIDATES = [[None, name] for name in NAMES]  # of a cell several names, the first one that is there counts


@pytest.mark.parametrize(
    "fields",
    [
        {"IDs": CANDIDATES, "traces": X, "timeVectorSeconds": T[:, None]},  # Kato, Nichols, Skora
        {"NeuronNames": NAMES, "deltaFOverF_bc": X, "tv": T[:, None]},  # Kato
        {"neuron_ID": NAMES, "traces_bleach_corrected": X, "time_vector": T[:, None]},  # Kaplan
        {"IDs": NAMES, "traces": X, "tv": T[:, None]},  # Uzel
    ],
)
def test_one_worm_of_a_struct_in_both_versions_of_matlab(tmp_path, fields):
    check(read_recordings(files.write_matlab_5(tmp_path / "five.mat", fields, "WT"))[0])
    check(read_recordings(files.write_matlab_73(tmp_path / "seven.mat", fields, "WT"))[0])
    check(read_recordings(files.write_matlab_5(tmp_path / "plain.mat", fields))[0])


def test_cells_of_worms(tmp_path):
    other = files.traces(RNG, 30)
    fields = {"IDs": [NAMES, NAMES], "traces": [X, other], "timeVectorSeconds": [T[:, None], T[:30, None]]}
    for path in (
        files.write_matlab_5(tmp_path / "a.mat", fields, "n2"),
        files.write_matlab_73(tmp_path / "b.mat", fields, "n2"),
    ):
        first, second = read_recordings(path)
        check(first)
        check(second, other, T[:30])
        assert first.worm != second.worm


def test_lin(tmp_path):
    check(read_recordings(files.write_lin(tmp_path / "lin.mat", X, T))[0])


def test_yemini(tmp_path):
    pair, single = RNG.standard_normal((4, 20)), RNG.standard_normal((2, 20))
    first, second = read_recordings(files.write_yemini(tmp_path / "head.mat", pair, single))
    assert first.names == second.names == ("AVAL", "AVAR", "RIS")
    np.testing.assert_allclose(first.traces, np.stack([pair[0], pair[2], single[0]], 1))
    np.testing.assert_allclose(second.traces, np.stack([pair[1], pair[3], single[1]], 1))
    np.testing.assert_allclose(first.times, np.arange(20) / 4)


def test_tables_and_archives(tmp_path):
    check(read_recordings(files.write_flavell(tmp_path / "2022.json", X, T))[0])
    check(read_recordings(files.write_dag(tmp_path, X, T))[0])
    check(read_recordings(files.write_leifer(tmp_path, X, T))[0])
    check(read_recordings(files.write_venkatachalam(tmp_path / "v.csv", X))[0], clock=0.375 * np.arange(len(X)))
    check(read_recordings(files.write_table(tmp_path / "t.csv", X, T))[0])
    np.savez(tmp_path / "a.npz", traces=X, times=T, names=np.array([name or "" for name in files.NAMES]))
    check(read_recordings(tmp_path / "a.npz")[0])
    (tmp_path / "b.json").write_text(json.dumps({"traces": X.T.tolist(), "names": files.NAMES, "times": T.tolist()}))
    check(read_recordings(tmp_path / "b.json")[0])
    assert len(read_recordings(tmp_path)) == 7  # labels, times and the dictionary beside are no recordings


def test_nwb(tmp_path):
    check(read_recordings(files.write_nwb_worm(tmp_path / "worm.nwb", X, T))[0])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "[1, 2]", "an object with traces"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"traces": [[1, 2]], "names": ["AVAL"], "times": [1]}', "a time a sample and a name a cell"),
        ("a.json", '{"trace_array": [[1]], "labeled": {"7": {"label": "AVAL"}}}', "label for cell 7 of 1"),
        ("a.csv", "AVAL,AVAR\n1,2\n", "no column of times"),
        ("a.csv", "time,AVAL\n1,2,3\n", "line 2 has 3 entries"),
        ("a.csv", "time,AVAL\n1,x\n", "line 2"),
        ("a.csv", "time,AVAL\n", "1 lines"),
        ("a.mat", "no matlab file at all" * 20, "cannot be read as a MATLAB file"),
        ("a.h5", "no HDF5", "cannot be read as HDF5"),
        ("a.txt", "1 2", "_gcamp.txt"),
        ("a.xyz", "1 2", "files that end in"),
    ],
)
def test_one_sentence_for_what_cannot_be_read(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises((DataError, InputError), match=words):
        read_recordings(tmp_path / name)


def test_a_matlab_file_without_traces_names_what_it_has(tmp_path):
    with pytest.raises(DataError, match="no traces with names and times; it has other"):
        read_recordings(files.write_matlab_5(tmp_path / "a.mat", {"other": X}))


def test_gaps():
    values = np.arange(12.0).reshape(6, 2)
    values[2:4, 0] = np.nan
    raw = Raw(np.column_stack([values, np.full(6, np.nan)]), np.array([0.0, 1, 2, 3, 5, 6]), ("AVAL", "AVAR", "RIS"))
    assert fill_gaps(raw).names == ("AVAL", "AVAR")  # a cell without a number is gone in any case
    assert fill_gaps(raw, "drop").names == ("AVAR",)
    assert fill_gaps(raw, "hold").names == ("AVAR",)  # a gap longer than a twentieth
    held, drawn = fill_gaps(raw, "hold", longest=0.5), fill_gaps(raw, "interpolate", longest=0.5)
    np.testing.assert_allclose(held.traces[:, 0], [0, 2, 2, 2, 8, 10])
    np.testing.assert_allclose(drawn.traces[:, 0], [0, 2, 3.5, 5, 8, 10])
