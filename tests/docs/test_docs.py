"""The documentation: built strictly, without a broken link, and its tutorials run as they stand."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from broadsheet.lab.registry import entries

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)


class Links(HTMLParser):
    """Targets and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        self.targets += [found[name] for name in ("href", "src") if found.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    return folder


def test_no_link_is_broken(site):
    pages = {file: Links(file.read_text()) for file in site.rglob("*.html") if file.name != "404.html"}
    assert len(pages) > 15
    broken = []
    for file, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target.startswith("data:"):
                continue
            aim = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            aim = aim / "index.html" if aim.is_dir() else aim
            if not aim.exists() or (parts.fragment and aim in pages and unquote(parts.fragment) not in pages[aim].anchors):
                broken.append(f"{file.relative_to(site)}: {target}")
    assert broken == []


def test_every_running_paper_has_a_page_with_its_claims(site):
    for slug, entry in entries().items():
        text = (site / "papers" / slug / "index.html").read_text()
        assert all(f'<article class="claim" id="{claim.id}">' in text for _, claim in entry.claims())
        assert f"broadsheet verify {slug}" in re.sub(r"<[^>]+>", "", text)


def run_page(page, folder, monkeypatch):
    """Runs a page's blocks in order: files are written, Python goes on in one namespace, shell lines must succeed."""
    monkeypatch.chdir(folder)
    env = os.environ | {"BROADSHEET_HOME": str(folder / "home"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env |= {"PYTHONPATH": str(folder / "installed")}
    monkeypatch.setenv("BROADSHEET_HOME", env["BROADSHEET_HOME"])
    namespace, output = {}, ""
    for language, title, body in FENCE.findall((ROOT / "docs" / page).read_text()):
        if title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(body)
        elif language == "python":
            exec(compile(body, page, "exec"), namespace)
        elif language == "sh":
            install = f"{sys.executable} -m pip install --quiet --no-deps --no-build-isolation --target installed ."
            body = body.replace("pip install -e .", install)
            done = subprocess.run(["bash", "-ec", body], cwd=folder, env=env, capture_output=True, text=True)
            assert done.returncode == 0, body + done.stdout + done.stderr
            output += done.stdout
    return output


def test_tour(tmp_path, monkeypatch):
    output = run_page("tour.md", tmp_path, monkeypatch)
    assert re.search(r"elm-neuron +The Expressive", output)
    tracks = np.loadtxt(tmp_path / "tracks.csv", delimiter=",", skiprows=1)
    paths = np.stack([tracks[tracks[:, 1] == k, 2:] for k in range(20)])
    first = np.mean(np.sum((paths[:, 1:] - paths[:, :-1]) ** 2, axis=-1))
    assert float(re.search(r"^ +0\.05 +([\d.e-]+)", output, re.M)[1]) == pytest.approx(first, rel=2e-3)
    assert re.search(r"ND6 .*?reference", output)
    report = (tmp_path / "report.html").read_text()
    assert all(f'<article class="paper" id="{slug}"' in report for slug in entries())


def test_a_paper_of_your_own(tmp_path, monkeypatch):
    output = run_page("guide/papers.md", tmp_path, monkeypatch)
    assert re.search(r'"id": "C1",.*?"verdict": "holds"', output, re.S)
    assert re.search(r'"id": "C2",.*?"verdict": "reference"', output, re.S)
    assert "An integrator that forgets" in output


def test_claims_for_your_repository(tmp_path, monkeypatch):
    output = run_page("guide/repository.md", tmp_path, monkeypatch)
    assert re.search(r'"id": "C1",.*?"verdict": "holds"', output, re.S)


def test_a_stage_and_a_chain(tmp_path, monkeypatch, capsys):
    run_page("rooms/language.md", tmp_path, monkeypatch)
    assert "100% {}" in capsys.readouterr().out


def test_post_training_by_a_recipe(tmp_path, monkeypatch):
    output = run_page("guide/posttraining.md", tmp_path, monkeypatch)
    assert re.search(r"rlvr +trained", output)


def test_the_rooms_name_what_they_export():
    """Every public name of a room is on its page: the members are listed by hand, so that one may be forgotten."""
    import broadsheet.dynamics as room

    text = (ROOT / "docs" / "rooms" / "dynamics.md").read_text()
    beneath = {"Diagram", "Interaction", "respond", "wire", "Lens", "learner", "supervised"}  # pages of their own modules
    classes = {"Batch", "Feedback", "Parallel", "Series", "Substep"}  # what series() and the like return
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*?)\]", text))))
    assert set(room.__all__) - beneath - classes == listed


def test_the_table_of_rooms_is_fresh_and_names_every_room():
    """Made from the contracts, which import-linter enforces; a package that no layer names would be in no row."""
    made = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    text = made["PAGE"].read_text()
    assert text == made["page_text"](text), "run: make index"
    rows = dict(re.findall(r"^\| \d+ \| `(\w+)` \| [^|]+ \| ([^|]+) \|", text, re.M))
    source = ROOT / "src" / "broadsheet"
    rooms = {file.parent.name for file in source.glob("*/__init__.py")} | {file.stem for file in source.glob("*.py")}
    assert set(rows) == rooms - {"__init__"}
    assert rows["errors"] == "nothing of ours"
    assert "`lab`" in rows["page"]
    assert "neurons" not in rows["page"]


def test_the_picture_of_a_verdict_shows_the_ledger():
    made = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    assert escape(made["caption"](), quote=False) in made["PICTURE"].read_text(), "run: python docs/pictures.py"
    assert made["PICTURE"].name in (ROOT / "README.md").read_text()


def test_what_is_said_to_be_public_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    said = text.partition("in the `__all__` of")[2].partition("; the formats of")[0]
    names = [name.removeprefix("broadsheet.") for name in re.findall(r"`([\w.]+)`", said)]
    assert len(names) > 20
    assert [name for name in names if importlib.util.find_spec(f"broadsheet.{name}") is None] == []
