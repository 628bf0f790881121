"""Makes tests/references/rich_lazy.npz: what the program of arXiv 2310.08513 measures on small networks of its own.

    python bench/references_rich_lazy.py FOLDER_OF_BioRNN_RichLazy

Its Python has torch 2.13.0 and neurogym 2.3.1. The program runs as it is, for 40 steps of 10 units; the weights before each training
are taken as its optimiser is made, and torchvision, which it imports and does not use here, is a stand-in.
"""

import runpy
import sys
import types
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).parents[1] / "tests" / "references" / "rich_lazy.npz"


def main(folder: str) -> None:
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision"].datasets = sys.modules["torchvision.datasets"]
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    sys.path.insert(0, folder)
    sys.argv = ["main.py", "--hidden_size", "10", "--n_iter", "40", "--print_step", "10", "--learning_rate0", "0.05"]
    np.random.seed(0)
    torch.manual_seed(0)
    seen: list[list[torch.Tensor]] = []
    made = torch.optim.SGD

    class Watched(made):
        def __init__(self, parameters, **options):
            parameters = list(parameters)
            seen.append([each.detach().clone() for each in parameters] + parameters)
            super().__init__(parameters, **options)

    torch.optim.SGD = Watched
    found = runpy.run_path(str(Path(folder) / "main.py"))
    weights = [[np.asarray(each.detach(), np.float32) for each in row] for row in seen]
    names = ("w_in", "w_rec", "w_out")
    arrays = {f"{name}_{when}": np.stack([row[3 * late + k] for row in weights])
              for late, when in enumerate(("before", "after")) for k, name in enumerate(names)}  # fmt: skip
    last = found["K0"].numpy()
    np.savez_compressed(
        OUT, **arrays, ranks=found["var_list"], inputs=found["inputs0"].numpy(),
        gaussian=found["W0_Gauss"], change=found["delta_Wr_norm_list"], signs=found["sign_sim_list"],
        representation=found["rep_sim_list"], kernel=np.array(found["kernel_alignment_list"], float),
        kernel_corner=last[:30, -30:], kernel_norm=np.linalg.norm(last),
    )  # fmt: skip
    print({name: found[name] for name in ("delta_Wr_norm_list", "sign_sim_list", "rep_sim_list", "kernel_alignment_list")})


if __name__ == "__main__":
    main(sys.argv[1])
