"""Jobs on their way through a runner and the engine with nothing started: what is taken from the queue, recorded and drawn."""

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from broadsheet.errors import InputError
from broadsheet.lab import api, engine, messages, runner, worker
from broadsheet.lab.paper import Report
from broadsheet.lab.registry import ExperimentEntry
from broadsheet.lab.store import Store


class Notes:
    """Jobs of a store that write down what is done with them."""

    def __init__(self, *waiting):
        self.waiting, self.done, self.stopping = list(waiting), [], []

    def claim(self):
        return self.waiting.pop(0) if self.waiting else None

    def cancelling(self):
        return self.stopping

    def end(self, job_id, state, message=""):
        self.done.append((job_id, state, message))


@pytest.fixture
def at_the_queue(monkeypatch):
    """A runner without a store: what it takes from the queue, by the numbers of jobs; `taken` are those that others run."""
    now, taken, found, cancelled = [100.0], set(), set(), []
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    made = runner.Runner(SimpleNamespace(folder=None), 2)
    made.executor = SimpleNamespace(cancel=cancelled.append)

    def prepared(entry, spec, store, priority):
        if spec.experiment == "wrong":
            raise InputError("no such experiment")
        return SimpleNamespace(spec=spec, entry=entry, experiment=SimpleNamespace(name=spec.experiment), task=None)

    monkeypatch.setattr(runner, "plan", prepared)
    monkeypatch.setattr(runner, "entry", lambda slug: SimpleNamespace(slug=slug))
    to = SimpleNamespace(
        take=lambda plan: plan.spec.seeds[0] not in taken, needed=lambda plan: plan.spec.seeds[0] not in found,
        add=lambda plan, job: f"task {job}", forgotten=[],
    )  # fmt: skip
    to.forget = to.forgotten.append

    def feed(free, *numbers, experiment="coin"):
        made.jobs = Notes(
            *(SimpleNamespace(id=k, priority=0.0, spec=messages.JobSpec("toy", experiment, seeds=(k,))) for k in numbers)
        )
        now[0] += 1.0
        return made._feed(free, to)

    return SimpleNamespace(runner=made, feed=feed, now=now, taken=taken, found=found, cancelled=cancelled, to=to)


def test_a_runner_takes_as_many_jobs_as_there_is_room_for(at_the_queue):
    q = at_the_queue
    assert q.feed(2, 1, 2, 3) == ["task 1", "task 2"]
    assert len(q.runner.jobs.waiting) == 1
    assert q.feed(0, 4) == []
    q.now[0] += 0.39
    assert q.runner._feed(2, q.to) == []  # it was asked just now
    q.now[0] += 0.02
    assert q.runner._feed(2, q.to) == ["task 4"]
    q.found.add(5)
    assert q.feed(1, 5, 6) == ["task 6"]
    assert q.runner.jobs.done == [(5, "done", "found: it was run before")]
    assert q.feed(1, 7, experiment="wrong") == []
    assert q.runner.jobs.done == [(7, "failed", "no such experiment")]
    q.runner.stop.set()
    assert q.feed(1, 8) is None


def test_a_runner_waits_for_what_others_run_but_not_for_too_much(at_the_queue):
    q = at_the_queue
    q.taken.update(range(1, 20))
    assert q.feed(2, *range(1, 20)) == []
    assert sorted(q.runner._waiting) == list(range(1, 9))  # eight at the most
    q.taken.clear()
    assert q.feed(2) == ["task 1", "task 2"]
    assert q.feed(-1) == []
    assert sorted(q.runner._waiting) == list(range(3, 9))
    assert q.runner._tasks == {1: "task 1", 2: "task 2"}
    q.runner.jobs.stopping = [1, 3]
    q.now[0] += 1.0
    assert q.runner._feed(0, q.to) == []
    assert q.cancelled == ["task 1"]
    assert q.runner.jobs.done == [(3, "cancelled", "")]
    assert 3 not in q.runner._waiting
    ended = SimpleNamespace(
        entry=SimpleNamespace(slug="toy"), experiment=SimpleNamespace(name="coin"), task=SimpleNamespace(trace="")
    )
    q.runner._tasks[9] = ended.task
    q.runner._watch(ended, messages.Recorded("x", 1))
    assert 9 in q.runner._tasks
    q.runner._watch(ended, messages.Ended("done"))
    assert set(q.runner._tasks) == {1, 2}
    q.runner._forget(q.to)
    assert (q.to.forgotten, q.runner._tasks, q.runner._waiting) == (["task 1", "task 2"], {}, {})


