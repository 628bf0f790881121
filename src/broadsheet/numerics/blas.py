"""BLAS on one thread where matrices are small: threads that wait for each other make them many times slower."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import scipy.linalg  # noqa: F401  its BLAS, which is not NumPy's, is found only once it is loaded
from threadpoolctl import ThreadpoolController


@functools.cache
def _pools() -> Any:
    return ThreadpoolController().select(user_api="blas")


class _Inside:
    """How many are inside, so that the last one out gives the threads back."""

    def __init__(self) -> None:
        self.count, self.lock = 0, threading.Lock()
        self.limits: Any = None


_inside = _Inside()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Holds NumPy's and SciPy's BLAS to one thread, in all threads of the process; takes some 20 µs.

    **Example:**

        >>> import numpy as np
        >>> with one_thread():
        ...     modes = np.linalg.eigh(np.eye(3))
    """
    with _inside.lock:
        if not _inside.count:
            _inside.limits = _pools().limit(limits=1)
        _inside.count += 1
    try:
        yield
    finally:
        with _inside.lock:
            _inside.count -= 1
            if not _inside.count:
                _inside.limits.restore_original_limits()
