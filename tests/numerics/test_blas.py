"""One thread inside, as many as before outside, whichever thread asks."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from broadsheet.numerics.blas import one_thread


def threads():
    """Of each BLAS that has threads: PySCF brings one of its own, built without."""
    return {
        pool["num_threads"]
        for pool in threadpool_info()
        if pool["user_api"] == "blas" and pool.get("threading_layer") != "disabled"
    }


def seen(_=None):
    with one_thread():
        with one_thread():
            inner = threads()
        return inner | threads()


def test_one_thread_inside_and_all_given_back():
    before = threads()
    with threadpool_limits(2, user_api="blas"):
        assert seen() == {1}
        assert threads() == {2}
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert threads() == {2}
        with one_thread(when=False):
            assert threads() == {2}
    assert threads() == before


def test_threads_take_turns():
    before = threads()
    with ThreadPoolExecutor(4) as pool:
        assert all(found == {1} for found in pool.map(seen, range(40)))
    assert threads() == before
