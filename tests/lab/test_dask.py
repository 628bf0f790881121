import os
import signal
import subprocess
import sys
import time

import pytest

from broadsheet.errors import JobError
from broadsheet.lab.cluster import DaskExecutor
from broadsheet.lab.engine import execute, plan, raise_failures
from broadsheet.lab.messages import JobSpec, Recorded, Started
from waiting import until


@pytest.fixture
def cluster(toy, tmp_path):
    """A scheduler and two workers as processes, each with a home and a scratch folder of its own: nothing is shared."""
    distributed = pytest.importorskip("distributed")
    processes = []

    def start(*words, **env):
        made = subprocess.Popen(
            [sys.executable, "-m", *words], env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd=tmp_path,
        )  # fmt: skip
        processes.append(made)
        return made

    address_file = tmp_path / "scheduler.json"
    start(
        "distributed.cli.dask_scheduler",
        "--scheduler-file",
        str(address_file),
        "--port",
        "0",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    )
    until(address_file.exists)
    workers = []
    for k in range(2):
        own = tmp_path / f"worker-{k}"
        own.mkdir()
        workers.append(
            start(
                "distributed.cli.dask_worker",
                "--scheduler-file",
                str(address_file),
                "--no-nanny",
                "--nthreads",
                "1",
                "--no-dashboard",
                "--name",
                str(k),
                "--local-directory",
                str(own),
                BROADSHEET_HOME=str(own / "home"),
                TMPDIR=str(own),
            )
        )
    client = distributed.Client(scheduler_file=str(address_file), timeout="20s")
    client.wait_for_workers(2, timeout=30)
    yield client, workers
    client.close()
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None


@pytest.mark.parametrize("any_home", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("moment", "places"), [("start", lambda client: client.processing()), ("run", lambda client: client.has_what())]
)
def test_two_workers_without_a_shared_disk_and_one_killed(toy, store, cluster, tmp_path, moment, places):
    """Killed while it is at a run, or with a run's end in its memory: Dask then takes the task as lost until it ran again."""
    client, workers = cluster
    made = plan(
        toy, JobSpec("toy", "coin", variants=("system",), seeds=(100, 101, 102, 103), overrides={"pause": "0.5"}), store
    )
    killed, begun = [], []

    def kill_one(plan_, event):
        begun.extend([event.id] if isinstance(event, Started) else [])
        if event.kind == moment and not killed:
            addresses = until(lambda: [a for a, keys in places(client).items() if any(event.id[:16] in key for key in keys)])
            os.killpg(workers[int(client.scheduler_info()["workers"][addresses[0]]["name"])].pid, signal.SIGKILL)
            killed.append(event.id)
            until(lambda: len(client.scheduler_info()["workers"]) == 1)

    execute([made], store, DaskExecutor(client), kill_one)
    raise_failures([made])
    assert len(killed) == 1
    assert moment == "run" or begun.count(killed[0]) == 2
    assert len(store.find()) == 4
    assert all(store.report(run).arrays["shown"].shape == (400,) for run in store.find())
    assert not (tmp_path / "worker-1" / "home" / "runs").exists()  # the coordinator alone writes a store
    # nor is a file of the killed worker left; its empty folder goes with the next work there
    until(lambda: not [file for place in temporary(tmp_path) for file in place.rglob("*") if file.is_file()], 20)


def temporary(place):
    """What pieces of work keep on the workers' disks."""
    scratch = [left for worker in place.glob("worker-*") for left in (worker / "home" / "cluster" / "scratch").glob("*")]
    return [*scratch, *place.glob("worker-*/broadsheet-*"), *place.glob("worker-*/tmp*")]


@pytest.mark.parametrize("any_home", ["sqlite"], indirect=True)
def test_folders_of_a_worker_whose_processes_were_all_killed_go_with_the_next_piece_of_work(toy, store, cluster, tmp_path):
    client, _ = cluster
    for worker in ("worker-0", "worker-1"):
        command = [sys.executable, "-c", "from broadsheet.lab import presence\nfrom broadsheet.cache import home\n"
                   "import os\nprint(presence.scratch(home() / 'cluster'), flush=True)\nos.kill(os.getpid(), 9)"]  # fmt: skip
        subprocess.run(command, env={**os.environ, "BROADSHEET_HOME": str(tmp_path / worker / "home")}, stdout=subprocess.PIPE)
    assert len(temporary(tmp_path)) == 2
    made = plan(toy, JobSpec("toy", "coin", variants=("system",), seeds=tuple(range(6)), overrides={"pause": "0.5"}), store)
    execute([made], store, DaskExecutor(client))
    raise_failures([made])
    assert temporary(tmp_path) == []


def test_cancel_and_failure_on_the_cluster(toy, store, cluster):
    client, _ = cluster
    executor = DaskExecutor(client)
    slow = plan(toy, JobSpec("toy", "coin", variants=("system",), overrides={"pause": "100"}), store)
    began = time.monotonic()
    execute([slow], store, executor, lambda p, event: executor.cancel(slow.task) if isinstance(event, Started) else None)
    assert time.monotonic() - began < 60
    assert slow.failure == "cancelled"
    late = plan(toy, JobSpec("toy", "coin", variants=("system",), overrides={"pause": "99"}), store)
    execute([late], store, executor, deadline=time.monotonic() + 1)
    assert time.monotonic() - began < 60
    assert late.failure == "cancelled"
    bad = plan(toy, JobSpec("toy", "coin", variants=("system",), overrides={"crash": "error"}), store)
    execute([bad], store, executor)
    assert "fell off the table" in bad.failure


@pytest.mark.parametrize("any_home", ["sqlite"], indirect=True)
def test_a_scheduler_that_goes_away_leaves_what_has_come(toy, store, cluster):
    client, _ = cluster
    made = plan(toy, JobSpec("toy", "coin", seeds=(100, 101), overrides={"pause": "0.5"}), store)

    def kill_it(plan_, event):
        if isinstance(event, Recorded):
            os.killpg(client.run_on_scheduler(os.getpid), signal.SIGKILL)

    with pytest.raises(JobError, match="scheduler went away"):
        execute([made], store, DaskExecutor(client), kill_it)
    assert 1 <= len(store.find()) == len(made.found)


def test_no_scheduler_is_one_sentence():
    with pytest.raises(JobError, match="No Dask scheduler answers"):
        DaskExecutor("tcp://127.0.0.1:9", timeout="1s")
