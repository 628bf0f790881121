from pathlib import Path

import pytest

from broadsheet.language.tiny_chain import read_model

SHIPPED = Path(__file__).parents[1] / "references" / "tiny_chain"


@pytest.fixture(scope="session")
def base():
    """The tiny model of seed 7 after pretraining, built elsewhere and shipped with the tests."""
    return read_model(SHIPPED / "base.safetensors")


@pytest.fixture(scope="session")
def shipped() -> Path:
    return SHIPPED
