import ctypes
import gc
import os
import shutil
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from waiting import until

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# tests compile much and compute little
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jaxlib").startswith("0.10."):  # others may not know the flags, and XLA stops at one it does not know
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # set before the test processes start, which share what each compiles
    programs = tempfile.TemporaryDirectory(prefix="broadsheet-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# test processes share the processor already, and threads that wait for each other spin
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
if "numpy" in sys.modules:  # a plugin of pytest's has loaded it before, with a thread for each processor
    threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]), user_api="blas")
os.environ.setdefault("MALLOC_ARENA_MAX", "4")  # a compiler's many threads would each keep memory of their own

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder of the test's own."""
    place = tmp_path / "home"
    monkeypatch.setenv("BROADSHEET_HOME", str(place))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    return place


@pytest.fixture(scope="session")
def browser():
    """Chromium through Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not here: pip install '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is not here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> str:
    """The address of a PostgreSQL server of the test session's own."""
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL is not here: pip install '.[dev,postgres]'")
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not here: pip install '.[postgres]'")
    place = tmp_path_factory.mktemp("postgres")
    for folder in (place.parent.parent, place.parent):
        folder.chmod(0o755)  # the server runs as a user of its own
    made = pgserver.get_server(place, cleanup_mode="delete")
    yield made.get_uri()
    made.cleanup()


@pytest.fixture(scope="session")
def kill_server():
    """A function that kills the PostgreSQL server of a folder and clears away what it leaves, so that another can be started.

    It waits for the server's children: until they let go of its memory, no other server takes the folder.
    """

    def kill(place: Path) -> None:
        import pgserver
        import psutil

        postmaster = psutil.Process(int((place / "postmaster.pid").read_text().splitlines()[0]))
        family = [*postmaster.children(), postmaster]
        postmaster.kill()
        until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family))
        for left in (place / "postmaster.pid", *place.glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)
        pgserver.PostgresServer._instances.pop(place, None)

    return kill


@pytest.fixture
def database(postgres) -> str:
    """The address of an empty PostgreSQL database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address, _, options = postgres.partition("?")
    return f"{address.rpartition('/')[0]}/{name}" + (f"?{options}" if options else "")


@pytest.fixture(params=["sqlite", "postgresql"])
def any_home(request, home, monkeypatch) -> Path:
    """A home folder whose store is SQLite, then one whose store is PostgreSQL."""
    if request.param == "postgresql":
        monkeypatch.setenv("BROADSHEET_DATABASE", request.getfixturevalue("database"))
    return home


gc.disable()  # what is imported stays: the collector need not look at it


def pytest_collection_finish(session):
    """Nor need it afterwards, and less often at the many small objects of traces."""
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    gc.enable()


@pytest.fixture(autouse=True)
def settled_imports():
    """A trainer collects garbage as it begins, and need not look through TRL and what it imports, which tests load on their way."""
    before = "trl" in sys.modules
    yield
    if not before and "trl" in sys.modules:
        gc.collect()
        gc.freeze()


MAPPINGS = 40_000
"""Mappings of memory from which on compiled programs are dropped; Linux gives a process 65 530, and XLA dies without."""


SECONDS = 5.0
"""Between two looks, as a look takes some 40 ms; nothing compiles fast enough to fill the rest meanwhile."""
looked = time.monotonic()


@pytest.fixture(autouse=True)
def room_for_programs():
    global looked
    yield
    maps = Path("/proc/self/maps")
    if "jax" not in sys.modules or not maps.exists() or time.monotonic() < looked + SECONDS:
        return
    if maps.read_bytes().count(b"\n") > MAPPINGS:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps what was freed
            trim(0)
    looked = time.monotonic()
