import io
import json
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from broadsheet.lab.registry import entries
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts
from commands import call, read

REAL = Path(__file__).parents[3] / "shared" / "page" / "daily-papers.txt"
PAGE = f"Daily Papers\n\nDec 11\n\nA brand new paper on dendrites\n\n{'An abstract. ' * 40}\n\n  • 3 authors\n·\nNov 2 4\n"


def test_list_and_show_before_any_import(home):
    papers = read("list")
    assert len(papers) == 42
    assert set(papers[0]) == {"slug", "arxiv", "title", "published", "authors", "comments", "basis", "verdicts"}
    assert {paper["slug"] for paper in papers if paper["basis"]} >= {"elm-neuron", "cybloids", "sdr-dendrites"}
    shown = read("show", "elm-neuron")
    claim = next(c for c in shown["claims"] if c["id"] == "C6")
    assert {"id", "kind", "statement", "verdict", "reason", "checks"} <= set(claim)
    assert {"metric", "value", "low", "high", "distance", "bound"} <= set(claim["checks"][0])
    assert [trial["control"] for trial in claim["ablations"]] == ["random-routing"]
    assert [trial["control"] for trial in claim["nulls"]] == ["small-plain"]
    assert "C6" not in shown["no_null_model_yet"]
    assert not home.exists() or not (home / "broadsheet.db").exists()
    assert "elm-neuron" in call("list").stdout
    assert "broadsheet run elm-neuron -e recall" in call("show", "2306.16922").stdout


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_dates_and_names_stay_whole_in_the_table(columns, monkeypatch):
    from broadsheet.cli import pages
    from broadsheet.page.catalogue import Catalogue

    screen = Console(width=columns, file=io.StringIO())
    monkeypatch.setattr(pages, "console", lambda: screen)
    papers = list(Catalogue().papers().values())
    screen.print(pages.papers_table(papers, pages.recorded_claims(list(entries()))))
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    for paper in papers:
        (row,) = [line for line in lines if line.split()[:1] == [paper.slug]]
        assert paper.published in row


def test_a_paper_without_a_system_shows_what_there_is(home):
    facts = Facts("On tides", arxiv="2401.00009", abstract="We ask for tides.", names=("A. One",))
    Catalogue().add("arxiv", [facts], date(2025, 1, 1))
    text = " ".join(call("show", "tides").stdout.split())
    assert "We ask for tides." in text
    assert "broadsheet new 2401.00009" in text
    assert read("show", "tides")["claims"] == []


