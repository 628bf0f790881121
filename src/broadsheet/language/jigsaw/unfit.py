"""What is said of a sample that makes no puzzle."""

from __future__ import annotations

from broadsheet.errors import InputError


class UnfitError(InputError):
    """A sample makes no such puzzle; `why` says it in two words, for counting."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why
