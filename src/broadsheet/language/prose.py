"""Real prose: docstrings of installed packages, which every machine has; WikiText; and a tokenizer learned from texts."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from broadsheet.errors import DataError, InputError, MissingDataError

PACKAGES = ("numpy", "scipy", "sklearn", "torch")
SHORTEST = 200
"""Characters of a docstring that is worth reading."""


def docstrings(packages: Sequence[str] = PACKAGES, *, characters: int = 200_000) -> list[str]:
    """Docstrings of at least 200 characters, each once, an equal share of `characters` from each package.

    Source files are read, in an order that looks random and is always the same; nothing is imported.

    **Raises:** `MissingDataError` for a package that is not installed.
    """
    texts: dict[str, None] = {}
    for package in packages:
        left = characters / len(packages)
        for text in _of(package):
            if len(text) >= SHORTEST and text not in texts:
                texts[text] = None
                left -= len(text)
            if left <= 0:
                break
    return sorted(texts, key=_order)


def _of(package: str) -> Iterator[str]:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingDataError(f"The package {package} is not installed; its docstrings are wanted as texts.")
    root = Path(next(iter(found.submodule_search_locations)))
    for file in sorted(root.rglob("*.py"), key=lambda file: _order(str(file.relative_to(root)))):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # templates, and tests of what does not parse
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def _order(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wikitext(folder: str | Path, part: str, *, characters: int) -> list[str]:
    """Paragraphs of WikiText up to so many characters, from its archive's `wiki.train.raw` or `wiki.train.tokens`.

    **Arguments:** `part`: `"train"`, `"valid"` or `"test"`.

    **Raises:** `MissingDataError` where the file is missing, `DataError` where it is no text or holds no paragraph.
    """
    files = [Path(folder) / f"wiki.{part}.{ending}" for ending in ("raw", "tokens")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise MissingDataError(f"{folder} holds no {files[0].name} or {files[1].name}; WikiText-103's archive has them.")
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(characters)
    except UnicodeDecodeError:
        raise DataError(f"{file} is no text in UTF-8.") from None
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("= ")]
    if not found:
        raise DataError(f"{file} holds no paragraph.")
    return found


def learn_tokenizer(texts: Sequence[str], words: int) -> Any:
    """A byte-level BPE tokenizer of at most so many words, learned from texts; `<|endoftext|>` ends one."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(texts, vocab_size=words, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="<|endoftext|>")


def rows_of_tokens(words: Any, texts: Sequence[str], length: int) -> torch.Tensor:
    """Texts one behind the other, each ended by the tokenizer's end of text where it has one, cut into rows (rows, length).

    **Raises:** `InputError` where there is no whole row.
    """
    end = [] if words.eos_token_id is None else [words.eos_token_id]
    ids = [token for row in words(list(texts), add_special_tokens=False)["input_ids"] for token in (*row, *end)]
    if len(ids) < length:
        raise InputError(f"The texts have {len(ids)} tokens, fewer than a row of {length}.")
    return torch.tensor(ids[: len(ids) // length * length]).reshape(-1, length)
