"""What github.com/EliaTorre/hmmrnn and GeomLoss make of small inputs, written to tests/references/hmmrnn.json.

    python bench/references_hmmrnn.py FOLDER_OF_THE_OFFICIAL_CODE

It needs torch, geomloss, hmmlearn, scikit-learn, matplotlib and plotly; `FOLDER/scripts` holds rnn.py, hmm.py and test.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import geomloss
import numpy as np
import torch

OUT = Path(__file__).parents[1] / "tests" / "references" / "hmmrnn.json"


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    from scripts.config import HMMCyclic, HMMFive, HMMFour, HMMThree, HMMTwo
    from scripts.hmm import HMM
    from scripts.rnn import RNN
    from scripts.test import Test

    rng = np.random.default_rng(0)
    made: dict = {"hmm": {}}
    for name, config in (("2", HMMTwo), ("3", HMMThree), ("4", HMMFour), ("5", HMMFive), ("cyclic", HMMCyclic)):
        given = {"custom_transition_matrix": None, "custom_emission_matrix": None, **config.HMM}
        hmm = HMM(**given)
        rows = np.asarray(hmm.transition_matrix), np.asarray(hmm.emission_probabilities)
        made["hmm"][name] = {"transitions": rows[0].tolist(), "emissions": rows[1].tolist()}
    hmm = HMM(3, 3, transition_method="fully", emission_method="triangular")
    made["hmm"]["fully"] = {"transitions": hmm.transition_matrix.tolist(), "emissions": hmm.emission_probabilities.tolist()}

    torch.manual_seed(0)
    net = RNN(input_size=3, hidden_size=6, output_size=3)
    noise = torch.tensor(rng.standard_normal((2, 7, 3)), dtype=torch.float32)
    _, hidden, logits = net(noise, init=False)
    weights = {"w_in": net.rnn.weight_ih_l0, "w_rec": net.rnn.weight_hh_l0, "w_out": net.fc.weight}
    made["rnn"] = {name: each.detach().numpy().tolist() for name, each in weights.items()}
    made["rnn"] |= {"noise": noise.numpy().tolist(), "h": hidden.tolist(), "logits": logits.tolist()}

    symbols = rng.integers(0, 3, (5, 12))
    one_hot = np.eye(3)[symbols]
    test = Test(None, None, 5, 12, 3)
    made["counted"] = {
        "symbols": symbols.tolist(), "volatility": float(test.volatilities(one_hot)[0]),
        "frequencies": test.frequencies(one_hot)[0].tolist(), "bigrams": test.transition_matrices(one_hot).tolist(),
    }  # fmt: skip

    x, y = np.eye(3)[rng.integers(0, 3, (7, 10))].reshape(7, 30), np.eye(3)[rng.integers(0, 3, (6, 10))].reshape(6, 30)
    made["divergence"] = {"x": x.tolist(), "y": y.tolist()}
    for blur in (0.2, 0.5):
        points = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = geomloss.SamplesLoss(blur=blur)(points, torch.tensor(y, dtype=torch.float64))
        value.backward()
        made["divergence"][str(blur)] = {"value": value.item(), "gradient": points.grad.numpy().tolist()}
    OUT.write_text(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1])