def test_a_page_is_queued_the_cheap_ones_first(monkeypatch):
    """As measured, else as the papers say; none of a paper that lacks an extra, and no other size."""
    known = {
        slug: SimpleNamespace(slug=slug, experiments={
            "one": ExperimentEntry("one", "", {"quick": {}}, {}, (), cost=20.0),
            "two": ExperimentEntry("two", "", {size: {}}, {}, (), cost=30.0),
        }, experiment=None)
        for slug, size in (("a", "quick"), ("b", "paper"), ("c", "quick"))
    }  # fmt: skip
    for each in known.values():
        each.experiment = each.experiments.__getitem__
    monkeypatch.setattr(runner, "entries", lambda: known)
    monkeypatch.setattr(runner, "entry", known.__getitem__)
    monkeypatch.setattr(runner, "missing_extra", lambda made: "language" if made.slug == "c" else None)
    queued = []
    jobs = SimpleNamespace(
        queue=lambda spec, priority: queued.append((spec.slug, spec.experiment, len(spec.seeds), priority)) or len(queued)
    )
    assert runner.queue_page(jobs, {("a", "two"): 5.0}) == ([1, 2, 3], {"c": "language"})
    assert queued == [("a", "one", 1, -20.0), ("a", "two", 1, -5.0), ("b", "one", 1, -20.0)]


@pytest.fixture
def recorded(toy, home):
    """The toy's coin of one seed, its runs recorded though nothing was run."""
    store = Store()
    made = engine.plan(toy, messages.JobSpec("toy", "coin"), store)
    told = replace(made.task.spec, scratch=str(store.scratch()))
    for run in made.runs:
        store.record(worker.write_run(told, run, Report({"heads": 0.9 if run.variant == "system" else 0.5}), {}, 1.0))
    return toy, store


def test_a_plan_is_a_job_with_its_runs(recorded, tmp_path):
    toy, store = recorded
    made = engine.plan(toy, messages.JobSpec("toy", "coin", seeds=(100, 101)), store)
    assert [(run.variant, run.seed) for run in made.runs] == [("system", 100), ("fair", 100), ("system", 101), ("fair", 101)]
    assert [run.seed for run in made.missing] == [101, 101]
    spec_ = made.task.spec
    assert (spec_.runs, spec_.figure_seed, spec_.preset, spec_.device, spec_.precision) == (
        tuple(made.missing), 100, "quick", "cpu", "float32",
    )  # fmt: skip
    assert (made.task.exclusive, made.task.priority, made.left_out, made.failure, spec_.trust) == (False, 0.0, {}, "", False)
    assert made.seconds == 10.0  # its cost for one seed of both variants
    once = engine.plan(toy, messages.JobSpec("toy", "thirds", seeds=(100, 101)), store, priority=3.0)
    assert [run.seed for run in once.runs] == [100]
    assert (once.task.priority, once.seconds) == (3.0, 1.0)
    fair = engine.plan(toy, messages.JobSpec("toy", "coin", overrides={"bias": "0.5"}), store)
    assert (fair.left_out, [run.variant for run in fair.runs]) == ({"fair": "bias=0.5"}, ["system"])
    assert fair.job.overrides == {"bias": 0.5}
    with pytest.raises(InputError, match=r"with bias=0\.5 the variant 'fair' is the same as the system"):
        engine.plan(toy, messages.JobSpec("toy", "coin", variants=("fair",), overrides={"bias": 0.5}), store)
    (tmp_path / "d.csv").write_text("1")
    given = engine.plan(toy, messages.JobSpec("toy", "coin", data=str(tmp_path / "d.csv")), store)
    assert given.task.spec.overrides == {"data": str(tmp_path / "d.csv")}


class Elsewhere:
    """An executor without this disk: what it is given."""

    def __init__(self):
        self.given = []

    def run(self, tasks, handle, deadline=None):
        self.given += [task.spec for task in tasks]


def test_where_runs_are_made_elsewhere_figures_are_drawn_here(recorded, monkeypatch):
    toy, store = recorded
    drawn = []
    monkeypatch.setattr(engine.LocalExecutor, "run", lambda self, tasks, handle, deadline=None: drawn.extend(tasks))
    made = engine.plan(toy, messages.JobSpec("toy", "coin"), store)
    engine.execute([made], store, Elsewhere())
    (task,) = drawn
    assert (task.spec.runs, task.state, task.attempts) == ((), "queued", 0)
    assert task.spec.figures == {run.variant: str(store.runs / run.id) for run in made.runs}
    assert not Path(task.spec.scratch).exists()
    drawn.clear()
    missing = engine.plan(toy, messages.JobSpec("toy", "coin", seeds=(102,)), store)
    engine.execute([missing], store, Elsewhere())
    assert drawn == []  # its runs are not there


