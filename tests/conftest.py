import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # tests compile much and compute little
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder of the test's own."""
    place = tmp_path / "home"
    monkeypatch.setenv("BROADSHEET_HOME", str(place))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    return place
