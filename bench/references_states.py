"""Writes tests/references/states/: what three other programs say of the same small inputs.

python bench/references_states.py dynamax             smoothing of a chain, in an environment with dynamax 1.0.3
python bench/references_states.py nemos               a coupled Poisson GLM, with nemos 0.2.8
python bench/references_states.py official FOLDER     the folder hmmglm of github.com/JerrySoybean/onehot-hmmglm, with torch
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "tests" / "references" / "states"
FILTER = np.exp(-np.arange(1.0, 6)) / np.exp(-np.arange(1.0, 6)).sum()


def dynamax() -> dict[str, np.ndarray]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from dynamax.hidden_markov_model import hmm_posterior_mode, hmm_smoother

    rng = np.random.default_rng(0)
    initial, transition = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), 4)
    emission = 4 * rng.normal(size=(120, 4)) - 20
    found = hmm_smoother(initial, transition, emission)
    return {
        "initial": initial, "transition": transition, "emission": emission, "filtered": found.filtered_probs,
        "smoothed": found.smoothed_probs, "transitions": found.trans_probs, "log_likelihood": found.marginal_loglik,
        "path": hmm_posterior_mode(initial, transition, emission),
    }  # fmt: skip


def counts(bins: int, neurons: int) -> np.ndarray:
    """Spikes of neurons that excite and inhibit each other."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(neurons, neurons))
    x = np.zeros((bins + 5, neurons))
    for t in range(5, bins + 5):
        x[t] = rng.poisson(np.logaddexp(0, -1.5 + weights @ (FILTER[::-1] @ x[t - 5 : t])))
    return x[5:].astype(np.uint8)


def history(x: np.ndarray) -> np.ndarray:
    out = np.zeros(x.shape)
    for k, weight in enumerate(FILTER, 1):
        out[k:] += weight * x[:-k]
    return out


def nemos() -> dict[str, np.ndarray]:
    import jax

    jax.config.update("jax_enable_x64", True)
    import nemos as nmo

    x = counts(1500, 4)
    made = {"counts": x}
    for name, link in (("softplus", jax.nn.softplus), ("exp", jax.numpy.exp)):
        model = nmo.glm.PopulationGLM(
            observation_model=nmo.observation_models.PoissonObservations(), inverse_link_function=link, solver_name="LBFGS",
            solver_kwargs={"tol": 1e-10, "maxiter": 2000},
        )  # fmt: skip
        model.fit(history(x), x.astype(float))
        log_likelihood = model.score(history(x), x.astype(float), score_type="log-likelihood") * x.shape[1]
        made |= {f"weights_{name}": model.coef_.T, f"bias_{name}": model.intercept_, f"score_{name}": log_likelihood}
    return made


def official(folder: str) -> dict[str, np.ndarray]:
    sys.path.insert(0, folder)
    import torch
    from hmmglm.deprecated import distributions, model, utils

    torch.set_default_dtype(torch.float64)
    x = torch.tensor(counts(200, 4), dtype=torch.float64)
    basis = utils.exp_basis(1, 5, 5)
    y = utils.convolve_spikes_with_basis(x[None], basis)[0]
    torch.manual_seed(0)
    hmm = model.NaiveHMMGLM(3, 4, basis)
    hmm._weight.data, hmm._bias.data = torch.randn(3, 4, 4), torch.randn(4)
    gamma, xi = hmm.forward_backward(x, y, algorithm="logsumexp")
    a = torch.distributions.Dirichlet(torch.ones(3)).sample((20,))
    log_pi = torch.log_softmax(torch.randn(20, 3), dim=-1)
    return {
        "counts": x.numpy(), "weights": hmm._weight.data.numpy(), "bias": hmm._bias.data.numpy(),
        "transition": hmm.transition_matrix.numpy(), "states": gamma.numpy(), "transitions": xi.sum(dim=0).numpy(),
        "path": hmm.viterbi(x, y).numpy(), "a": a.numpy(), "log_pi": log_pi.numpy(),
        "log_density": distributions.gumbel_softmax_log_likelihood(a, log_pi, 0.3).numpy(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("program", choices=("dynamax", "nemos", "official"))
    parser.add_argument("folder", nargs="?")
    asked = parser.parse_args()
    made = official(asked.folder) if asked.program == "official" else {"dynamax": dynamax, "nemos": nemos}[asked.program]()
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT / f"{asked.program}.npz", **{name: np.asarray(value) for name, value in made.items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
