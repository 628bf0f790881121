import importlib
import sys

import pytest

from broadsheet.errors import InputError
from broadsheet.lab import identity, registry

ROOM = '"""A room."""\n\nGAIN = 2.0\n\ndef scaled(x):\n    """Docs."""\n    return GAIN * x\n'
OTHER = "def unused(x):\n    return x\n"
PAPER = '''"""A paper."""
from dataclasses import dataclass
from broadsheet.lab import Claim, Paper, Report, at_least
from mylab.room import scaled

paper = Paper(slug="mine", arxiv="2501.1", title="t", published="2025-01-01", authors=1, basis="code", summary="s")

@dataclass(frozen=True)
class Config:
    """Sizes."""
    size: int = 3

def helper(x):
    return x + 1

def unrelated(x):
    return x

@paper.experiment(presets={"quick": Config()}, claims=[
    Claim("C1", "s", kind="check", checks=[at_least("a", 1.0)])])
def main(config, key, log):
    """What it does."""
    return Report(metrics={"a": scaled(helper(config.size))})

@main.figure
def drawn(runs):
    return None
'''


@pytest.fixture
def hashes(tmp_path, monkeypatch, home):
    """A function from the texts of a paper and its room to the paper's code hash."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "mylab"
    package.mkdir()
    (package / "__init__.py").write_text("from mylab.room import scaled\n")
    (package / "other.py").write_text(OTHER)

    def compute(paper=PAPER, room=ROOM):
        (package / "paper.py").write_text(paper)
        (package / "room.py").write_text(room)
        for function in (identity._file, identity._tree, identity._module_dump, identity._paper_hashes):
            function.cache_clear()
        importlib.invalidate_caches()
        return identity._hash_experiments("mylab.paper", ("mylab", "broadsheet"))["main"]

    yield compute
    for name in [name for name in sys.modules if name.startswith("mylab")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What it does.", "What it really does."),
        ('at_least("a", 1.0)', 'at_least("a", 0.5)'),
        ('title="t"', 'title="another"'),
        ("    return None\n", "    return 1\n"),
        ("def unrelated(x):\n    return x", "def unrelated(x):\n    return 2 * x"),
        ("Sizes.", "Sizes of it."),
    ],
)
def test_claims_facts_figures_and_docstrings_do_not_count(hashes, old, new):
    assert hashes(PAPER.replace(old, new)) == hashes()


@pytest.mark.parametrize(("old", "new"), [("x + 1", "x + 2"), ("size: int = 3", "size: int = 4"), ('{"a": ', '{"b": ')])
def test_the_experiment_its_config_and_helpers_count(hashes, old, new):
    assert hashes(PAPER.replace(old, new)) != hashes()


def test_claims_and_figures_of_another_experiment_do_not_count(hashes):
    """Though a name of its own is like theirs; what the other one does may be used, and counts."""
    more = (
        PAPER.replace("    return Report(metrics", "    drawn = second = 1\n    return Report(metrics")
        + """
@paper.experiment(presets={"quick": Config()}, claims=[
    Claim("C2", "s", kind="check", checks=[at_least("b", 1.0)])])
def second(config, key, log):
    return Report(metrics={"b": 2.0})
"""
    )
    first = hashes(more)
    assert hashes(more.replace('at_least("b", 1.0)', 'at_least("b", 0.5)')) == first
    assert hashes(more.replace("    return None\n", "    return 1\n")) == first
    assert hashes(more.replace('{"b": 2.0}', '{"b": 3.0}')) != first


def test_the_modules_behind_imports_count(hashes, tmp_path):
    assert hashes(room=ROOM.replace("2.0", "3.0")) != hashes()
    assert hashes(room=ROOM.replace("A room", "The room").replace("Docs.", "More docs.")) == hashes()
    through_package = PAPER.replace("from mylab.room import scaled", "from mylab import scaled")
    first = hashes(through_package)
    assert hashes(through_package, ROOM.replace("2.0", "3.0")) != first
    (tmp_path / "mylab" / "__init__.py").write_text("# its names are loaded when asked for\n")
    (tmp_path / "mylab" / "__init__.pyi").write_text("from .room import scaled\n")
    assert hashes(through_package) == first


def test_a_module_without_a_file_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bare_folder_of_theirs").mkdir()
    for module, words in (
        ("nowhere_at_all.paper", "module nowhere_at_all.paper cannot be found"),
        ("bare_folder_of_theirs.paper", "module bare_folder_of_theirs.paper cannot be found"),
        ("broadsheet.papers.nothing", "has no file nothing.py"),
    ):
        with pytest.raises(InputError, match=words):
            identity._file(module)


def test_every_room_that_a_paper_uses_is_in_its_hash():
    used = identity._closure({"broadsheet.neurons.elm"}, ("broadsheet",))
    assert {"broadsheet.neurons.elm", "broadsheet.dynamics.system", "broadsheet.dynamics.rollout"} <= used
    assert not any(name.startswith(identity.OUTSIDE) for name in used)


def test_papers_of_other_packages_come_by_entry_point(hashes, monkeypatch):
    hashes()

    class Point:
        module = "mylab.paper"

        def load(self):
            return importlib.import_module("mylab.paper").paper

    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [Point()])
    registry.entries.cache_clear()
    try:
        entry = registry.entry("mine")
        assert entry.module == "mylab.paper"
        assert identity.code_hash(entry, entry.experiments["main"])
    finally:
        registry.entries.cache_clear()


def test_data_checksums_see_names_ends_and_sizes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    first = identity.data_checksum(str(tmp_path))
    (tmp_path / "a").write_bytes(b"x" * 2_999_999 + b"y")
    second = identity.data_checksum(str(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, identity.data_checksum(str(tmp_path)), None}) == 4
    assert identity.data_checksum(None) is None


def test_device_is_known_without_jax(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert identity.device_kind() == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert identity.device_kind() == "gpu"
