"""Numbers of a bounded size: rational ones exactly, others to 60 digits; what would be larger has no value.

So that a power tower, a factorial of a factorial or an argument of a thousand digits costs no time.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from broadsheet.errors import InputError

BITS = 20_000
"""Size of numerators and denominators."""
LARGEST = 2000.0
"""Logarithm of the largest irrational number."""
DIGITS = 60
AGREE = "1e-45"
"""How far apart irrational numbers may be, relative to the larger, or absolutely below 1."""

_mine = threading.local()


class NoValue(InputError):
    """A text that is no expression, or one whose value is not worked out here."""


def arithmetic() -> Any:
    """mpmath with 60 digits, whatever precision others have set for theirs; one a thread."""
    from mpmath.ctx_mp import MPContext

    if not hasattr(_mine, "arithmetic"):
        _mine.arithmetic = MPContext()
        _mine.arithmetic.dps = DIGITS
    return _mine.arithmetic


def inexact(value: Any) -> Any:
    """A rational number with 60 digits; others as they are."""
    return arithmetic().mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def agree(first: Any, second: Any) -> bool:
    """Whether two values are one: exactly, where both are rational."""
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    first, second = inexact(first), inexact(second)
    return bool(abs(first - second) <= arithmetic().mpf(AGREE) * max(1, abs(first), abs(second)))


def held(value: Any) -> Any:
    """The value; raises `NoValue` where it is too large, or too small, to go on with."""
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
            raise NoValue("a number is too long")
        return value
    size = abs(value)
    if not arithmetic().isfinite(size) or (size and abs(arithmetic().mag(size)) > LARGEST / math.log(2)):
        raise NoValue("a number is too large")
    return value


def bounded(value: Any, most: float) -> Any:
    """The value; raises `NoValue` where it is larger than `most`."""
    if abs(value) > most:
        raise NoValue("a number is too large")
    return value


def combined(operation: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    """A sum, difference, product or quotient."""
    if not (isinstance(one, Fraction) and isinstance(other, Fraction)):
        one, other = inexact(one), inexact(other)
    return held(operation(one, other))


def power(base: Any, exponent: Any) -> Any:
    """The principal value; of 0 for whole exponents alone."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        count = exponent.numerator
        if abs(count) * max(base.numerator.bit_length(), base.denominator.bit_length()) <= BITS:
            return base**count
        if base in (1, -1) or (base == 0 and count > 0):
            return base ** (2 - count % 2)
        raise NoValue("a number is too long")
    base = inexact(base)
    if not base:
        raise NoValue("a power of 0")
    return held(arithmetic().exp(bounded(inexact(exponent) * arithmetic().log(base), LARGEST)))


def factorial(value: Any) -> Any:
    """Of whole numbers to 1000 exactly, of others to 300 by the gamma function."""
    if isinstance(value, Fraction) and value.denominator == 1 and value >= 0:
        return Fraction(math.factorial(int(bounded(value, 1000))))
    return held(arithmetic().gamma(bounded(inexact(value), 300) + 1))


def binomial(n: Any, k: Any) -> Any:
    """Of whole numbers from 0 to 1000."""
    if not all(isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 1000 for value in (n, k)):
        raise NoValue("a binomial of other numbers than 0 to 1000")
    return Fraction(math.comb(int(n), int(k)))


def rounded(value: Any, up: bool) -> Any:
    """The whole number below a real one, or above it."""
    if isinstance(value, Fraction):
        return Fraction(math.ceil(value) if up else math.floor(value))
    if value.imag:
        raise NoValue("a complex number is rounded")
    return Fraction(int((arithmetic().ceil if up else arithmetic().floor)(value.real)))


def drawn(name: str, point: int) -> Any:
    """A complex number that depends on a name and the point alone."""
    draw = random.Random(f"{point} {name}")
    return arithmetic().mpc(draw.uniform(-2, 2), draw.uniform(-2, 2))
