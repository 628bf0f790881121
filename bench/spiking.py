"""How other simulators of spiking networks are run: Brian2's standalone programs and NEST."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path


def brian_run(b, parts, neurons, ms, monitor=None):
    """Builds the program of a network, and returns what runs it: its own time of the loop, and its own memory."""
    monitor = b.SpikeMonitor(neurons) if monitor is None else monitor
    network = b.Network(*parts, monitor)
    network.run(ms * b.ms)
    b.device.build(compile=True, run=True, directory=None)
    project = Path(b.device.project_dir)

    def run():
        program = subprocess.Popen(["./main"], cwd=project, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(program.pid, 0)
        if status:
            raise RuntimeError(f"Brian2's program ended with {status}")
        seconds = float((project / b.device.results_dir / "last_run_info.txt").read_text().split()[0])
        rate = int(monitor.num_spikes) / len(neurons) / ms * 1000
        return {"rate_hz": rate, "seconds": seconds, "peak_mb": usage.ru_maxrss / 1024}

    return run


def nest_kernel(nest, dt, threads=2):
    """An empty kernel at a resolution (ms)."""
    nest.set_verbosity("M_ERROR")
    nest.ResetKernel()
    nest.resolution = float(dt)
    nest.local_num_threads = threads


def nest_run(nest, build, ms):
    """What builds the network anew and then simulates it; only the second is timed."""

    def run():
        neurons = build()
        recorder = nest.Create("spike_recorder")
        nest.Connect(neurons, recorder)
        nest.Prepare()
        start = time.perf_counter()
        nest.Run(ms)
        seconds = time.perf_counter() - start
        nest.Cleanup()
        return {"rate_hz": recorder.n_events / len(neurons) / ms * 1000, "seconds": seconds}

    return run
