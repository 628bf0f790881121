"""Small files that claim to be large: one sentence, exit code 2, under a cap of memory and time."""

import contextlib
import gzip
import itertools
import json
import sqlite3
import subprocess
import sys
import zlib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import write
from ase.neighborlist import neighbor_list

from broadsheet.atoms.checkpoints import save_potential
from broadsheet.atoms.files import read_structures
from broadsheet.atoms.neighbours import MANY, neighbour_list, pairs, whole_structures
from broadsheet.atoms.potential import scaled
from broadsheet.atoms.registry import build
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.errors import DataError, InputError
from broadsheet.files import limited

CELL = 'Lattice="{a} 0 0 0 {a} 0 0 0 {a}"'
POSCAR = "x\n1.0\n5 0 0\n0 5 0\n0 0 5\nCu\n{count}\nDirect\n0 0 0\n"
ONE = {
    "numbers": {"__ndarray__": [[1], "int64", [29]]},
    "positions": {"__ndarray__": [[200_000_000, 3], "float64", [0.0]]},
    "unique_id": "a", "ctime": 0, "mtime": 0, "user": "x",
}  # fmt: skip
TEXTS = {
    "columns.xyz": f"1\n{CELL.format(a=5)} Properties=species:S:1:pos:R:99999999999\nCu 0 0 0\n",
    "more.xyz": f"1\n{CELL.format(a=5)} Properties=species:S:1:pos:R:3:f:R:99999999999\nCu 0 0 0\n",
    "cell.xyz": f"1\n{CELL.format(a=0.01)} Properties=species:S:1:pos:R:3\nCu 0 0 0\n",
    "slab.xyz": '1\nLattice="0.01 0 0 0 0.01 0 0 0 9" pbc="T T F" Properties=species:S:1:pos:R:3\nCu 0 0 0\n',
    "count.xyz": f"999999999999\n{CELL.format(a=5)}\nCu 0 0 0\n",
    "digits.xyz": "9" * 5000 + "\n\nCu 0 0 0\n",
    "deep.xyz": '1\nx="_JSON ' + "[" * 100_000 + '"\nCu 0 0 0\n',
    "POSCAR": POSCAR.format(count=999999999999),
    "more.vasp": POSCAR.format(count=99999999),
    "x.json": json.dumps({"1": ONE, "ids": [1], "nextid": 2}),
    "deep.json": '{"1":' + "[" * 200_000,
}
RUN = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
from broadsheet.cli import main
for command in sys.argv[1:]:
    signal.alarm(30)
    sys.argv = ["broadsheet", "atoms", *command.split()]
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code
    print("END", command, code, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    with gzip.open(folder / "empty.xyz.gz", "wb") as stream:
        stream.write(b"\n" * 300_000_000)
    write(folder / "x.traj", [bulk("Cu", cubic=True)] * 2)
    raw = bytearray((folder / "x.traj").read_bytes())
    raw[32:40] = (2**40).to_bytes(8, "little")  # frames
    (folder / "x.traj").write_bytes(raw)
    connect(folder / "x.db").write(bulk("Cu"))
    with contextlib.closing(sqlite3.connect(folder / "x.db")) as connection, connection:
        connection.execute("UPDATE systems SET data = ?", (json.dumps({"x": {"__ndarray__": [[10**9], "float64", [0.0]]}}),))
    copper = labelled(bulk("Cu"), 0.0, np.ones((1, 3)))
    save_potential(scaled(build("schnet", 0, width=8, cutoff=4.0), [copper]), folder / "p.safetensors")
    lmdb = pytest.importorskip("lmdb")
    for name, value in (("x.lmdb", json.dumps(ONE).encode()), ("more.lmdb", b'{"a": "' + b"0" * 100_000_000)):
        with lmdb.open(str(folder / name), subdir=False, map_size=2**24) as environment, environment.begin(write=True) as made:
            made.put(b"1", zlib.compress(value))
        (folder / f"{name}-lock").unlink()
    whole = (folder / "x.lmdb").read_bytes()
    (folder / "cut.lmdb").write_bytes(whole[: len(whole) // 2])
    return folder


def test_small_files_take_little(hostile, home):
    names = sorted(path.name for path in hostile.iterdir() if path.name != "p.safetensors")
    verbs = (
        "compress",
        "outliers",
        "train",
        "evaluate -p p.safetensors",
        "relax -p p.safetensors",
        "md -p p.safetensors",
        "dft",
    )
    commands = [f"entropy {name}" for name in names]
    commands += [f"{verb} {name}" for verb in verbs for name in ("columns.xyz", "count.xyz", "cell.xyz")]
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *commands], cwd=hostile, capture_output=True, text=True, timeout=120, check=False
    )
    told = [list(lines) for end, lines in itertools.groupby(ran.stderr.splitlines(), lambda line: line.startswith("END"))]
    sentences, ends = told[::2], [line for lines in told[1::2] for line in lines]
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ends == [f"END {command} 2" for command in commands]
    assert all(len(lines) == 1 for lines in sentences), [lines for lines in sentences if len(lines) > 1]


def test_more_pairs_than_matter_has_are_not_looked_for():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"structure 1 has .* atoms to the cubic Å"):
        neighbour_list(batch_atoms([Atoms("Cu"), Atoms("Cu5000", rng.random((5000, 3)))]), 5.0)
    with pytest.raises(InputError, match="to the cubic Å"):
        pairs(np.zeros((1, 3)), np.diag([0.003, 0.003, 9.0]), np.array([True, True, False]), 9.0)
    crowd = Atoms("Cu2000", 3 + 0.9 * rng.random((2000, 3)), cell=[300, 300, 300], pbc=True)
    crowd += Atoms("Cu4000", 300 * rng.random((4000, 3)))
    with pytest.raises(InputError, match="to the cubic Å"):
        pairs(crowd.positions, crowd.cell.array, crowd.pbc, 6.0)
    with pytest.raises(InputError, match="too many"):
        whole_structures(batch_atoms([Atoms("H20000", rng.random((20000, 3)))]))
    # matter, at the largest cutoff, and a million atoms an Å from each other in one row
    copper = bulk("Cu", cubic=True).repeat(6)
    assert len(pairs(copper.positions, copper.cell.array, copper.pbc, 14.0)[0]) == len(copper) * len(
        neighbor_list("i", bulk("Cu"), 14.0)
    )
    row = np.zeros((MANY // 100, 3))
    row[:, 0] = np.arange(len(row))
    assert len(pairs(row, np.zeros((3, 3)), np.zeros(3, bool), 2.5)[0]) == 4 * len(row) - 6


def test_a_reader_is_stopped():
    def endless():
        yield 1
        while True:
            pass

    steps = limited(endless(), memory=2**30, seconds=0.1)
    assert next(steps) == 1
    with pytest.raises(RuntimeError, match="longer than 0 s"):
        next(steps)

    def greedy():
        yield np.zeros(10)
        yield np.ones(2**24)

    steps = limited(greedy(), memory=2**25, seconds=10)
    assert len(next(steps)) == 10
    with pytest.raises(MemoryError):
        next(steps)
    assert len(np.ones(2**24)) == 2**24  # the limit is gone


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("broadsheet.atoms.extxyz.UNPACKED_LIMIT", 1000)
    monkeypatch.setattr("broadsheet.atoms.extxyz.UNPACKED_RATIO", 1)
    with gzip.open(tmp_path / "x.xyz.gz", "wb") as stream:
        stream.write(b"1\n\nH 0 0 0\n" * 1000)
    with pytest.raises(DataError, match="unpacks to more than 1000"):
        read_structures(tmp_path / "x.xyz.gz")