def test_bibtex():
    text = call("show", "cybloids", "--bibtex").stdout
    assert text.startswith("@misc{cybloids,")
    assert "eprint = {2408.00336}" in text
    assert "year = {2024}" in text


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("--help",), []),
        (("list",), []),
        (("show", "elm-neuron"), []),
        (("search", "neuron"), ["numpy"]),
    ],  # which ranks by arrays
)
def test_reading_imports_neither_jax_nor_torch(home, words, needed):
    code = (
        "import sys; sys.argv = ['broadsheet', *sys.argv[1:]]\nfrom broadsheet.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(sorted(m for m in ('jax', 'torch', 'numpy', 'scipy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == str(needed), done.stderr


def test_import_twice(home, tmp_path):
    page = tmp_path / "page.txt"
    page.write_text(PAGE)
    first = read("import", page, "--as-of", "2025-12-11")
    assert (first["papers"], first["new"], first["comment_counts"]) == (1, ["brand-new-paper-dendrites"], 1)
    again = read("import", page, "--as-of", "2025-12-11", "--no-embed")
    assert (again["new"], again["changed"]) == ([], [])
    shown = read("show", "brand-new-paper-dendrites")
    assert (shown["published"], shown["comments"], shown["basis"]) == ("2025-11-02", 4, None)
    assert read("search", "brand", "new")[0]["slug"] == "brand-new-paper-dendrites"
    assert len(read("list")) == 43


@pytest.mark.skipif(not REAL.exists(), reason="the real page is not in this checkout")
def test_the_real_page(home):
    done = read("import", REAL, "--as-of", "2025-12-11", "--no-embed")
    assert (done["papers"], done["dates"], done["author_counts"], done["comment_counts"]) == (42, 41, 41, 3)
    assert done["new"] == []
    assert len(read("list")) == 42


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "no-such-paper"), "No paper is called"),
        (("show",), "Missing argument"),
        (("run", "no-such-paper"), "No paper called"),
        (("run", "elm-neuron", "-e", "nothing"), "no experiment 'nothing'"),
        (("run", "elm-neuron", "--set", "d_m=3"), "name it with -e"),
        (("run", "elm-neuron", "-e", "recall", "--set", "d_m"), "not NAME=VALUE"),
        (("run", "elm-neuron", "-e", "recall", "--set", "size=3"), "no setting 'size'"),
        (("run", "elm-neuron", "-e", "recall", "-p", "huge"), "no preset 'huge'"),
        (("run", "elm-neuron", "-e", "surrogate", "-p", "paper"), "Kaggle"),
        (("verify",), "--all"),
        (("verify", "elm-neuron", "--claim", "C99"), "no claim C99"),
        (("verify", "/"), "no claims.toml"),
        (("import", "/no/such/file"), "no such file"),
        (("import", "/bin/sh"), "not UTF-8"),
        (("import", "/etc", "/etc"), "one file or source at a time"),
        (("import", "daily:yesterday"), "no date"),
        (("import", "x", "--as-of", "12/11"), "no date"),
        (("search", "***"), "no word"),
        (("new", "nonsense"), "no arXiv identifier"),
        (("gc", "--budget", "lots"), "no size"),
        (("no-such-command",), "No such command"),
        (("matter", "msd", "/no/such.csv"), "no such file"),
        (("neurons", "fit-elm", "/etc/passwd"), "not a .npz"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(home, words, says):
    done = call(*words, code=2)
    text = " ".join(done.stderr.replace("│", " ").split())
    assert says in text


def test_run_sweeps_and_json(home):
    rows = read(
        "run", "sdr-dendrites", "-e", "online", "-p", "smoke", "--variant", "system", "--sweep", "theta=8,10", "--seed", "3"
    )
    assert [row["set"] for row in rows] == [{"theta": 8}, {"theta": 10}]
    assert all(0 <= row["metrics"]["system"]["recall"] <= 1 for row in rows)
    assert all((Path(row["folder"]) / "run.json").exists() for row in rows)
    assert (
        "recall"
        in call(
            "run", "sdr-dendrites", "-e", "online", "-p", "smoke", "--variant", "system", "--set", "theta=8", "--seed", "3"
        ).stdout
    )


def test_verify_report_and_gc(home):
    done = read("verify", "sdr-dendrites", "--claim", "C2", "--claim", "C6")
    assert (done["slug"], done["preset"]) == ("sdr-dendrites", "quick")
    assert [claim["verdict"] for claim in done["claims"]] == ["holds", "holds"]
    assert done["seconds"] > 0
    table = call("verify", "sdr-dendrites", "--claim", "C2").stdout
    assert "from the official code" in table
    out = home / "r.html"
    assert call("report", "--out", out).stdout.strip() == str(out)
    page = out.read_text()
    assert "<svg" in page
    assert "http" not in page.replace("https://arxiv.org", "").replace("http://www.w3.org", "").replace(
        "https://www.w3.org", ""
    )
    assert 'on this machine: <span class="here">holds' in page
    assert read("gc", "--budget", "0")["runs"] == 0  # a verdict needs them
    call("run", "sdr-dendrites", "-e", "online", "-p", "smoke")
    assert read("gc", "--budget", "0", "--dry-run")["runs"] == 6
    assert read("gc", "--budget", "0")["bytes_freed"] > 0


def test_verify_exits_1_where_a_claim_does_not_hold(home, tmp_path):
    (tmp_path / "claims.toml").write_text(
        """[repository]
name = "liar"
[[experiment]]
name = "lie"
command = "sh -c 'echo {\\\\\\"truth\\\\\\": 0} > $0' {out}"
ablations = { off = "sh -c 'echo {\\\\\\"truth\\\\\\": 0} > $0' {out}" }
[[experiment.claim]]
id = "L1"
statement = "it is true"
null = "none yet"
checks = [{ metric = "truth", at_least = 1 }]
"""
    )
    done = call("verify", tmp_path, "--json", code=1)
    assert json.loads(done.stdout)["claims"][0]["verdict"] == "fails"
    lines = (tmp_path / "claims.toml").read_text().splitlines()
    lying = [line.replace("truth", "lie") if line.startswith("ablations") else line for line in lines]
    (tmp_path / "claims.toml").write_text("\n".join(lying))
    said = call("verify", tmp_path, code=2).stderr
    assert "Claim L1: the control 'off' reports no 'truth'" in said


def test_verify_makes_nothing_less_known(home):
    """The tour's own step, and fewer seeds: every other claim keeps what was recorded of it."""

    def verdicts():
        return {claim["id"]: claim["verdict"] for claim in read("show", "nested-dynamics")["claims"]}

    before = verdicts()
    assert call("verify", "nested-dynamics", "--claim", "ND6", "--seeds", "1", code=1).returncode == 1  # provisional by itself
    assert verdicts() == before
    call("verify", "nested-dynamics", "--claim", "ND6")
    after = verdicts()
    assert after.pop("ND6") == "reference"
    assert after == {name: verdict for name, verdict in before.items() if name != "ND6" and name != "ND7"} | {
        "ND7": "reference"  # of the same experiment
    }


def test_verify_grows_a_claim(home, tmp_path):
    done = read("verify", "hlop", "--claim", "H1", "--seeds", "1", "--grow", "updates=0.05,0.1", code=1)
    (grown,) = done["claims"][0]["growth"]
    assert [size["value"] for size in grown["sizes"]] == [200, 400]
    assert grown["text"].endswith("on 1 seed")
    assert read("show", "hlop")["claims"][0]["growth"][0]["setting"] == "updates"
    assert list((home / "figures").glob("hlop/subspace/quick/growth-H1-updates.svg"))
    said = call("verify", "nested-dynamics", "--claim", "ND6", "--grow", code=2).stderr
    assert "no claim that declares what it grows with" in said
    assert "is no growth" in call("verify", "hlop", "--grow", "updates=x", code=2).stderr


def test_new_drafts_a_file_once(home, tmp_path):
    call("new", "2510.00027", "--folder", tmp_path)
    assert "Equivariance" in (tmp_path / "claims.toml").read_text()
    call("new", "2510.00027", "--folder", tmp_path, code=2)


def test_build_goes_on_after_a_kill(home):
    """The main job, killed hard, then again: the table comes at once, what was finished is found."""
    words = [sys.executable, "-m", "broadsheet.cli", "build", "--out", str(home / "report.html"), "--minutes"]
    first = subprocess.Popen([*words, "5"], stdout=subprocess.PIPE, text=True)
    patience = time.monotonic() + 60  # a busy machine needs longer than the usual few seconds
    while not list((home / "runs").glob("*/run.json")) and time.monotonic() < patience:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done_before = len(list((home / "runs").glob("*/run.json")))
    assert done_before > 0
    second = subprocess.run([*words, "0.3"], capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert f"42 papers, {len(entries())} of them run here" in second.stdout
    assert "The report:" in second.stdout
    assert (home / "report.html").stat().st_size > 50_000
    assert len(list((home / "runs").glob("*/run.json"))) >= done_before
    assert list((home / "scratch").iterdir()) == []


def test_fit_elm_on_a_recording(home, tmp_path):
    from broadsheet.neurons import BranchedNeuron, record

    made = record(0, BranchedNeuron(16, 2, g_ampa=0.3), 3000, rate=(10.0, 30.0))
    np.savez(tmp_path / "cell.npz", inputs=made.inputs, voltage=made.voltage, spikes=made.spikes)
    out = tmp_path / "w.safetensors"
    done = read("neurons", "fit-elm", tmp_path / "cell.npz", "--steps", "20", "--d-m", "3", "--out", out)
    assert set(done["scores"]) == {"auc", "tp_at_1_percent", "rmse_mv", "explained_variance"}
    assert out.exists()
    np.savez(tmp_path / "bad.npz", inputs=made.inputs)
    assert "neither" in call("neurons", "fit-elm", tmp_path / "bad.npz", code=2).stderr


def test_msd_of_tracks(home, tmp_path):
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(400, 50, 2)) * np.sqrt(2 * 0.5 * 0.1), axis=0)
    rows = [f"{t},{i},{x[t, i, 0]},{x[t, i, 1]}" for t in range(400) for i in range(50)]
    (tmp_path / "t.csv").write_text("frame,particle,x,y\n" + "\n".join(rows))
    done = read("matter", "msd", tmp_path / "t.csv", "--dt", "0.1")
    assert done["late_diffusion"] == pytest.approx(0.5, rel=0.2)
    assert done["msd"][0] == pytest.approx(4 * 0.5 * 0.1, rel=0.05)
    assert "50 particles" in call("matter", "msd", tmp_path / "t.csv").stdout


