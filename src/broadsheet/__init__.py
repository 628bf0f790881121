"""A page of daily papers, running: every paper a system to import, run, check and build on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broadsheet.lab.api import LoadedPaper

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(slug: str) -> LoadedPaper:
    """A paper by its short name, ready to run: `broadsheet.load("elm-neuron").run(preset="quick", seed=0)`.

    **Raises:** `broadsheet.errors.InputError` where no such paper runs here.
    """
    from broadsheet.lab.api import LoadedPaper

    return LoadedPaper(slug)
