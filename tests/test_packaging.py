"""What is installed: extras, addresses, the wheel outside the checkout, and the types that a user's checker sees."""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from broadsheet.lab.registry import EXTRAS, entries

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def packages(extra):
    """All requirements of an extra, those of the extras that it names included."""
    found = set()
    for wanted in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(r"broadsheet\[(.+)\]", wanted)
        found |= set().union(*map(packages, own[1].split(","))) if own else {wanted}
    return found


def test_the_extra_papers_is_what_all_papers_require():
    required = {extra for entry in entries().values() for extra in entry.facts["requires"]}
    assert required
    for extra in required | set(EXTRAS.values()):
        assert packages(extra) <= packages("papers")
    for module, extra in EXTRAS.items():
        names = {re.match(r"[\w.-]+", package)[0].replace("-", "_") for package in packages(extra)}
        assert module in names, f"papers that lack {module} say that the extra {extra} brings it"
    assert "papers,web" in (ROOT / "Makefile").read_text()


def test_all_names_every_extra_but_what_only_some_machines_need():
    apart = {"all", "cuda", "evaluation"}  # lm-eval brings three dozen packages for one function
    assert packages("all") == set().union(*map(packages, PROJECT["optional-dependencies"].keys() - apart))


def test_every_requirement_is_pinned():
    pinned = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    for package in set(PROJECT["dependencies"]) | packages("all"):
        assert normal(re.match(r"[\w.-]+", package)[0]) in pinned


LOCKED = re.compile(r"([\w.-]+)==([\w.+-]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")


def test_all_that_is_installed_is_locked_by_hashes_in_the_versions_of_the_pins():
    """Only PyTorch is not, whose build is the machine's choice; no file names a registry, an index or a path."""
    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]]
    pinned = {normal(name): version for name, version in pins}
    locked = {}
    for part in ("core", "site", "all"):
        text = (ROOT / "locks" / f"{part}.txt").read_text()
        head, _, body = text.partition("\n")
        assert head.startswith("#")
        assert LOCKED.sub("", body) == ""
        locked[part] = {normal(name): version for name, version, _ in LOCKED.findall(body)}
    everything = locked["core"] | locked["site"] | locked["all"]
    assert {name: version for name, version in everything.items() if pinned.get(name, version) != version} == {}
    wanted = {"core": ("papers", "web"), "site": ("papers", "web", "search", "postgres"), "all": ("all",)}
    there = {"torch"}
    for part, extras in wanted.items():
        there |= set(locked[part])
        needed = set(PROJECT["dependencies"]).union(*map(packages, extras))
        assert {normal(re.match(r"[\w.-]+", package)[0]) for package in needed} <= there
    for file in ("Containerfile", "tools/install.py"):
        assert "--require-hashes" in (ROOT / file).read_text()


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


PIP = """\
Processing /somewhere/broadsheet
Collecting jaxlib>=0.7 (from broadsheet==0.1.0)
  Downloading jaxlib-0.10.2-cp311-cp311-manylinux_2_27_x86_64.whl.metadata (1.3 kB)
Collecting rich>=13.7 (from broadsheet==0.1.0)
  Using cached rich-15.0.0-py3-none-any.whl (300 kB)
Downloading jaxlib-0.10.2-cp311-cp311-manylinux_2_27_x86_64.whl (85.4 MB)
Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (0.9 GB)
Installing collected packages: rich, jaxlib, torch
"""


def test_the_installation_says_how_far_it_is(capsys, tmp_path):
    """From what pip prints, older ones, which take each file at once, and newer ones, which take its metadata first."""
    install = runpy.run_path(str(ROOT / "tools" / "install.py"))
    with (tmp_path / "log").open("w") as log:
        install["follow"](PIP.splitlines(keepends=True), log)
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "2 packages, 86 MB so far: jaxlib 0.10.2, 85 MB" in said
    assert "3 packages, 986 MB so far: torch 2.13.0, 900 MB" in said
    assert "Unpacking 3 packages." in said
    assert (tmp_path / "log").read_text() == PIP


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("This is no checkout: git knows no files here.")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_address_that_nobody_owns():
    """The package is on no registry and has no public repository yet: whoever took the name or the address would be trusted."""
    registry = re.compile(r"\b(pipx?|uv|uvx|conda|mamba)\s+(install|add|run)\b[^\n#]*?[\s'\"]broadsheet\b")
    forge = re.compile(
        r"\b(github|gitlab|codeberg|bitbucket|sourcehut|pypi|anaconda|docker|ghcr)\.\w+/[\w./-]*broadsheet", re.I
    )
    host = re.compile(r"\bbroadsheet[\w-]*\.(readthedocs|github|gitlab|pages|org|com|dev|net|app)\b", re.I)
    assert registry.search("pip install 'broad" + "sheet[language]'")
    assert forge.search("https://github.com/" + "someone/broadsheet")
    found = []
    for file in tracked():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        for address in (registry, forge, host):
            found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in address.finditer(text)]
    assert found == []
    assert "urls" not in PROJECT


