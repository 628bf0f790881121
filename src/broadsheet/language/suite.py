"""A base model and what was post-trained from it, with one tokenizer: loaded when they are asked for, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from broadsheet.errors import InputError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Report
from broadsheet.language.models import load_on
from broadsheet.language.tiny_chain import Recipe, tiny_chain


class Suite:
    """Models by name, the base first; `suite[name]` is one of them, in evaluation mode.

    **Arguments:** `makers`: name -> what makes the model; `words`: the tokenizer of all; `keep`: how many stay in memory.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]], words: Any, *, keep: int = 1) -> None:
        self.makers, self.words, self.keep = dict(makers), words, keep
        self._made: dict[str, Any] = {}

    @classmethod
    def tiny(cls, seed: int, *, recipe: Recipe | None = None, report: Report | None = None) -> Suite:
        """Base, SFT, DPO and RL of the tiny chain of a seed."""
        chain = tiny_chain(seed, recipe=recipe or Recipe(), report=report)
        return cls({name: (lambda name=name: chain.model(name)) for name in chain.names}, tiny.tokenizer(), keep=4)

    @classmethod
    def named(cls, names: Sequence[str], *, device: str = "cpu", precision: str = "float32", keep: int = 1) -> Suite:
        """Models in folders or on the Hub, by their last names.

        **Raises:** `InputError` for a model with another tokenizer than the first, when it is loaded.
        """
        short = [name.rstrip("/").split("/")[-1] for name in names]
        if len(set(short)) < len(short):
            short = list(names)
        first, words = load_on(device, names[0], precision=precision)
        known = words.get_vocab()

        def make(name: str) -> Any:
            model, other = load_on(device, name, precision=precision)
            here = other.get_vocab()
            if differing := [word for word in known if here.get(word, known[word]) != known[word]]:
                raise InputError(f"{name} has another tokenizer than {names[0]}: {differing[0]!r} is another token there.")
            return model

        suite = cls({key: (lambda name=name: make(name)) for key, name in zip(short, names, strict=True)}, words, keep=keep)
        suite._made[short[0]] = first
        return suite

    @property
    def names(self) -> list[str]:
        return list(self.makers)

    @property
    def base(self) -> str:
        return self.names[0]

    @property
    def post(self) -> list[str]:
        """All but the base."""
        return self.names[1:]

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            while len(self._made) >= self.keep:
                self._made.pop(next(iter(self._made)))
            self._made[name] = self.makers[name]().eval()
        return self._made[name]

    def rows(self, texts: Sequence[str], *, start: bool = True) -> list[list[int]]:
        """Token ids of texts; with `start=False` without what the tokenizer puts around them."""
        return self.words(list(texts), add_special_tokens=start)["input_ids"]
