"""Tables as people write them, against the numbers in them."""

import numpy as np
import pytest

from broadsheet.errors import DataError
from broadsheet.numerics.number_tables import read_numbers


@pytest.mark.parametrize(
    ("text", "names", "values"),
    [
        ("1,2\n3,4\n", ("0", "1"), [[1, 2], [3, 4]]),
        ("a,b\n1,\n3,4e-2\n", ("a", "b"), [[1, np.nan], [3, 0.04]]),
        ("﻿a;b\r\n1;2\r\n\r\n", ("a", "b"), [[1, 2]]),
        ("x\ty\n1\t-2\n", ("x", "y"), [[1, -2]]),
        ('"a, of b",c\n1,2\n', ("a, of b", "c"), [[1, 2]]),
    ],
)
def test_tables(tmp_path, text, names, values):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    found = read_numbers(path)
    assert found.names == names
    np.testing.assert_array_equal(found.values, values)


def test_arrays(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(6, dtype=np.int16).reshape(2, 3))
    assert read_numbers(tmp_path / "t.npy").values.tolist() == [[0, 1, 2], [3, 4, 5]]
    np.savez(tmp_path / "t.npz", a=np.ones((2, 2)), b=np.ones(2))
    with pytest.raises(DataError, match="one array"):
        read_numbers(tmp_path / "t.npz")
    np.save(tmp_path / "t.npy", np.ones(3))
    with pytest.raises(DataError, match=r"\(3,\)"):
        read_numbers(tmp_path / "t.npy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1\n", "line 2: 1 cells"),
        ("a,b\n1,x\n", "line 2, column b: 'x'"),
        ("1,x\n1,2\n", "line 1, column 1: 'x'"),
        ("\n", "is empty"),
    ],
)
def test_what_is_no_table_is_refused_by_its_place(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_numbers(tmp_path / "t.csv")
