"""What `run` does with settings that a variant sets too, and with values that do not fit."""

import json
from pathlib import Path

import pytest

from broadsheet.lab.jobs import Jobs
from broadsheet.lab.store import Store
from commands import call

ONLINE = ("run", "sdr-dendrites", "-e", "online", "-p", "smoke", "--seed", "3")
LOCKING = ("run", "dynamical-intelligence", "-e", "locking", "-p", "smoke", "--seed", "3")


def rows_of(*words):
    """Rows of a run, what it said beside them, and the configurations that the runs themselves recorded."""
    done = call(*words, "--json")
    rows = json.loads(done.stdout)
    return rows, done.stderr, [json.loads((Path(row["folder"]) / "run.json").read_text())["config"] for row in rows]


def test_every_row_of_a_sweep_has_the_value_that_its_run_had(home):
    """`uncoupled` is coupled=0: with a value of the user's own nothing of it is left."""
    rows, said, configs = rows_of(*LOCKING, "--sweep", "coupled=0,0.5")
    assert [row["set"]["coupled"] for row in rows] == [config["coupled"] for config in configs] == [0, 0.5]
    assert {row["variant"] for row in rows} == {"system"}
    assert len({row["id"] for row in rows}) == len(rows)
    assert said.strip() == "locking: 'uncoupled' is left out with coupled=0.0 and with coupled=0.5: that is the system itself."
    rows, _, configs = rows_of(*ONLINE, "--sweep", "theta=2,8")
    assert [row["set"]["theta"] for row in rows] == [config["theta"] for config in configs] == [2] * 6 + [8] * 6


def test_a_setting_beats_one_of_a_variants_and_the_others_stay(home):
    """`dense-tuned` sets the number of active cells, the threshold, and that nothing runs beside."""
    rows, said, (config,) = rows_of(*ONLINE, "--variant", "dense-tuned", "--set", "theta=7")
    assert (rows[0]["variant"], rows[0]["set"]) == ("dense-tuned", {"theta": 7})
    assert (config["theta"], config["a"], config["beside"]) == (7, 1000, False)
    assert said == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            (*LOCKING, "--variant", "uncoupled", "--set", "coupled=0.5"),
            "with coupled=0.5 the variant 'uncoupled' is the same as the system",
        ),
        ((*ONLINE, "--set", "source=banana"), "online: source is 'banana'; one of random, correlated, digits is wanted."),
        ((*ONLINE, "--sweep", "noise=0.1,nan"), "online: noise is 'nan'; a finite number is wanted."),
        ((*ONLINE, "--set", "segments=none"), "online: segments is 'none'; a whole number is wanted."),
    ],
)
def test_what_does_not_fit_is_refused_before_any_job(home, words, says):
    done = call(*words, code=2)
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert Jobs(Store()).recent() == []
