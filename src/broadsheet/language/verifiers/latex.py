"""Whether two short LaTeX expressions have one value, in a bounded time.

Both are read as SymPy's LaTeX reader reads them (letters beside each other are a product, `x(…)` is a function called x, a
command that is no operation is a symbol, π among them), and have one value where they agree for three random complex values
of their symbols: exactly, where all is rational, else to 45 digits. Nothing is simplified, and time grows with the text alone:
150 characters made for it keep math-verify's reader, built like SymPy's, busy for more than a minute. What has no value here
(relations, sets, integrals, sums, limits, infinity, numbers of more than some thousand digits) equals nothing. Unlike SymPy's
reader this one reads all of the text (there `1,2` is the number 1, and `7)` is 7), and ends a function's argument before the
next function (there `\\sin a \\cdot \\sin b` is the sine of a product).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from broadsheet.language.verifiers.bounded_values import (
    DIGITS,
    LARGEST,
    NoValue,
    agree,
    arithmetic,
    binomial,
    bounded,
    combined,
    drawn,
    factorial,
    held,
    inexact,
    power,
    rounded,
)

LONGEST = 300
"""Characters that are read."""
DEEPEST = 30
"""Brackets, roots, fractions and signs inside each other that are read."""
LARGEST_ANGLE = math.exp(60)
"""Arguments of trigonometric functions: a larger one has no digits left behind the point."""
POINTS = 3

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|d\s*(?:[A-Za-z]|\\[A-Za-z]+)|'+|[^\s]", re.DOTALL)


def _commands(names: str, before: str = "\\") -> set[str]:
    """Names parted by spaces, as LaTeX has them."""
    return {before + name for name in names.split()}


SKIPPED = _commands(r', : ; ! * - . / " ( = vrule vcenter vbox vskip vspace hfil left right') | _commands(
    "thinspace medspace thickspace quad qquad negthinspace negmedspace negthickspace"
)
CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
TIMES, OVER = {"*", r"\times", r"\cdot"}, {"/", ":", r"\div"}
FRACTIONS, BINOMIALS = _commands("frac dfrac tfrac"), _commands("binom dbinom tbinom")
LOGARITHMS = _commands("exp log lg ln")
TRIGONOMETRIC = _commands("sin cos tan csc sec cot sinh cosh tanh")
INVERSE = {name: "a" + name[4:] for name in _commands("sin cos tan csc sec cot", r"\arc")}
INVERSE |= {name: "a" + name[3:] for name in _commands("sinh cosh tanh", r"\ar")}
FUNCTIONS = LOGARITHMS | TRIGONOMETRIC | set(INVERSE)
NO_VALUE = _commands(
    "infty int sum prod lim mathit langle rangle neq lt le leq leqq leqslant gt ge geq geqq geqslant to rightarrow Rightarrow "
    "longrightarrow Longrightarrow rfloor rceil"
)


@lru_cache(4096)
def value_at(text: str, point: int) -> Any:
    """The value of an expression for the `point`-th choice of values of its symbols; None where it has none."""
    try:
        return Reader(text, point).whole()
    except (NoValue, ZeroDivisionError, ValueError, OverflowError):
        return None


def same_value(one: str, other: str) -> bool:
    """Whether two LaTeX expressions are equal for all values of their symbols, as far as three random choices tell."""
    for point in range(POINTS):
        first, second = value_at(one, point), value_at(other, point)
        if first is None or second is None or not agree(first, second):
            return False
    return True


class Reader:
    """Reads one expression and works out its value as it goes.

    **Raises:** `NoValue` for what is none.
    """

    def __init__(self, text: str, point: int = 0) -> None:
        if len(text) > LONGEST:
            raise NoValue(f"it is longer than {LONGEST} characters")
        self.tokens = [token for token in TOKEN.findall(text) if token not in SKIPPED]
        self.at = 0
        self.point = point
        self.depth = 0
        self.symbols = 0  # how many have been read
        self.bars: list[bool] = []  # whether an open bracket is a |, from the outermost

    def whole(self) -> Any:
        """The value of all of it."""
        value = self.sum()
        if self.at < len(self.tokens):
            raise NoValue(f"{self.tokens[self.at]} is left over")
        return value

    @property
    def next(self) -> str:
        """The next token; an empty one at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        """The next token, which is passed."""
        token = self.next
        if not token or (wanted and token != wanted):
            raise NoValue(f"{token or 'nothing'} in place of {wanted or 'something'}")
        self.at += 1
        return token

    def inside(self, opening: str, read: Callable[[], Any] | None = None) -> Any:
        """What stands between a bracket, which is still to be read, and the one that closes it."""
        self.take(opening)
        self.bars.append(opening == "|")
        value = self.deeper(read or self.sum)
        self.bars.pop()
        self.take(CLOSING[opening])
        return value

    def deeper(self, read: Callable[[], Any]) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NoValue("it is nested too deeply")
        value = read()
        self.depth -= 1
        return value

    def sum(self) -> Any:
        value = self.product()
        while self.next in ("+", "-"):
            sign = self.take()
            more = self.product()
            value = combined(operator.add if sign == "+" else operator.sub, value, more)
        return value

    def product(self, functions: bool = True) -> Any:
        """Factors with signs between them; without `functions` only the first may begin with one, and the next one ends it."""
        value = self.signed(functions)
        while self.next in TIMES | OVER and (functions or "".join(self.tokens[self.at + 1 : self.at + 2]) not in FUNCTIONS):
            times = self.take() in TIMES
            more = self.signed(functions)
            value = combined(operator.mul if times else operator.truediv, value, more)
        return value

    def signed(self, functions: bool) -> Any:
        if self.next in ("+", "-"):
            minus = self.take() == "-"
            value = self.deeper(lambda: self.signed(functions))
            return -value if minus else value
        return self.beside(functions)

    def beside(self, functions: bool) -> Any:
        """Factors without a sign between them; an x between two numbers is a sign."""
        found: list[tuple[Any, bool, bool]] = []  # value, whether it has symbols, whether it is the letter x
        while not found or self.goes_on(functions):
            begin, before = self.at, self.symbols
            value = self.with_factorials()
            found.append((value, self.symbols > before, self.tokens[begin : self.at] == ["x"]))
        value = found[-1][0]
        for k in range(len(found) - 2, -1, -1):
            factor, _, is_x = found[k]
            if not (k and is_x and not found[k - 1][1] and not found[k + 1][1]):
                value = combined(operator.mul, factor, value)
        return value

    def goes_on(self, functions: bool) -> bool:
        """Whether the next token begins a factor."""
        token = self.next
        if token == "|":
            return not (self.bars and self.bars[-1])
        if token in FUNCTIONS or token == r"\sqrt" or token == r"\overline":
            return functions
        return token in CLOSING or (token not in NO_VALUE | TIMES | OVER and (token.isalnum() or self.is_symbol(token)))

    def is_symbol(self, token: str) -> bool:
        return (token[:1].isascii() and token[:1].isalpha()) or (token[:1] == "\\" and token[1:2].isalpha())

    def with_factorials(self) -> Any:
        value = self.with_powers()
        while self.next == "!":
            self.take()
            value = factorial(value)
        return value

    def with_powers(self) -> Any:
        value = self.part()
        while self.next == "^":
            self.take()
            value = power(value, self.inside("{") if self.next == "{" else self.atom())
        return value

    def part(self) -> Any:
        token = self.next
        if token in (r"\lfloor", r"\lceil"):
            return rounded(self.inside(token), token == r"\lceil")
        if token == "|":
            return abs(self.inside(token))
        if token in CLOSING:
            return self.inside(token)
        if token in FUNCTIONS:
            return self.deeper(self.function)
        if token == r"\sqrt":
            self.take()
            root = self.inside("[") if self.next == "[" else Fraction(2)
            return power(self.inside("{"), combined(operator.truediv, Fraction(1), root))
        if token == r"\overline":
            self.take()
            value = self.inside("{")
            return value if isinstance(value, Fraction) else value.conjugate()
        return self.atom()

    def function(self) -> Any:
        """A function with its base, power and argument."""
        numbers, name = arithmetic(), self.take()
        base = exponent = None
        while self.next in ("_", "^"):
            place = self.take()
            value = self.inside("{") if self.next == "{" else self.digit() if self.next.isdigit() else self.atom()
            base, exponent = (value, exponent) if place == "_" else (base, value)
        argument = inexact(self.inside("(", self.first) if self.next == "(" else self.product(functions=False))
        if name == r"\exp":
            value = power(numbers.e, argument)
        elif name in LOGARITHMS:
            base = inexact(base if base is not None else Fraction(10) if name == r"\lg" else numbers.e)
            value = numbers.log(argument) / numbers.log(base)
        else:
            called = INVERSE.get(name) or name[1:]
            if exponent == -1 and name in TRIGONOMETRIC:
                called, exponent = "a" + called, None
            value = getattr(numbers, called)(bounded(argument, LARGEST if called.endswith("h") else LARGEST_ANGLE))
        return held(value) if exponent is None else power(held(value), exponent)

    def first(self) -> Any:
        """The first of values with commas between them, which is what a named function takes."""
        value = self.sum()
        while self.next == ",":
            self.take()
            self.sum()
        return value

    def atom(self) -> Any:
        """A number, a symbol or a fraction."""
        token = self.next
        if token in FRACTIONS:
            self.take()
            above, below = (self.inside("{") if self.next == "{" else self.digit() for _ in range(2))
            return combined(operator.truediv, above, below)
        if token in BINOMIALS:
            self.take()
            return binomial(self.inside("{"), self.inside("{"))
        if token.isascii() and token.isdigit():
            return self.number()
        if self.is_symbol(token) and token not in NO_VALUE | FUNCTIONS and token not in (r"\sqrt", r"\overline"):
            return self.symbol()
        raise NoValue(f"{token or 'nothing'} in place of a number or symbol")

    def digit(self) -> Fraction:
        token = self.take()
        if not (token.isascii() and token.isdigit()):
            raise NoValue(f"{token} in place of a digit")
        return Fraction(int(token))

    def number(self) -> Fraction:
        """Digits, with commas before groups of three, and behind a point."""
        digits = self.digits()
        while self.next == "," and len(group := self.ahead(1)) == 3:
            self.at += 4
            digits += group
        if self.next == "." and self.ahead(1):
            self.take()
            behind = self.digits()
            return Fraction(int(digits + behind), 10 ** len(behind))
        return Fraction(int(digits))

    def digits(self) -> str:
        found = ""
        while self.next.isascii() and self.next.isdigit():
            found += self.take()
        return found

    def ahead(self, skipped: int) -> str:
        """At most three digits behind the next tokens."""
        found = ""
        for token in self.tokens[self.at + skipped : self.at + skipped + 3]:
            if not (token.isascii() and token.isdigit()):
                break
            found += token
        return found

    def symbol(self) -> Any:
        """A letter or command, with what is below it and its primes; before a bracket, a function of what is in there."""
        name = re.sub(r"\s", "", self.take()).lstrip("\\")
        self.symbols += 1
        for _ in range(2):
            if self.next == "_":
                name += "_" + self.below()
            elif self.next.startswith("'"):
                name += self.take()
        if self.next != "(":
            return drawn(name, self.point)
        arguments = self.inside("(", self.arguments)
        shown = ",".join(arithmetic().nstr(inexact(value), DIGITS // 2) for value in arguments)
        return drawn(f"{name}({shown})", self.point)

    def arguments(self) -> list[Any]:
        found = [self.sum()]
        while self.next == ",":
            self.take()
            found.append(self.sum())
        return found

    def below(self) -> str:
        """A subscript, as it is written."""
        self.take("_")
        begin = self.at
        if self.next != "{":
            self.deeper(self.atom)
            return "".join(self.tokens[begin : self.at])
        self.inside("{")
        return "".join(self.tokens[begin + 1 : self.at - 1])