SNNTORCH = Path(__file__).parents[1] / "references" / "spiking" / "snntorch.nir"


def test_simulate_a_network_from_a_file(tmp_path):
    """The spikes of snnTorch's own run of its file, and a sweep of a threshold."""
    trace = np.load(SNNTORCH.with_suffix(".npz"))
    np.save(tmp_path / "drive.npy", trace["drive"])
    call("neurons", "simulate", SNNTORCH, "--input", tmp_path / "drive.npy", "--out", tmp_path / "out.npz")
    out = np.load(tmp_path / "out.npz")
    steps, neurons = np.nonzero(trace["spikes"])
    np.testing.assert_allclose(out["times"], steps * 0.1, atol=1e-6)
    np.testing.assert_array_equal(out["neurons"], neurons)
    words = ["neurons", "simulate", SNNTORCH, "--input", tmp_path / "drive.npy", "--out", tmp_path / "out.npz"]
    runs = read(*words, "--sweep", "3.v_threshold=0.5,1,4")["runs"]
    assert runs[0]["spikes"] > runs[1]["spikes"] == len(steps) > runs[2]["spikes"]
    assert "no node 'x'" in call(*words, "--sweep", "x.tau=1", code=2).stderr


def test_convert_and_simulate_a_trained_network(tmp_path):
    """A ReLU network of scikit-learn as an ONNX file: its accuracy, in spikes, with early exit; the file runs elsewhere too."""
    import onnx
    from onnx import helper, numpy_helper
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    model = MLPClassifier((32,), max_iter=40, random_state=0, learning_rate_init=0.01).fit(x[:1000], y[:1000])
    parts = {"w0": model.coefs_[0], "b0": model.intercepts_[0], "w1": model.coefs_[1], "b1": model.intercepts_[1]}
    nodes = [helper.make_node("Gemm", ["x", "w0", "b0"], ["a"]), helper.make_node("Relu", ["a"], ["r"]),
             helper.make_node("MatMul", ["r", "w1"], ["c"]), helper.make_node("Add", ["c", "b1"], ["o"])]  # fmt: skip
    ends = [[helper.make_tensor_value_info(name, 1, ["N", size])] for name, size in (("x", 64), ("o", 10))]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in parts.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", *ends, constants)), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=x[1000:], y=y[1000:])
    words = ["networks", "convert", tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "--out", tmp_path / "net.nir"]
    done = read(*words, "--early-exit")
    runs = {row["run"]: row for row in done["runs"]}
    assert runs["32 steps"]["accuracy"] > model.score(x[1000:], y[1000:]) - 0.03
    assert runs["early exit"]["steps"] < 20
    assert runs["early exit"]["accuracy"] > runs["32 steps"]["accuracy"] - 0.02
    assert set(json.loads((tmp_path / "net.exit.json").read_text())) == {"alpha", "threshold", "signal", "max_steps"}
    np.save(tmp_path / "x.npy", np.repeat(x[None, 1000], 32, axis=0))
    call("neurons", "simulate", tmp_path / "net.nir", "--input", tmp_path / "x.npy", "--out", tmp_path / "out.npz")
    assert np.load(tmp_path / "out.npz")["output"].sum(axis=0).argmax() == model.predict(x[1000:1001])[0]
    assert "x and y are wanted" in call(*words[:4], tmp_path / "out.npz", code=2).stderr