@pytest.mark.parametrize(
    ("changed", "drawn"),
    [
        ({}, True),
        ({"figures": False}, False),
        ({"variants": ("fair",)}, False),
        ({"preset": "smoke"}, False),
        ({"seeds": (100, 101)}, True),
    ],
)
def test_figures_are_wanted_of_all_variants_with_their_own_settings(recorded, changed, drawn):
    toy, store = recorded
    made = engine.plan(toy, replace(messages.JobSpec("toy", "coin"), **changed), store)
    if changed.get("preset"):
        drawn = True  # of no run so far: none of their folders is missing
    with engine.Execution(store) as execution:
        assert execution.needed(made) is (drawn or bool(made.missing))
        task = execution.add(made)
        assert (task.spec.figures is not None) is drawn
        assert Path(task.spec.scratch).is_dir()
    assert not Path(task.spec.scratch).exists()
    if drawn and not changed:
        drawing = Path(store.folder) / "new.svg"
        drawing.write_text("<svg/>")
        engine.keep_figure(store, made, messages.Painted("heads", str(drawing), "Heads."))
        place = store.folder / "figures" / "toy" / "coin" / "quick"
        assert {file.name: file.read_text() for file in place.iterdir()} == {
            "heads.svg": "<svg/>", "heads.txt": "Heads.", "drawn-from": " ".join(sorted(run.id for run in made.runs)),
        }  # fmt: skip
        assert not drawing.exists()
        assert not engine._wants_figures(made, store)
        (place / "drawn-from").write_text("others")
        assert engine._wants_figures(made, store)


def test_what_a_task_says_is_told_of_its_job(recorded):
    """Of four runs two are done; then the third; and how it ends."""
    toy, store = recorded
    watched = []
    for state, said, failure in (("done", "", ""), ("failed", "why", "why"), ("cancelled", "", "cancelled")):
        made = engine.plan(toy, messages.JobSpec("toy", "coin", seeds=(100, 101), figures=False), store)
        with engine.Execution(store, lambda plan, news: watched.append((plan, news))) as execution:
            assert execution.take(made)
            task = execution.add(made)
            run = made.missing[0]
            execution.handle(task, messages.Begun(run.id, run.variant, run.seed))
            if state == "done":
                folder = worker.write_run(task.spec, run, Report({"heads": 0.5}), {}, 1.0)
                execution.handle(task, messages.Written(run.id, str(folder), 1.0))
                assert run.id in made.found
            execution.handle(task, messages.Ended(state, said))
            (job,) = execution.jobs.recent(1, states=(state,))
            assert (job.state, job.message) == (state, said)
        assert made.failure == failure
    news = [each for _, each in watched[:3]]
    assert [(each.kind, getattr(each, "done", None)) for each in news] == [("start", 2), ("run", 3), ("end", None)]
    assert news[0].of == 4
    assert [said for *_, said in execution.jobs.events(0)][:3] == news


def test_an_interrupted_command_ends_its_jobs(recorded):
    toy, store = recorded
    made = engine.plan(toy, messages.JobSpec("toy", "coin", seeds=(105,)), store)
    execution = engine.Execution(store)
    with contextlib.suppress(KeyboardInterrupt), execution:
        execution.add(made)
        raise KeyboardInterrupt
    (job,) = execution.jobs.recent(states=("cancelled",))
    assert job.message == "stopped"
    with engine.Execution(store) as execution:
        task = execution.add(made)
        execution.forget(task)
        assert not Path(task.spec.scratch).exists()
        assert execution._plans == {}
    assert [job.state for job in execution.jobs.recent()] == ["running", "cancelled"]  # whose end others tell


def test_all_experiments_of_a_size_run_by_name(recorded, monkeypatch):
    import broadsheet

    toy, store = recorded
    monkeypatch.setattr(api, "entry", lambda slug: toy)
    elsewhere = Elsewhere()
    paper = broadsheet.load("toy")
    result = paper.run(executor=elsewhere, overrides={"tosses": 400}, trust=True)
    assert [(each.experiment, each.preset, each.figure_seed, each.figures, each.trust) for each in elsewhere.given] == [
        ("thirds", "quick", 100, None, True),
    ]  # fmt: skip
    assert list(result["coin"]) == ["system", "fair"]
    assert result["coin"]["fair"].metrics == {"heads": 0.5}
    assert [verdict.claim.id for verdict in result.verdicts] == ["T1", "T2"]
    assert (result.verdicts[0].leaning, result.verdicts[1].verdict) == ("holds", "not run")
    elsewhere.given.clear()
    paper.run(preset="smoke", seed=7, executor=elsewhere)
    assert [(each.experiment, each.preset, [run.seed for run in each.runs]) for each in elsewhere.given] == [
        ("coin", "smoke", [7, 7])
    ]
    with pytest.raises(InputError, match="toy has no experiment with the preset 'huge'"):
        paper.run(preset="huge")
    assert paper.facts["title"] == "A toy"
    assert paper.paper.slug == "toy"
    assert [state.verdict for state in paper.claims()] == [None, None]
