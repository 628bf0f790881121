"""The Hugging Face Hub, or at once what this machine has of it where the Hub does not answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import datasets
from huggingface_hub import constants

from broadsheet.language.models import _reachable


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Data sets are looked for in the cache on this machine alone where the Hub does not answer within seconds."""
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not _reachable():
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