def test_recall_of_patterns(tmp_path):
    contents = (np.random.default_rng(0).random((5, 8)) < 0.5).astype(int)
    contents[:, 0] |= contents.sum(axis=1) == 0
    np.save(tmp_path / "p.npy", contents)
    assert read("networks", "recall", tmp_path / "p.npy")["exact"] == 5
    cues = read("networks", "recall", tmp_path / "p.npy", "--bits", "1,2")["cues"]
    assert cues == np.nonzero(contents[:, 1] | contents[:, 2])[0].tolist()
    assert "whole numbers" in call("networks", "recall", tmp_path / "p.npy", "--bits", "a", code=2).stderr


def test_search_by_words_and_by_meaning(home):
    assert "sdr-dendrites" in call("search", "dendritc", "segment").stdout.splitlines()[0]
    found = read("search", "--meaning", "--most", "3", "stop early when sure enough")
    assert "dynamic-confidence" in [paper["slug"] for paper in found]


def test_complexity_of_recorded_trains(home, tmp_path):
    """A train of period two has three components; shuffling it leaves none of its order."""
    spikes = np.zeros((200, 2))
    spikes[::2, 0] = 1
    np.savez(tmp_path / "trains.npz", spikes=spikes)
    found = json.loads(call("neurons", "complexity", tmp_path / "trains.npz", "--json").stdout)["neurons"]
    assert abs(found[0]["bits_a_bin"] - 3 * np.log2(200) / 200) < 1e-9
    assert found[0]["share_below"] == 0
    assert found[0]["shuffled"] > 0.9
    assert found[1]["entropy_of_rate"] == 0
    np.savez(tmp_path / "close.npz", times=[1.0, 1.4], neurons=[0, 0], duration=50.0)
    assert "take a smaller dt" in call("neurons", "complexity", tmp_path / "close.npz", "--no-merge", code=2).stderr
    np.savez(tmp_path / "other.npz", x=np.arange(4))
    assert "has the shape (4,)" in call("neurons", "complexity", tmp_path / "other.npz", code=2).stderr


def test_spice_decks(home, tmp_path):
    deck = call("neurons", "spice", "neuron", "--bias", "bias=100", "--pulse", "60", "--pulse", "90", "--stop", "150").stdout
    assert ".tran 0.05p 150p" in deck
    assert "100u" in deck
    assert "21 junctions" in call("neurons", "spice", "xor", "--out", tmp_path / "xor.cir").stdout
    assert (tmp_path / "xor.cir").read_text().count(".model") == 1
    assert "has no bias 'x'" in call("neurons", "spice", "synapse", "--bias", "x=1", code=2).stderr
    assert "NAME=µA" in call("neurons", "spice", "synapse", "--bias", "weight=much", code=2).stderr
