import ast
import gc
import hashlib
import importlib
import json
import os
import platform
import sys
import types
from pathlib import Path

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
        for function in (
            identity._file,
            identity._module,
            identity._passed_on,
            identity._package_files,
            identity._paper_hashes,
        ):
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


def test_a_runs_identity_is_that_of_all_that_decides_it(monkeypatch):
    """Written out anew: runs that are stored are found again by every later version."""
    monkeypatch.setattr(identity, "code_hash", lambda entry, experiment: "c0de")
    monkeypatch.setattr(identity.importlib.metadata, "version", lambda name: f"{name} 1")

    def wanted(**changed):
        value = {
            "slug": "toy", "experiment": "coin", "config": {"a": 1}, "seed": 7, "precision": "float32", "device": "cpu",
            "versions": {"jax": "jax 1", "numpy": "numpy 1"}, "data": None, "code": "c0de", **changed,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def found(requires=(), data=None, **options):
        entry = registry.Entry({"slug": "toy", "requires": requires}, "toy", {})
        made = registry.ExperimentEntry("coin", "", {"quick": {}}, {}, (), **options)
        return identity.run_identity(entry, made, {"a": 1}, 7, device="cpu", data_checksum=data)

    identity.versions.cache_clear()
    try:
        assert found() == wanted()
        assert found(data="d") == wanted(data="d")
        assert found(deterministic=True) == wanted(seed=0)
        assert found(precision="float64") == wanted(precision="float64")
        assert found(command={"commands": {}}) == wanted(versions={})
        assert found(("language",)) == wanted(versions={"jax": "jax 1", "numpy": "numpy 1", "torch": "torch 1"})
        assert found(("atoms",)) == wanted()
        monkeypatch.setattr(identity.platform, "python_version", lambda: "3.1")
        assert identity.environment() == {
            "python": "3.1", "platform": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count(),
            "broadsheet": "broadsheet 1", "jax": "jax 1", "numpy": "numpy 1",
        }  # fmt: skip

        def none(name):
            raise importlib.metadata.PackageNotFoundError

        monkeypatch.setattr(identity.importlib.metadata, "version", none)
        identity.versions.cache_clear()
        assert identity.versions() == {"jax": "missing", "numpy": "missing"}
    finally:
        identity.versions.cache_clear()


@pytest.mark.parametrize("size", [0, 10, 2**20, 2**20 + 5, 2**21, 3 * 2**20])
def test_a_checksum_is_of_the_first_and_the_last_mebibyte(tmp_path, size):
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    part = content[:size][: 2**20] + content[:size][2**20 :][-(2**20) :]
    assert identity.data_checksum(str(tmp_path / "a")) == hashlib.sha256(f"a\0{size}\0".encode() + part).hexdigest()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"x")
    both = hashlib.sha256(f"a\0{size}\0".encode() + part + b"b/c\0001\0x").hexdigest()
    assert identity.data_checksum(str(tmp_path)) == both
    with pytest.raises(InputError, match="no such file"):
        identity.data_checksum(str(tmp_path / "none"))


