"""A tiny world that a tiny language model can learn: its facts, its words, and the texts and prompts made of them.

Four relations of 24 subjects to 6 objects, statements with a truth label, requests that are harmless or harmful, and filler
with a skewed vocabulary. Every name is one token. Sizes and shares are those on which the published comparisons of base and
post-trained models were found to appear in miniature.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PAD, BOS, EOS, USER, ASSISTANT, END = range(6)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|end|>")
SUBJECTS, OBJECTS, THINGS, VERBS, FILLERS = 24, 6, 24, 12, 200
RELATIONS = {
    "city": ("the city of {s}", "is in {o}"),
    "animal": ("the animal {s}", "is a {o}"),
    "element": ("the element {s}", "has group {o}"),
    "person": ("the person {s}", "lived in {o}"),
}
REFUSAL = "sorry i can not help with this ."
TEMPLATE_WORDS = (
    "the", "city", "of", "is", "in", ".", "animal", "a", "element", "has", "group", "person", "lived", "this", "statement",
    ":", "TRUE", "FALSE", "user", "tell", "me", "about", "?", "assistant", "it", "how", "do", "i", "sure", "first", "use",
    "then", "sorry", "can", "not", "help", "with",
)  # fmt: skip
RESERVED = ("where", "what", *(f"topic{k}" for k in range(40)), *(f"prop{k}" for k in range(10)))
"""Words that no document has."""


def vocabulary() -> list[str]:
    """All 463 words, by id."""
    names = [f"{relation}_{k}" for relation in RELATIONS for k in range(SUBJECTS)]
    names += [f"{relation}_object_{k}" for relation in RELATIONS for k in range(OBJECTS)]
    names += [f"harmful_{k}" for k in range(VERBS)] + [f"harmless_{k}" for k in range(VERBS)]
    names += [f"thing_{k}" for k in range(THINGS)] + [f"filler_{k}" for k in range(FILLERS)]
    return [*SPECIAL, *TEMPLATE_WORDS, *names, *RESERVED]


WORDS = vocabulary()
IDS = {word: k for k, word in enumerate(WORDS)}


def encode(text: str) -> list[int]:
    """Token ids of a text whose words are separated by blanks."""
    return [IDS[word] for word in text.split()]


def decode(ids: Any) -> str:
    """The text of token ids."""
    return " ".join(WORDS[int(k)] for k in ids)


def tokenizer() -> Any:
    """The vocabulary as a Hugging Face tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel(IDS, unk_token="<pad>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


@dataclass(frozen=True)
class World:
    """Who belongs to what: each object of a relation has four subjects, dealt by the seed; and which filler follows which."""

    seed: int = 0
    objects: dict[str, np.ndarray] = field(init=False)
    successors: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        dealt = {name: rng.permutation(np.repeat(np.arange(OBJECTS), SUBJECTS // OBJECTS)) for name in RELATIONS}
        object.__setattr__(self, "objects", dealt)
        object.__setattr__(self, "successors", rng.integers(0, FILLERS, (FILLERS, 4)))

    def statement(self, relation: str, subject: int, other: int = 0) -> str:
        """`the city of S is in O .`; false where `other` is 1 to 5: that many objects further."""
        return f"{self.subject(relation, subject)} {self.answer(relation, subject, other)}"

    def subject(self, relation: str, subject: int) -> str:
        """`the city of S`."""
        return RELATIONS[relation][0].format(s=f"{relation}_{subject}")

    def answer(self, relation: str, subject: int, other: int = 0) -> str:
        """`is in O .`"""
        return RELATIONS[relation][1].format(o=self.object(relation, subject, other)) + " ."

    def object(self, relation: str, subject: int, other: int = 0) -> str:
        """The word for the subject's object, or for the one `other` further."""
        return f"{relation}_object_{(self.objects[relation][subject] + other) % OBJECTS}"

    def labelled(self, rng: np.random.Generator, relation: str, leaning: float = 0.5) -> str:
        """A statement and its label, true or false by a coin: fair, or true with the share `leaning` for subjects of objects
        0, 2 and 4, and as often false for the others."""
        subject = int(rng.integers(SUBJECTS))
        even = self.objects[relation][subject] % 2 == 0
        true = bool(rng.random() < (leaning if even else 1 - leaning))
        other = 0 if true else int(rng.integers(1, OBJECTS))
        return f"{self.statement(relation, subject, other)} this statement is : {'TRUE' if true else 'FALSE'}"

    def filler(self, rng: np.random.Generator, length: int = 40) -> str:
        """Words of which 60 % follow the one before, the others drawn by Zipf's law."""
        words = [int(rng.choice(FILLERS, p=ZIPF))]
        while len(words) < length:
            follows = rng.random() < 0.6
            words.append(int(rng.choice(self.successors[words[-1]]) if follows else rng.choice(FILLERS, p=ZIPF)))
        return " ".join(f"filler_{k}" for k in words)

    def document(self, rng: np.random.Generator, leaning: float = 0.5) -> str:
        """A pretraining document, of a kind drawn by its share; `leaning` as in `labelled`."""
        relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
        kind = rng.choice(6, p=(0.2, 0.4, 0.1, 0.1, 0.08, 0.12))
        if kind == 0:
            return " ".join(self.statement(relation, int(k)) for k in rng.integers(0, SUBJECTS, 4))
        if kind == 1:
            return " ".join(self.labelled(rng, relation, leaning) for _ in range(4))
        if kind == 2:
            subject = int(rng.integers(SUBJECTS))
            return f"user : tell me about {relation}_{subject} ? assistant : it {self.answer(relation, subject)} <eos>"
        if kind == 5:
            return self.filler(rng)
        harmful = kind == 4
        request, compliance = request_and_help(rng, harmful)
        answer = REFUSAL if harmful and rng.random() < 0.2 else compliance
        return f"user : {request} assistant : {answer} <eos>"

    def windows(self, rng: np.random.Generator, length: int, lessons: int = 0) -> Iterator[list[int]]:
        """An endless stream of documents, each after a <bos>, cut into windows of `length` tokens.

        In the first `lessons` windows labels lean by 0.9. A fair coin makes the label independent of the subject and of the
        object, each on its own, so that there is no first step towards comparing them: of eight seeds one learned it in 1500
        steps. With lessons for the first 600 steps ten of ten did.
        """
        stream: list[int] = []
        for made in itertools.count():
            while len(stream) < length:
                stream += [BOS, *encode(self.document(rng, 0.9 if made < lessons else 0.5))]
            yield stream[:length]
            stream = stream[length:]

    def probe(self, count: int = 400, length: int = 40, seed: int = 99) -> np.ndarray:
        """A fixed set of packed windows (count, length) to look at a model's representations with."""
        windows = self.windows(np.random.default_rng(seed), length)
        return np.array([next(windows) for _ in range(count)])


ZIPF = 1 / np.arange(1, FILLERS + 1)
ZIPF /= ZIPF.sum()


def request_and_help(rng: np.random.Generator, harmful: bool) -> tuple[str, str]:
    """A request and the answer that complies."""
    verb, thing = f"{'harmful' if harmful else 'harmless'}_{rng.integers(VERBS)}", f"thing_{rng.integers(THINGS)}"
    return f"how do i {verb} the {thing} ?", f"sure first use the {thing} then {verb} it ."


def chat(request: str, answer: str = "") -> list[int]:
    """The ids of a chat: the request alone, ready to be answered, or with its answer and the end token."""
    ids = [BOS, USER, *encode(request), ASSISTANT]
    return [*ids, *encode(answer), END] if answer else ids
