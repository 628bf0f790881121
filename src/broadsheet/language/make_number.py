"""A task with many right answers: write a sum, a difference or a product of two digits that makes a given number.

Answers are a digit, a sign and a digit. Which answers mean the same is known exactly, 3+4 and 4+3, so that the number of
different right answers is too. Where a plus may be written in several ways, answers differ in wording and not in meaning.
"""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np

from broadsheet.errors import InputError
from broadsheet.language.closed_tasks import ClosedTask

NUMBERS = range(1, 10)
MANY_WORDS = "+plusand"
"""Eight ways to write a plus."""


class MakeNumber(ClosedTask):
    """`7=` is to be completed: any answer that makes 7 is as good as another.

    **Arguments:** `plus`: the characters that stand for a plus; more than one makes room for wordings of the same meaning.

    **Raises:** `InputError` for a plus that is another sign, or twice the same.
    """

    prompts = tuple(f"{number}=" for number in NUMBERS)

    def __init__(self, plus: str = "+") -> None:
        if not plus or len(set(plus)) < len(plus) or set(plus) & set("-*0123456789"):
            raise InputError(f"plus is {plus!r}; different characters are wanted, none of them -, * or a digit.")
        self.plus = plus

    @property
    def signs(self) -> str:
        """All signs, as they are written."""
        return self.plus + "-*"

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """All answers, right and wrong."""
        return tuple(f"{a}{sign}{b}" for sign in self.signs for a in range(10) for b in range(10))

    @cached_property
    def _form(self) -> re.Pattern[str]:
        return re.compile(f"([0-9])([{re.escape(self.signs)}])([0-9])", re.ASCII)

    def parsed(self, answer: str) -> tuple[int, str, int] | None:
        """(digit, sign, digit) of an answer, any plus as +, or None where it is none."""
        found = self._form.fullmatch(answer)
        return (int(found[1]), "+" if found[2] in self.plus else found[2], int(found[3])) if found else None

    def makes(self, answer: str) -> int | None:
        """The number that an answer makes, or None where it is no answer."""
        found = self.parsed(answer)
        if found is None:
            return None
        one, sign, other = found
        return one + other if sign == "+" else one - other if sign == "-" else one * other

    def meaning(self, answer: str) -> str | None:
        """The class of an answer: its sign and its digits, in order where the sign is a minus; None where it is no answer."""
        found = self.parsed(answer)
        if found is None:
            return None
        one, sign, other = found
        if sign != "-":
            one, other = sorted((one, other))
        return f"{one}{sign}{other}"

    def score(self, prompt: str, answer: str) -> float:
        """1 for an answer that makes the number of the prompt, else 0."""
        return float(self.makes(answer) == int(prompt[:-1]))

    def demonstrations(self, count: int, seed: int, right: float = 0.6) -> list[tuple[str, str]]:
        """Digits and sign are drawn evenly, of what is right or of all; then how a plus is written."""
        rng, plain = np.random.default_rng(seed), MakeNumber()
        right_ones = {prompt: [a for a in plain.answers if plain.score(prompt, a)] for prompt in self.prompts}
        found = []
        for _ in range(count):
            prompt = self.prompts[rng.integers(len(self.prompts))]
            of = right_ones[prompt] if rng.random() < right else plain.answers
            answer = of[rng.integers(len(of))]
            found.append((prompt, answer.replace("+", self.plus[rng.integers(len(self.plus))])))
        return found

    def labelled_pairs(self, count: int, seed: int) -> tuple[list[tuple[str, str]], list[int]]:
        """Pairs of answers and whether they mean the same (1) or not (0), half of each; texts of a pair differ.

        What means something else differs in a sign, in a digit, in all, or in the order around a minus.
        """
        rng = np.random.default_rng(seed)
        pairs: list[tuple[str, str]] = []
        while len(pairs) < count:
            a, b, c, d = map(int, rng.integers(0, 10, 4))
            sign, other, plus = (self.signs[rng.integers(len(self.signs))] for _ in range(3))
            first = f"{a}{sign}{b}"
            alike = plus if sign in self.plus else sign
            kinds = (f"{c}{other}{d}", f"{b}{other}{a}", f"{a}{sign}{d}", f"{c}{sign}{b}", f"{b}{sign}{a}", f"{b}{alike}{a}")
            second = kinds[rng.integers(len(kinds))]
            if first != second and (self.meaning(first) == self.meaning(second)) == len(pairs) % 2:
                pairs.append((first, second))
        pairs = [pairs[k] for k in rng.permutation(count)]
        return pairs, [int(self.meaning(one) == self.meaning(other)) for one, other in pairs]
