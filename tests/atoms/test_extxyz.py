"""Extended XYZ, against ASE's reader, and what is refused by line."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.io import read, write
from ase.io.extxyz import key_val_str_to_dict

from broadsheet.atoms.extxyz import comment_of
from broadsheet.atoms.files import iterate_structures, read_structures
from broadsheet.errors import DataError


def frames():
    """Structures with all that ASE writes."""
    rng = np.random.default_rng(0)
    slab = Atoms(bulk("Cu", cubic=True), pbc=[True, True, False], constraint=FixAtoms([0, 2]))
    slab.info |= {"note": 'two words and a "mark"', "list": [1, {"a": 2.5}], "flag": True, "numbers": np.arange(3), "n": 7}
    water = molecule("H2O")
    water.set_constraint([FixCartesian(0, (True, False, True))])
    water.set_masses([16.5, 2.0, 1.0])
    water.set_momenta(rng.standard_normal((3, 3)))
    water.set_tags([1, 0, 2])
    water.set_initial_charges([-1.0, 0.5, 0.5])
    skewed = bulk("NaCl", "rocksalt", a=5.6)
    for each in (slab, water, skewed):
        results = {
            "energy": rng.standard_normal(),
            "forces": rng.standard_normal((len(each), 3)),
            "stress": rng.standard_normal(6),
        }
        results |= {"magmoms": rng.standard_normal(len(each)), "dipole": rng.standard_normal(3)}
        each.calc = SinglePointCalculator(each, **results)
    return [slab, water, skewed]


def same(found, wanted):
    assert found == wanted
    assert found.arrays.keys() == wanted.arrays.keys()
    assert found.info.keys() == wanted.info.keys()
    assert [each.todict() for each in found.constraints] == [each.todict() for each in wanted.constraints]
    for one, other in ((found.arrays, wanted.arrays), (found.info, wanted.info), (found.calc.results, wanted.calc.results)):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("name", ["f.xyz", "f.extxyz", "f.xyz.gz"])
def test_frames_are_those_of_ase(tmp_path, name):
    write(tmp_path / name, frames(), format="extxyz")
    found = list(iterate_structures(tmp_path / name))
    wanted = read(tmp_path / name, ":", format="extxyz")
    assert len(found) == 3
    assert found[0].constraints[0].index.tolist() == [0, 2]
    assert found[1].get_masses().tolist() == [16.5, 2.0, 1.0]
    for each in wanted:  # of each atom ASE makes a constraint, also where it fixes nothing
        each.set_constraint([one for one in each.constraints if not isinstance(one, FixCartesian) or np.any(one.mask)])
    for one, other in zip(found, wanted, strict=True):
        same(one, other)


@pytest.mark.parametrize(
    "text",
    [
        'a=1 b="x y" c',
        "a = 3 b= 'q' d={1 2 3} e=[1.5, 2]",
        r'm="_JSON {\"a\": [1, {\"b\": 2}]}" z=T',
        'q=a=b c="T F T" uid=123',
        "free words 1.5 here",
        r'n=12345678901234567890123 k="a\"b"',
        'x=[[1,2],[3,4]] "my key"=3 s=a"b c"d',
        "f=nan g=-inf h=1e5 i=0x1",
        "",
    ],
)
def test_comments_are_read_as_ase_reads_them(text):
    found, wanted = comment_of(text), key_val_str_to_dict(text) if text else {}
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_empty_lines_between_frames_lose_nothing(tmp_path):
    path = tmp_path / "T@300K#1.xyz"  # names mean nothing
    path.write_text("\n".join(f"1\n\nH 0 0 {k}\n\n" for k in range(5)))
    assert [each.positions[0, 2] for each in read_structures(path)] == [0, 1, 2, 3, 4]


ROWS = "Cu 0 0 0\nCu 0 0 2\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2\n\n" + ROWS + "some words\n", "structure 1 cannot be read.*line 5: 'some words' stands where the number"),
        ("3\n\n" + ROWS, "structure 0 cannot be read.*line 1: 3 atoms are announced and 2 lines"),
        ("1\n\n" + ROWS, "line 4: 'Cu 0 0 2' stands where"),
        ("2\n\nCu 0 0 0\nCu 0 2\n", "line 4: it has 3 columns and without Properties there are 4"),
        ("2\n\nCu 0 0 0\nCu 0 0 2 5\n", "line 4: it has 5 columns"),
        ("2\nProperties=species:S:1:pos:R:3:forces:R:3\n" + ROWS, "line 3: it has 4 columns and Properties names 7"),
        ("2\n\nCu 0 0 0\nCu 0 0 ******\n", r"line 4: positions has '\*+', which is no number"),
        ("2\n\nCu 0 0 0\nQq 0 0 2\n", "line 4: 'Qq' is no element"),
        ("2\nProperties=species:S:1:pos:R:3:Z:I:1\nCu 0 0 0 29\nCu 0 0 2 28\n", "line 4: its species is Cu and its Z 28"),
        ("2\nProperties=species:S:1:pos:R:3:pos:R:3\n" + ROWS, "Properties names positions twice"),
        ("2\nProperties=species:S:1:forces:R:3\n" + ROWS, "Properties has no pos"),
        ("2\nProperties=pos:R:3:tag:S:1\n" + ROWS, "Properties has no species or Z"),
        ("2\nProperties=species:S:1:pos:R:3:move_mask:R:1\n" + ROWS, "move_mask:R:1; move_mask:L:1 is wanted"),
        ("2\nProperties=species:S:1:pos:Q:3\n" + ROWS, "pos:Q:3"),
        ("2\nenergy=1 energy=2\n" + ROWS, "line 2: energy is there twice"),
        ("2\nenergy=*****\n" + ROWS, r"line 2: energy=\*{5} is no number"),
        ("2\nenergy\n" + ROWS, "energy=True is no number"),
        ('2\nenergy="-1 eV"\n' + ROWS, "energy=-1 eV is no number"),
        ('2\nstress="1 2 3 4"\n' + ROWS, "stress has 4 numbers"),
        ('2\nstress="1 0 0 9 1 0 0 0 1"\n' + ROWS, "stress is not symmetric"),
        ('2\nLattice="5 0 0 0 5 0"\n' + ROWS, "Lattice is not nine numbers"),
        ('2\nLattice="5 0 0 0 5 0 0 0 5" pbc="T x T"\n' + ROWS, "pbc is not three of T and F"),
        ('2\nLattice="5 0 0 0 5 0 0 0 5\n' + ROWS, "a quotation mark or bracket of the comment does not close"),
        ("2\nenergy_unit=Hartree\n" + ROWS, "structure 0 states energy_unit=Hartree; energies are read in eV"),
        ("2\n\nCu 0 0 0\nCu 0 0 nan\n", "not finite"),
        ('2\nLattice="5 0 0 5 0 0 0 0 5"\n' + ROWS, "lie in one plane"),
        ('2\nLattice="5 0 0 5 0 0 0 0 5" pbc="T T F"\n' + ROWS, "lie in one line"),
        ("2\nProperties=species:S:1:pos:R:3:mass:R:1\nCu 0 0 0 63\nCu 0 0 2 0\n", "mass is no number above 0"),
        ("1\n\nX 0 0 0\n", "no element"),
        ("1\nProperties=Z:I:1:pos:R:3\n0 0 0 0\n", "no element .atomic number 0"),
        ("1\nProperties=Z:I:1:pos:R:3\n200 0 0 0\n", "no element .atomic number 200"),
        ("1\n\nCu 0 0 1e9\n", "beyond 1e.08"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, words):
    (tmp_path / "x.xyz").write_text(text)
    with pytest.raises(DataError, match=words):
        read_structures(tmp_path / "x.xyz")


def test_species_and_atomic_numbers_may_both_be_there(tmp_path):
    text = "2\nProperties=species:S:1:pos:R:3:Z:I:1\nCu 0 0 0 29\nO 0 0 2 8\n"
    (tmp_path / "x.xyz").write_text(text)
    assert read_structures(tmp_path / "x.xyz")[0].numbers.tolist() == [29, 8]
    (tmp_path / "x.xyz").write_text(text.replace(" 29", " 28"))
    with pytest.raises(DataError, match="line 3: its species is Cu and its Z 28"):
        read_structures(tmp_path / "x.xyz")


def test_units_that_are_read_may_be_stated(tmp_path):
    (tmp_path / "x.xyz").write_text('1\nunits="eV, Angstrom" time_unit=ps energy_unit=eV energy=1\nH 0 0 0\n')
    assert read_structures(tmp_path / "x.xyz")[0].get_potential_energy() == 1


def test_cell_vectors_after_the_atoms(tmp_path):
    (tmp_path / "x.xyz").write_text("1\nwords\nH 0 0 0\nVEC1 3 0 0\nVEC2 0 4 0\n\n1\n\nHe 0 0 0\n")
    first, second = read_structures(tmp_path / "x.xyz")
    assert first.cell.array.tolist() == [[3, 0, 0], [0, 4, 0], [0, 0, 0]]
    assert (first.pbc.tolist(), second.get_chemical_symbols()) == ([True, True, False], ["He"])


def test_text_that_is_none(tmp_path):
    (tmp_path / "x.xyz").write_bytes(b"1\nin \xe5ngstr\xf6m\nH 0 0 0\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_structures(tmp_path / "x.xyz")
    with gzip.open(tmp_path / "y.xyz.gz", "wb") as stream:
        stream.write(b"1\n\nH 0 0 0\n" * 100)
    whole = (tmp_path / "y.xyz.gz").read_bytes()
    (tmp_path / "y.xyz.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="damaged"):
        read_structures(tmp_path / "y.xyz.gz")


def read_text(tmp_path, text, name="x.xyz"):
    (tmp_path / name).write_text(text)
    return read_structures(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n\nH 0 0 0\nVEC1 3 0 0\n\n\n1\n\nQq 0 0 0\n", "structure 1 cannot be read .line 9: 'Qq'"),
        (
            "1\n\nH 0 0 0\nVEC1 3 0 0\nVEC2 0 3 0\n2\nenergy=x\nH 0 0 0\nH 0 0 1\n",
            "structure 1 cannot be read .line 7: energy=x",
        ),
        ("1\n\nH 0 0 0\nVEC2 3 0 0\n", "line 4: VEC1, VEC2 and VEC3"),
        ("1\n\nH 0 0 0\nVEC1 3 0\n", "line 4: VEC1, VEC2 and VEC3"),
        ("2\n\n" + ROWS + "VEC1 3 0 x\n", "line 5: VEC1, VEC2 and VEC3"),
        ("1\nProperties=species:S:1:pos:R:3:tags:I:1\nH 0 0 0 1.5\n", "line 3: tags has '1.5', which is no whole number"),
        ("1\nProperties=species:S:1:pos:R:3:on:L:1\nH 0 0 0 x\n", "line 3: on has 'x', which is no T or F"),
        ("2\nProperties=species:S:1:pos:R:3:v:R:2\nH 0 0 0 1 2\nH 0 0 1 1 x\n", "line 4: v has 'x', which is no number"),
        ('1\nenergy="1 2"\nH 0 0 0\n', "line 2: energy=.1 2. is no number"),
        ('1\nx="_JSON [1"\nH 0 0 0\n', "line 2: x is no JSON"),
        ("3\n\nH 0", "line 1: 3 atoms are announced and 1 lines"),
        ("4\n\nH 0", "line 1: '4' atoms are announced, more than the file has room for"),
        ("-1\n\nH 0 0 0\n", "line 1: '-1' stands where the number"),
        ('1\nLattice="5 0 0 0 5 0 0 0 5" pbc="T T"\nH 0 0 0\n', "pbc is not three"),
        ("1\nProperties=species:S:1:pos:R:3:v:R:0\nH 0 0 0\n", "v:R:0"),
        ("1\nProperties=species:S:1:pos:R:3:v:R\nH 0 0 0 1\n", "not made of name:type:columns"),
        ("1\nProperties=species:S:1:pos:R:2\nH 0 0\n", "pos:R:2; pos:R:3 is wanted"),
        ("1\n" + "y" * 3 + "=1 yyy=" + "z" * 50 + "\nH 0 0 0\n", "yyy is there twice, as '1' and as '" + "z" * 40 + "…'"),
    ],
)
def test_the_line_that_is_wrong_is_named(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_text(tmp_path, text)


def test_what_a_frame_states_by_hand(tmp_path):
    cell = 'Lattice="2 0 0 0 3 0 1 0 4"'
    for said, pbc in (("", [True] * 3), ("pbc=F", [False] * 3), ('pbc="T F T"', [True, False, True]), ("pbc=1", [True] * 3)):
        (found,) = read_text(tmp_path, f"1\n{cell} {said}\nH 0 0 0\n")
        assert (found.pbc.tolist(), found.cell.array.tolist()) == (pbc, [[2, 0, 0], [0, 3, 0], [1, 0, 4]])
    (found,) = read_text(tmp_path, "1\n\ncU 0 0 0\nVEC1 3 0 0\nVEC2 0 3 0\nVEC3 0 0 3\n")
    assert (found.pbc.all(), found.symbols[0]) == (True, "Cu")
    properties = "Properties=species:S:1:pos:R:3:move_mask"
    for kind, rows, fixed in (("L:1", ("T", "F"), [1]), ("I:1", ("0", "1"), [0]), ("I:1", ("1", "1"), None)):
        (found,) = read_text(tmp_path, f"2\n{properties}:{kind}\nH 0 0 0 {rows[0]}\nH 0 0 1 {rows[1]}\n")
        assert (found.constraints[0].index.tolist() if found.constraints else None) == fixed
    (found,) = read_text(tmp_path, f"2\n{properties}:L:3\nH 0 0 0 T F T\nH 0 0 1 T T T\n")
    (held,) = found.constraints
    assert (held.index.tolist(), held.mask.tolist()) == ([0], [False, True, False])
    (found,) = read_text(
        tmp_path, f'1\nuid=007 UID=1e3 n=007 v="1,2" dipole="1 2 3" stress="6 4 5 4 7 8 5 8 9" {cell}\nH 0 0 0\n'
    )
    assert (found.info["uid"], found.info["UID"], found.info["n"], found.info["v"].tolist()) == ("007", "1e3", 7, [1, 2])
    assert found.calc.results["dipole"].tolist() == [1, 2, 3]
    assert found.calc.results["stress"].tolist() == [6, 7, 9, 8, 5, 4]
    (found,) = read_text(tmp_path, '1\nstress="1 2 3 4 5 6"\nH 0 0 0\n')
    assert found.calc.results["stress"].tolist() == [1, 2, 3, 4, 5, 6]


def test_packed_files_and_limits_are_exact(tmp_path, monkeypatch):
    text = "1\n\nH 0 0 0\n" * 30
    for suffix, module in ((".gz", gzip), (".bz2", bz2), (".xz", lzma)):
        path = tmp_path / f"x.xyz{suffix}"
        with module.open(path, "wt") as stream:
            stream.write(text)
        assert len(read_structures(path)) == 30
        monkeypatch.setattr("broadsheet.atoms.extxyz.UNPACKED_RATIO", 0)
        monkeypatch.setattr("broadsheet.atoms.extxyz.UNPACKED_LIMIT", len(text))
        assert len(read_structures(path)) == 30
        monkeypatch.setattr("broadsheet.atoms.extxyz.UNPACKED_LIMIT", len(text) - 1)
        with pytest.raises(DataError, match=f"unpacks to more than {len(text) - 1} characters"):
            read_structures(path)
        monkeypatch.undo()
    for empty, fits in ((1000, True), (1001, False)):
        (tmp_path / "x.xyz").write_text("1\n\nH 0 0 0\n" + "\n" * empty + "1\n\nH 0 0 0\n")
        if fits:
            assert len(read_structures(tmp_path / "x.xyz")) == 2
        else:
            with pytest.raises(DataError, match="line 1004: 1001 empty lines follow"):
                read_structures(tmp_path / "x.xyz")
