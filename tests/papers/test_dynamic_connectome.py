"""The dynamic connectome at the paper's size: recordings from files, and what is said where there are none."""

import dataclasses

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.papers.dynamic_connectome import Worms, paper, stimulus_scores
from broadsheet.recordings import Session, Traces, write_nwb
from broadsheet.recordings.planted_motifs import motif_recordings
from quiet import Quiet


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_recorded_worms(tmp_path):
    planted = motif_recordings(np.random.default_rng(0), animals=6)
    for animal in range(3):
        traces = Traces(planted.traces[animal, :20].T, 0.25 * np.arange(240), tuple(f"N{chr(65 + k)}" for k in range(20)),
                        "ratio", "RoiResponseSeries")  # fmt: skip
        write_nwb(Session(f"worm{animal}", traces={"calcium": traces}), tmp_path / f"worm{animal}.nwb")
    experiment = paper.experiments["worm_atlas"]
    config = dataclasses.replace(
        experiment.configure("paper"), data=str(tmp_path), rank=3, starts=3, onsets=(7.5, 25.0), lasts=15.0
    )
    arms = experiment.function(config, jax.random.key(0), Quiet()).scalars()
    assert arms["system"]["matches"] == 2
    with pytest.raises(MissingDataError, match="--data FOLDER"):
        experiment.function(experiment.configure("paper"), jax.random.key(0), Quiet())


def test_scores_by_hand():
    time = np.full((40, 1), 1.0)
    time[10:25] = 5.0
    config = Worms(every=1, dt=1.0)
    assert stimulus_scores(time, np.array([(10, 20)]), config)[0, 0] == pytest.approx(5.0)
