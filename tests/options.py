"""What a function or class takes where nothing is said."""

import inspect
from collections.abc import Callable
from typing import Any


def options(made: Callable) -> dict[str, Any]:
    """Names of the arguments that may be left out, but for those that are None then, with what stands for them."""
    given = inspect.signature(made).parameters.values()
    return {each.name: each.default for each in given if each.default is not each.empty and each.default is not None}
