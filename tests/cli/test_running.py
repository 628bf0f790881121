"""What `run` does with settings that a variant sets too, and with values that do not fit."""

import json
from pathlib import Path

import pytest

from broadsheet.lab.jobs import Jobs
from broadsheet.lab.store import Store
from commands import call

ONLINE = ("run", "sdr-dendrites", "-e", "online", "-p", "smoke", "--seed", "3")
CLASSIFY = ("run", "sdr-dendrites", "-e", "classify", "-p", "smoke", "--seed", "3")


def rows_of(*words):
    """Rows of a run, what it said beside them, and the configurations that the runs themselves recorded."""
    done = call(*words, "--json")
    rows = json.loads(done.stdout)
    return rows, done.stderr, [json.loads((Path(row["folder"]) / "run.json").read_text())["config"] for row in rows]


def test_every_row_of_a_sweep_has_the_value_that_its_run_had(home):
    """`low-threshold` is theta=2: with a theta of the user's own nothing of it is left."""
    rows, said, configs = rows_of(*ONLINE, "--sweep", "theta=2,8")
    assert [row["set"]["theta"] for row in rows] == [config["theta"] for config in configs] == [2] * 4 + [8] * 4
    assert {row["variant"] for row in rows} == {"system", "dense", "correlated", "digits"}
    assert len({row["id"] for row in rows}) == len(rows)
    assert said.strip() == "online: 'low-threshold' is left out with theta=2 and with theta=8: that is the system itself."


def test_a_setting_beats_one_of_a_variants_and_the_others_stay(home):
    """`poirazi-mel` sets the source, the nonlinearity and sizes."""
    rows, said, (config,) = rows_of(*CLASSIFY, "--variant", "poirazi-mel", "--set", "neurons=7")
    assert (rows[0]["variant"], rows[0]["set"]) == ("poirazi-mel", {"neurons": 7})
    assert (config["neurons"], config["source"], config["nonlinearity"]) == (7, "poirazi-mel", "power")
    assert said == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--variant", "low-threshold", "--set", "theta=8"),
            "with theta=8 the variant 'low-threshold' is the same as the system",
        ),
        (("--set", "source=banana"), "online: source is 'banana'; one of random, correlated, digits is wanted."),
        (("--sweep", "noise=0.1,nan"), "online: noise is 'nan'; a finite number is wanted."),
        (("--set", "segments=none"), "online: segments is 'none'; a whole number is wanted."),
    ],
)
def test_what_does_not_fit_is_refused_before_any_job(home, words, says):
    done = call(*ONLINE, *words, code=2)
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert Jobs(Store()).recent() == []
