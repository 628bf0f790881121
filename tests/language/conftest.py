from pathlib import Path

import pytest
from safetensors.torch import load_file

from broadsheet.language.tiny_model import tiny_model

SHIPPED = Path(__file__).parents[1] / "references" / "tiny_chain"


@pytest.fixture(scope="session")
def shipped():
    """The model of a stage of the tiny chain of seed 7, built elsewhere and shipped with the tests."""

    def read(stage: str):
        model = tiny_model(0)
        model.load_state_dict(load_file(SHIPPED / f"{stage}.safetensors"))
        return model.eval()

    return read


@pytest.fixture(scope="session")
def base(shipped):
    """That after pretraining."""
    return shipped("base")


@pytest.fixture(scope="session")
def record() -> Path:
    """What is on record of that chain."""
    return SHIPPED / "record.json"
