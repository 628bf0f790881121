import json
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.errors import DataError
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import (
    JobSpec,
    News,
    Progress,
    RunSpec,
    Said,
    Started,
    TaskSpec,
    Told,
    Written,
    line,
    read,
    read_line,
)
from broadsheet.lab.tables import Event, Job

text = st.text(max_size=8)
numbers = st.integers(0, 2**60)
finite = st.floats(allow_nan=False, allow_infinity=False)
settings = st.dictionaries(text, st.none() | st.booleans() | numbers | text | st.lists(numbers, max_size=2), max_size=2)
runs = st.builds(RunSpec, id=text, variant=text, seed=numbers)
own = {
    TaskSpec: st.builds(
        TaskSpec, overrides=settings, command=st.none() | settings, figures=st.none() | st.dictionaries(text, text, max_size=2),
        runs=st.lists(runs, max_size=3).map(tuple),
    ),
    Progress: st.builds(Progress, fraction=finite, metrics=st.dictionaries(text, finite, max_size=2)),
    Written: st.builds(Written, seconds=finite),
}  # fmt: skip


@pytest.mark.parametrize("family", [Told, Said, News], ids=["told", "said", "news"])
@given(data=st.data())
def test_messages_come_back_from_a_line_of_strict_json(family, data):
    kind = data.draw(st.sampled_from(get_args(family)))
    message = data.draw(own.get(kind, st.builds(kind)))
    sent = line(message)
    assert sent.count("\n") == 1
    json.loads(sent, parse_constant=pytest.fail)
    assert read_line(sent, family) == message


def test_live_metrics_that_are_not_finite_come_back_as_nan():
    again = read_line(line(Progress("x", 0.5, {"loss": math.inf, "error": 1.0})), Said)
    assert math.isnan(again.metrics["loss"])
    assert again.metrics["error"] == 1.0


jobs = st.builds(
    JobSpec, variants=st.none() | st.lists(text, min_size=1, max_size=2).map(tuple), overrides=settings,
    seeds=st.lists(numbers, min_size=1, max_size=3).map(tuple), trust=st.just(False),
)  # fmt: skip


@given(jobs)
def test_jobs_come_back_from_their_rows(job):
    assert JobSpec.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_a_row_cannot_say_that_files_are_to_be_trusted():
    job = JobSpec("toy", "coin", trust=True)
    assert "trust" not in job.to_json()
    assert JobSpec.from_json({**job.to_json(), "trust": True}).trust is False


def test_rows_of_older_stores_are_read(store):
    """Rows as they were written before jobs and events had types: of a command, and of the queue."""
    of_a_command = {
        "slug": "toy", "experiment": "coin", "preset": "quick", "variants": ["system", "fair"], "seeds": [100, 101],
        "overrides": {"bias": "0.8"}, "runs": 4,
    }  # fmt: skip
    of_the_queue = {"slug": "toy", "experiment": "coin", "preset": "quick", "seeds": [100]}
    queue = Jobs(store)
    numbers = [queue.start(JobSpec("", "")) for _ in range(2)]
    events = [
        ("start", {"id": "a", "variant": "system", "seed": 100, "done": 0, "of": 4}),
        ("progress", {"id": "a", "fraction": 0.5, "metrics": {"live": 1.0}}),
        ("run", {"id": "a", "done": 1}),
        ("figure", {"name": "heads"}),
        ("end", {"state": "done", "message": ""}),
    ]
    with store.session() as session:
        for number, row in zip(numbers, (of_a_command, of_the_queue), strict=True):
            session.get(Job, number).row = row
        session.add_all([Event(job_id=numbers[0], kind=kind, data=data) for kind, data in events])
    assert queue.job(numbers[0]).spec == JobSpec(
        "toy", "coin", "quick", ("system", "fair"), (100, 101), overrides={"bias": "0.8"}
    )
    assert queue.job(numbers[1]).spec == JobSpec("toy", "coin")
    assert queue.job(numbers[1]).spec.to_json() == of_the_queue
    said = [message for _, _, message in queue.events(0)]
    assert said[0] == Started("a", "system", 100, 0, 4)
    assert [(message.kind, message.to_json()) for message in said] == events
    assert [job.id for job in queue.recent(slug="toy")] == numbers[::-1]


def test_what_cannot_be_read_is_said():
    with pytest.raises(DataError, match="'dance' is no kind"):
        read("dance", {}, News)
    with pytest.raises(DataError, match="A start has done, id, of, seed, variant; id is not enough"):
        read("start", {"id": "x"}, News)
    for row in ({}, {"slug": "toy"}, {"slug": "toy", "experiment": "coin", "seeds": 3}):
        with pytest.raises(DataError, match="A job has"):
            JobSpec.from_json(row)