WATCH = """
import os, sys

def tell(event, arguments, to=os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
    if event == "open" and isinstance(arguments[0], str) and os.path.realpath(arguments[0]).startswith({folders!r}):
        os.write(to, (arguments[0] + "\\n").encode())

sys.addaudithook(tell)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as `python -m build` makes it."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_carries_every_file_of_the_package_and_the_ledger(wheel):
    source, ledger = ROOT / "src" / "broadsheet", ROOT / "docs" / "verdicts"
    wanted = {f"broadsheet/{file.relative_to(source)}" for file in source.rglob("*") if file.is_file()}
    wanted |= {f"broadsheet/verdicts/{file.relative_to(ledger)}" for file in ledger.rglob("*") if file.is_file()}
    wanted = {name for name in wanted if not name.endswith(".pyc")}
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert carried == wanted
    for part in (
        "py.typed",
        "papers/index.json",
        "web/templates/paper.html",
        "lab/migrations/env.py",
        "verdicts/elm-neuron.json",
    ):
        assert f"broadsheet/{part}" in carried
    assert any(name.startswith("broadsheet/web/static/") for name in carried)


def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    """Installed in a folder of its own; no process opens a file of the checkout."""
    place, log = tmp_path / "installed", tmp_path / "opened.txt"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--no-index"]
    subprocess.run([*install, "--target", place, wheel], check=True, capture_output=True)
    folders = tuple(f"{ROOT / name}/" for name in ("src", "docs", "tests", "bench"))
    (place / "sitecustomize.py").write_text(WATCH.format(log=str(log), folders=folders))
    env = {name: value for name, value in os.environ.items() if not name.startswith("BROADSHEET_")}
    env |= {"PYTHONPATH": str(place), "BROADSHEET_HOME": str(tmp_path / "home")}

    def run(*words):
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import broadsheet, broadsheet.lab.ledger as ledger; print(broadsheet.__file__, ledger.ledger_folder(), sep='\\n')"
    assert run(sys.executable, "-c", where).split() == [
        str(place / "broadsheet" / name) for name in ("__init__.py", "verdicts")
    ]
    command = str(place / "bin" / "broadsheet")
    listed = {paper["slug"]: paper for paper in json.loads(run(command, "list", "--json"))}
    assert set(listed) == set(entries())
    assert listed["sdr-dendrites"]["verdicts"]["holds"] > 0
    run(command, "run", "sdr-dendrites", "-p", "smoke")
    assert any((tmp_path / "home").rglob("*.npz"))
    run(sys.executable, "-c", f"open({str(ROOT / 'docs' / 'index.md')!r})")
    assert log.read_text().split() == [str(ROOT / "docs" / "index.md")], "the last is the test's own, to see that it watches"


USER = """
from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import broadsheet
from broadsheet.atoms import LennardJones, Potential
from broadsheet.dynamics import rollout
from broadsheet.lab import Paper
from broadsheet.networks import simulate
from broadsheet.neurons import DendriticNeuron, ELMCell, ELMNeuron
from broadsheet.plasticity import STDP

spikes = np.zeros((100, 8))
cell = ELMCell(8, 2, 20, key=jax.random.key(0))
{lines}
"""
SEEN = {
    "cell": "broadsheet.neurons.elm.ELMCell",
    "cell(jnp.zeros((100, 8)))": "jax._src.basearray.Array",
    "rollout(cell, jnp.zeros((100, 8)))": "tuple[Any, Any]",
    "rollout(cell, jnp.zeros((100, 8)), steps='many')": 'Argument "steps" to "rollout" has incompatible type "str"',
    "Potential.energy": ".Potential, batch: broadsheet.atoms.structures.AtomsBatch, ",
    "LennardJones.energy": "-> jax._src.basearray.Array",
    "DendriticNeuron().fit(spikes, spikes)": "broadsheet.neurons.dendrite.DendriticNeuron",
    "ELMNeuron().predict(spikes)": "numpy.ndarray[",
    "STDP(0.5 * jnp.ones((8, 2)))": "broadsheet.plasticity.stdp.STDP",
    "simulate(cell, steps=3)[1]": "broadsheet.networks.spikes.Spikes",
    "Paper.experiment": "-> broadsheet.lab.paper.Experiment",
    "broadsheet.load('elm-neuron').run('recall', seed='one')": 'Argument "seed" to "run" of "LoadedPaper" has incompatible type "str"',
    "broadsheet.load('elm-neuron').run('recall').verdicts": "tuple[broadsheet.lab.verdicts.Verdict, ...]",
}  # fmt: skip


def test_a_users_checker_sees_the_types(tmp_path):
    """`mypy --strict` on a file outside the checkout: what it says of expressions, and of two mistakes."""
    text = USER.format(lines="\n".join(f"reveal_type({expression})" for expression in SEEN))
    (tmp_path / "user.py").write_text(text)
    skipped = "sklearn,scipy,matplotlib,sqlalchemy,distributed,dask,ase,pandas".replace(",", ".*,") + ".*"
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\n[mypy-{skipped}]\nfollow_imports = skip\n")
    done = subprocess.run([sys.executable, "-m", "mypy", "user.py"], cwd=tmp_path, capture_output=True, text=True)
    said = dict.fromkeys(SEEN, "")
    first = text.splitlines().index("reveal_type(cell)") + 1
    expressions = list(SEEN)
    for line in done.stdout.splitlines():
        if found := re.match(r"user\.py:(\d+): (.*)", line):
            said[expressions[int(found[1]) - first]] += found[2] + "\n"
    for expression, wanted in SEEN.items():
        assert wanted in said[expression], f"{expression}: {said[expression]}"
        assert ("error" in said[expression]) == wanted.startswith("Argument"), said[expression]
