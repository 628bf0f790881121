"""Effective core potentials: which basis was made for which, and what PySCF has of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from broadsheet.errors import InputError

SHELL = 1.4
"""Of the squared atomic number: a basis whose tightest s function has a smaller exponent has no 1s shell. In PySCF's
all-electron bases it is 1.6 or more."""
FAMILIES = (
    ("ccecp28", "ccecp28"), ("ccecp36", "ccecp36"), ("ccecphe", "ccecphe"), ("ccecpreg", "ccecpreg"), ("ccecp", "ccecp"),
    ("bfd", "bfd"), ("def2m", "def2-svp"), (r"(aug)?ccpw?c?v.zpp", "cc-pvtz-pp"),
)  # fmt: skip
"""Bases whose core potentials go by another name than their own: how they begin, and that name."""
WITHOUT_EXCEPTION = ("ccecp", "bfd")
"""Families with a potential for every element, hydrogen among them."""
UNCONTRACTED, TRUNCATED = re.compile("^unc-?", re.IGNORECASE), re.compile("@.*$")
"""What PySCF reads before and after the name of a basis."""


def core_potentials(basis: str, symbols: Sequence[str]) -> dict[str, Any]:
    """The core potentials that a basis was made for, as PySCF has them, by element; nothing for all-electron elements.

    **Raises:** `InputError` naming the element that the basis lacks, or whose core potential PySCF has not.
    """
    from pyscf.gto import basis as library
    from pyscf.gto import charge

    contracted = UNCONTRACTED.sub("", basis)
    plain = TRUNCATED.sub("", contracted)
    short = re.sub(r"[-_ ()]", "", plain.lower())
    if short.startswith("gth"):
        raise InputError(f"The basis {basis!r} is made for pseudopotentials of periodic calculations, which are not here.")
    family = next((core for start, core in FAMILIES if re.match(start, short)), None)
    found: dict[str, Any] = {}
    for symbol in dict.fromkeys(symbols):
        functions = _loaded(library.load, contracted, symbol)
        if not functions:
            known = any(_loaded(library.load, contracted, other) for other in ("H", "C", "Ne", "Fe", "I", "Au"))
            what = f"The basis {basis!r} has no functions for {symbol}" if known else f"PySCF has no basis {basis!r}"
            raise InputError(f"{what}; take another.")
        potential = _loaded(library.load_ecp, plain, symbol) or (family and _loaded(library.load_ecp, family, symbol))
        exponents = [row[0] for shell in functions if shell[0] == 0 for row in shell[1:] if np.ndim(row)]
        if potential:
            found[symbol] = potential
        elif short.startswith(WITHOUT_EXCEPTION) or max(exponents, default=0.0) < SHELL * charge(symbol) ** 2:
            raise InputError(
                f"The basis {basis!r} does not describe the core of {symbol}, and PySCF has no core potential for it; "
                "take another."
            )
    return found


def _loaded(load: Callable[[str, str], Any], basis: str, symbol: str) -> Any:
    """What PySCF has of an element under a name; nothing where it does not know one of them."""
    from pyscf.lib.exceptions import BasisNotFoundError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another package may have it
        try:
            return load(basis, symbol)
        except (BasisNotFoundError, AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError):
            return None
