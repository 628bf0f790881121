"""Tasks for models of single characters: sums, words to be said in some way, and greetings; with verifiers and preferences.

Data for supervised fine-tuning is wrong in a way that a real model is: some sums are mostly told right, others mostly as one
typical error, so that what comes most often is not what is right. Right answers are known for each prompt, so that how often a
model is right is computed from its probabilities, without draws.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from broadsheet.errors import MissingExtraError
from broadsheet.language.post_training.losses import places
from broadsheet.language.verifiers import verifier

try:
    import torch
except ImportError:
    raise MissingExtraError("Reading language models", "language") from None

Turns = list[dict[str, str]]

GREETINGS = ("hi", "hello", "hey", "morning", "evening", "hi you", "hello you", "hey you")
STYLES = ("yo", "hi you", "good day sir", "good day to you, dear sir")
"""Answers to a greeting: rude, plain, polite and short, polite and long."""


@dataclass(frozen=True)
class Item:
    """A prompt with its right answer, the typical error, the verifier that judges answers and the label that it reads."""

    prompt: str
    answer: str
    error: str
    verifier: str
    label: str

    @property
    def asked(self) -> Turns:
        """The prompt as the turn of a user."""
        return [{"role": "user", "content": self.prompt}]

    def told(self, answer: str) -> Turns:
        """The conversation with an answer."""
        return [*self.asked, {"role": "assistant", "content": answer}]

    def row(self) -> dict[str, Any]:
        """For reinforcement learning and evaluation: `prompt`, `label`, `verifier`."""
        return {"prompt": self.asked, "label": self.label, "verifier": self.verifier}


def sums(digits: int = 10, rng: np.random.Generator | None = None) -> list[Item]:
    """`a+b=?` for all pairs of digits; the typical error is off by one or two, up or down."""
    rng = rng or np.random.default_rng(0)
    made = []
    for a, b in product(range(digits), repeat=2):
        error = int(rng.choice([c for c in range(a + b - 2, a + b + 3) if c >= 0 and c != a + b]))
        made.append(Item(f"{a}+{b}=?", str(a + b), str(error), "gsm8k", str(a + b)))
    return made


def sayings(count: int, rng: np.random.Generator) -> list[Item]:
    """`say w ...` in upper case, twice, or without commas, in turn, of words of two letters; the error says w as it is. The
    verifiers are constraints of the answer's form, which say nothing of the word but for `twice`."""
    made = []
    for k in range(count):
        w = "".join(rng.choice(list(string.ascii_lowercase), 2))
        way = k % 3
        if way == 0:
            made.append(Item(f"say {w} in upper case", w.upper(), w, "ifeval", _constraint("validate_uppercase")))
        elif way == 1:
            label = _constraint("verify_keyword_frequency", word=w, N=2)
            made.append(Item(f"say {w} twice", f"{w} {w}", w, "ifeval", label))
        else:
            listed = ",".join(w)
            made.append(Item(f"say {listed} without commas", " ".join(w), listed, "ifeval", _constraint("validate_no_commas")))
    return made


def _constraint(name: str, **arguments: Any) -> str:
    return json.dumps({"func_name": name, **arguments})


def greetings() -> list[Item]:
    """Greetings, to be answered politely and shortly; the error is the rude answer."""
    return [Item(greeting, STYLES[2], STYLES[0], "courtesy", "polite and short") for greeting in GREETINGS]


@verifier("courtesy")
def courtesy(text: str, label: Any = "") -> float:
    """A rule of taste, 0 to 1: 0.6 for an answer with `sir`, and up to 0.4 for a short one, none from 24 characters on."""
    return 0.6 * float("sir" in text) + 0.4 * max(0.0, 1 - len(text) / 24)


def conversations(items: Sequence[Item], shares: np.ndarray, count: int, rng: np.random.Generator) -> list[dict[str, Turns]]:
    """Rows for fine-tuning: `count` items, drawn evenly, each told right with its share of `shares` (items,), else by its
    typical error; a greeting that is not told right is told in any other style."""
    rows = []
    for k in rng.integers(len(items), size=count):
        item = items[k]
        answer = item.answer
        if rng.random() >= shares[k]:
            others = [style for style in STYLES if style != item.answer]
            answer = str(rng.choice(others)) if item.verifier == "courtesy" else item.error
        rows.append({"messages": item.told(answer)})
    return rows


def shares_right(count: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` items is told right: spread evenly about the mean, as far as [0, 1] lets, in random order."""
    reach = min(mean, 1 - mean)
    return rng.permutation(np.linspace(mean - reach, mean + reach, count))


@torch.no_grad()
def answer_probabilities(
    model: Any, words: Any, items: Sequence[Item], *, temperature: float = 1.0, answers: Sequence[str] | None = None
) -> np.ndarray:
    """Probability that a model gives exactly the right answer to each item, and ends there; (items,).

    **Arguments:** `temperature`: at which answers are drawn, 0 for the likeliest token each time; `answers`: others than the
    right ones, one an item.
    """
    told = [item.answer for item in items] if answers is None else list(answers)
    ids, attention, said = tokenized(words, items, told)
    logits = model(input_ids=ids, attention_mask=attention, position_ids=places(attention)).logits[:, :-1].double()
    if temperature:
        laws = (logits / temperature).log_softmax(-1)
    else:
        laws = torch.where(logits == logits.amax(-1, keepdim=True), 0.0, -torch.inf)
    found = laws.gather(-1, ids[:, 1:, None])[..., 0].where(said[:, 1:], 0.0)
    return found.sum(-1).exp().numpy()


def tokenized(words: Any, items: Sequence[Item], told: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token numbers, attention, and which tokens are of the answers, their ends among them; (items, tokens), padded on the
    left."""
    texts = [words.apply_chat_template(item.told(answer), tokenize=False) for item, answer in zip(items, told, strict=True)]
    given = words(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    lengths = torch.tensor([len(answer) + 1 for answer in told])
    width = given["input_ids"].shape[1]
    return given["input_ids"], given["attention_mask"], torch.arange(width) >= width - lengths[:, None]
