"""The short form of the kills; `make soak` is the long one."""

import shutil

from kills import Matrix, short_folder


def test_a_few_kills_lose_and_leave_nothing():
    place = short_folder()
    matrix = Matrix(place, seed=3, worlds=("sqlite",))
    try:
        matrix.go(4, ["verify", "run", "import", "runner"])
        matrix.finish()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert matrix.wrong == []
