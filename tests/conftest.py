import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # tests compile much and compute little


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder of the test's own."""
    place = tmp_path / "home"
    monkeypatch.setenv("BROADSHEET_HOME", str(place))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    return place


MAPPINGS = 25_000
"""Mappings of memory from which on compiled programs are dropped; Linux gives a process 65 530, and XLA dies without."""


@pytest.fixture(autouse=True)
def room_for_programs():
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > MAPPINGS:
        sys.modules["jax"].clear_caches()
        gc.collect()
