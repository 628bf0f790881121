"""Recordings of Mental Pong in the published form."""

import pickle

import numpy as np

from broadsheet.recordings.frontal_files import FILES


def published(folder, monkey, units=5, conditions=4, bins=30):
    """A data set of recordings in the published shape: responses of units, halves, masks with NaN, positions in degrees."""
    rng = np.random.default_rng(len(monkey))
    on, hidden = np.full((2, conditions, bins), np.nan)
    on[:, 2:25], hidden[:, 14:25] = 1.0, 1.0
    x = np.linspace(4.0, 32.0, 23)
    ball = np.full((2, conditions, bins), np.nan)
    ball[:, :, 2:25] = np.stack([np.tile(x, (conditions, 1)), np.tile(16 + 0.1 * x, (conditions, 1))]) * 0.625 - 10
    responses = rng.random((units, conditions, bins)) * on
    held = {
        "neural_responses": {"occ": responses, "vis": responses},
        "neural_responses_sh1": {"occ": responses + 0.1 * rng.random(responses.shape), "vis": responses},
        "neural_responses_sh2": {"occ": responses - 0.1 * rng.random(responses.shape), "vis": responses},
        "behavioral_responses": {"occ": {"ball_pos_x": ball[0], "ball_pos_y": ball[1]}},
        "masks": {"occ": {"start_end_pad0": on, "occ_end_pad0": hidden}},
    }
    (folder / FILES[monkey]).write_bytes(pickle.dumps(held, protocol=2))
    return held