def test_a_graphics_card_counts_where_jax_can_use_it(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    for plugin, card, kind in (("jax_cuda12_plugin", True, "gpu"), ("jax_cuda13_plugin", True, "gpu"),
                               ("jax_cuda12_plugin", False, "cpu"), ("jax_cuda14_plugin", True, "cpu"), ("", True, "cpu")):  # fmt: skip
        monkeypatch.setattr(identity.importlib.util, "find_spec", lambda name, plugin=plugin: name == plugin or None)
        monkeypatch.setattr(identity.Path, "exists", lambda path, card=card: card and str(path) == "/dev/nvidia0")
        assert identity.device_kind() == kind
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert identity.device_kind() == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu,cuda")
    assert identity.device_kind() == "cpu"


@pytest.mark.parametrize(
    ("stated", "used", "other"),
    [
        ("SIZE = 3", "SIZE", "SIZE = 4"),
        ("SIZE: int = 3", "SIZE", "SIZE: int = 4"),
        ("WIDTH, SIZE = 1, 3", "SIZE", "WIDTH, SIZE = 1, 4"),
        ("WIDTH = SIZE = 3", "SIZE", "WIDTH = SIZE = 4"),
        ("BASE = 3\nSIZE = BASE", "SIZE", "BASE = 4\nSIZE = BASE"),
        ("class Size:\n    three = 3", "Size.three", "class Size:\n    three = 4"),
    ],
)
def test_what_a_file_states_counts_where_it_is_used(hashes, stated, used, other):
    def made(text, name):
        return PAPER.replace("def helper", f"{text}\n\ndef helper").replace("x + 1", f"x + {name}")

    assert hashes(made(stated, used)) != hashes(made(other, used))
    assert hashes(made(stated, "1")) == hashes(made(other, "1")) == hashes()


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("import mylab.room", "mylab.room.scaled"), ("import mylab.room as r", "r.scaled"), ("from mylab import room", "room.scaled"),
        ("from mylab import room as r", "r.scaled"), ("from mylab import scaled as s", "s"), ("from mylab.room import scaled as s", "s"),
    ],
)  # fmt: skip
def test_a_module_counts_by_whatever_name_it_is_imported(hashes, line, call):
    made = PAPER.replace("from mylab.room import scaled", line).replace("scaled(helper", f"{call}(helper")
    first = hashes(made)
    assert hashes(made, ROOM.replace("2.0", "3.0")) != first
    unused = PAPER.replace("from mylab.room import scaled", line).replace("scaled(helper(config.size))", "helper(config.size)")
    assert hashes(unused, ROOM.replace("2.0", "3.0")) == hashes(unused)
    within = PAPER.replace("from mylab.room import scaled\n", "").replace(
        "    return Report(metrics", "    import json, numpy\n    from . import other\n    return Report(metrics"
    ).replace("scaled(helper(config.size))", "helper(config.size)")  # fmt: skip
    assert hashes(within, ROOM.replace("2.0", "3.0")) == hashes(within)


def test_hashes_are_kept_on_disk_as_long_as_no_file_changes(hashes, home):
    hashes()
    first = identity._paper_hashes("mylab.paper")
    (file,) = (home / "cache" / "code-hashes").glob("*.json")
    assert file.name == "mylab.paper.json"
    kept = json.loads(file.read_text())
    assert kept["hashes"] == first
    file.write_text(json.dumps({**kept, "hashes": {"main": "as it was kept"}}))
    identity._paper_hashes.cache_clear()
    assert identity._paper_hashes("mylab.paper") == {"main": "as it was kept"}
    for damaged in (json.dumps({**kept, "stamp": "another"}), "{", json.dumps({"stamp": kept["stamp"]})):
        file.write_text(damaged)
        identity._paper_hashes.cache_clear()
        assert identity._paper_hashes("mylab.paper") == first
        assert json.loads(file.read_text()) == kept


def test_of_a_folder_without_git_hidden_files_and_the_claims_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: types.SimpleNamespace(returncode=128, stdout=b""))
    (tmp_path / "code").mkdir()
    for name in ("run.sh", "code/a.py", "claims.toml", ".hidden", "code/.cache"):
        (tmp_path / name).write_text("one")
    first = identity.repository_hash(tmp_path, "salt")
    content = hashlib.sha256(b"one").digest()
    assert first == hashlib.sha256(b"salt" + b"code/a.py\0" + content + b"run.sh\0" + content).hexdigest()
    for name in ("claims.toml", ".hidden", "code/.cache"):
        (tmp_path / name).write_text("two")
    assert identity.repository_hash(tmp_path, "salt") == first


NESTED = """
async def f():
    try:
        async for x in y:
            import a
        else:
            import b
    except* ValueError:
        with z as w:
            import c
    else:
        match w:
            case [1]:
                import d
            case _ if (lambda: 1)():
                while 1:
                    import e
                else:
                    import f
    finally:
        class G:
            if 1: import g
            elif 2: import h
            else: import i
"""


@pytest.mark.parametrize("text", [NESTED, Path(identity.__file__).read_text()])
def test_no_statement_is_passed_over(text):
    tree = ast.parse(text)
    statements = [id(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    assert sorted(map(id, identity._statements(tree))) == sorted(statements)


def test_garbage_is_collected_again_when_hashes_fail():
    with identity._without_collection():
        assert not gc.isenabled()
    with pytest.raises(SyntaxError), identity._without_collection():
        ast.parse("def")
    assert gc.isenabled()
