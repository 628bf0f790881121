"""Cells from files of the field and of anybody, and trajectories back."""

import anndata
import numpy as np
import pandas
import pytest

from broadsheet.errors import DataError, InputError, UntrustedError
from broadsheet.transport.snapshot_files import read_cells, write_trajectories

X = np.arange(12.0).reshape(4, 3)


def annotated(path, day, **obsm):
    obs = pandas.DataFrame({"day": day, "kind": ["a", "b", "a", "b"]}, index=list("wxyz"))
    anndata.AnnData(X=np.zeros((4, 2)), obs=obs, obsm=obsm).write_h5ad(path)
    return path


@pytest.mark.parametrize("day", [[0, 0, 1, 1], [0.0, 0.0, 1.5, 1.5], pandas.Categorical(["0", "0", "2", "2"])])
def test_cells_of_annotated_data(tmp_path, day):
    path = annotated(tmp_path / "cells.h5ad", day, X_pca=X, X_umap=X[:, :2])
    cells = read_cells(path, "day", dims=2)
    np.testing.assert_array_equal(cells.x, X[:, :2])
    np.testing.assert_array_equal(cells.t, np.asarray(day, float))
    assert (cells.basis, cells.columns, cells.names, cells.width) == ("X_pca", ("pca1", "pca2"), tuple("wxyz"), 3)
    assert read_cells(path, "day", "X_umap").columns == ("umap1", "umap2")
    for time, basis, dims, said in (
        ("age", None, None, "no column 'age'; it has day, kind"),
        ("kind", None, None, "'a', 'b'; numbers"),
        ("day", "X_tsne", None, "no 'X_tsne'; it has X_pca, X_umap"),
        ("day", None, 4, "3 columns, not 4"),
        (None, None, None, "is to be named"),
    ):
        with pytest.raises(InputError, match=said):
            read_cells(path, time, basis, dims)


def test_cells_of_tables_and_arrays(tmp_path):
    table = tmp_path / "cells.csv"
    table.write_text("x,day,y\n1,0,2\n3,1,4\n")
    cells = read_cells(table, "day")
    np.testing.assert_array_equal(cells.x, [[1, 2], [3, 4]])
    assert (cells.columns, cells.t.tolist()) == (("x", "y"), [0, 1])
    np.savez(tmp_path / "cells.npz", pcs=X, sample_labels=np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(read_cells(tmp_path / "cells.npz", "sample_labels").x, X)
    np.save(tmp_path / "cells.npy", X.reshape(2, 2, 3))
    assert read_cells(tmp_path / "cells.npy").t.tolist() == [0, 0, 1, 1]
    ragged = np.empty(2, object)
    ragged[:] = [X, X[:2]]
    np.save(tmp_path / "ragged.npy", ragged, allow_pickle=True)
    with pytest.raises(UntrustedError):
        read_cells(tmp_path / "ragged.npy")


def test_a_list_of_snapshots_is_read_where_it_is_trusted(tmp_path, monkeypatch):
    ragged = np.empty(2, object)
    ragged[:] = [X, X[:2]]
    np.save(tmp_path / "ragged.npy", ragged, allow_pickle=True)
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    assert read_cells(tmp_path / "ragged.npy").t.tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "text", "time", "said"),
    [
        ("a.csv", "x,day\n1,0\n,1\n", "day", "1 cells have no finite place or time, the first of them row 2"),
        ("a.csv", "x,day\n1,0\n2,\n", "day", "row 2"),
        ("a.csv", "day\n1\n", "day", "a time and a dimension"),
        ("a.csv", "x,day\n1,0\n", "hour", "no column 'hour'; it has x, day"),
        ("a.h5ad", "no", "day", "no HDF5 file"),
        ("a.loom", "", "day", "cells are read from"),
    ],
)
def test_files_without_cells_are_refused(tmp_path, name, text, time, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_cells(tmp_path / name, time)


def test_trajectories_are_written_and_read_by_others(tmp_path):
    cells = read_cells(annotated(tmp_path / "cells.h5ad", [0, 0, 1, 1], X_pca=X), "day")
    paths = np.arange(18.0).reshape(2, 3, 3)
    for name in ("out.h5ad", "out.npz", "out.csv"):
        write_trajectories(tmp_path / name, cells, "day", 2 * X, np.array([0.0, 1.0]), paths)
    made = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert made.obs_names.tolist() == list("wxyz")
    np.testing.assert_array_equal(made.obsm["drift"], 2 * X)
    np.testing.assert_array_equal(made.uns["trajectories"], np.swapaxes(paths, 0, 1))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["trajectories"], np.swapaxes(paths, 0, 1))
    table = pandas.read_csv(tmp_path / "out.csv")
    assert table.columns.tolist() == ["path", "day", "pca1", "pca2", "pca3"]
    np.testing.assert_array_equal(table[table.path == 2][["pca1", "pca2", "pca3"]], paths[:, 2])
    with pytest.raises(InputError, match=r"\.h5ad, \.npz or \.csv"):
        write_trajectories(tmp_path / "out.txt", cells, "day", X, np.zeros(2), paths)
