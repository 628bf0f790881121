"""The whole answer, letter by letter."""

from __future__ import annotations

from typing import Any

from broadsheet.language.verifiers.registry import verifier


@verifier("exact")
def exact(text: str, label: Any) -> float:
    """1 where the text is the label, white space at both ends left out."""
    return float(text.strip() == str(label).strip())
