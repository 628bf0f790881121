import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def toy(home, monkeypatch):
    """The entry of the toy paper, importable here and in workers."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    sys.modules.pop("toy", None)
    import toy as module

    from broadsheet.lab.registry import describe

    return describe(module.paper, "toy")


@pytest.fixture
def store(any_home):
    from broadsheet.lab.store import Store

    return Store()
