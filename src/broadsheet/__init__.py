"""A page of daily papers, running: every paper a system to import, run, check and build on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broadsheet.lab.api import LoadedPaper

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(slug: str) -> LoadedPaper:
    """A paper by its short name, ready to run: `broadsheet.load("elm-neuron").run(preset="quick", seed=0)`.

    **Example:**

        >>> paper = load("sdr-dendrites")
        >>> paper.facts["arxiv"]
        '1601.00720'
        >>> arms = paper.run("theory", preset="smoke")["theory"]["system"].arms
        >>> {arm: metrics["worst_z"] < 4 for arm, metrics in arms.items() if "worst_z" in metrics}  # the control misses
        {'system': True, 'strict': False}

    **Raises:** `broadsheet.errors.InputError` where no such paper runs here.
    """
    from broadsheet.lab.api import LoadedPaper

    return LoadedPaper(slug)
