"""EScAIP and MACE after the same time of training."""

import os
import time

import numpy as np

from harness import Comparison

BATCH, CUTOFF, SEED = 8, 5.0, 0


def inputs(case):
    """Frames of eight molecules with GFN2-xTB labels: 48 of each to train on, 12 to test on."""
    from broadsheet.atoms.labels import MOLECULES, molecules

    groups = molecules(MOLECULES, 60)
    frames = {
        "train": [each for group in groups for each in group[:48]],
        "test": [each for group in groups for each in group[48:]],
    }
    arrays = {}
    for name, made in frames.items():
        arrays |= {
            f"{name}_sizes": np.array([len(each) for each in made]), f"{name}_numbers": np.concatenate([each.numbers for each in made]),
            f"{name}_positions": np.concatenate([each.positions for each in made]),
            f"{name}_energy": np.array([each.get_potential_energy() for each in made]),
            f"{name}_forces": np.concatenate([each.get_forces() for each in made]),
        }  # fmt: skip
    return arrays


comparison = Comparison(
    "Potentials after the same time of training: EScAIP here and MACE",
    {f"{seconds} s of training": {"seconds": seconds} for seconds in (20, 60)},
    inputs,
    text="Energies and forces of eight small molecules (GFN2-xTB), 384 frames to train on and 96 to test on; batches of 8, rates that fall on a "
    "cosine to a hundredth over the time, compilation apart. EScAIP: 64 wide, 2 blocks, forces by gradient. MACE: 32x0e + 32x1o, two layers, "
    "correlation 3, its own loss. Force and energy errors are what to compare, not times.",
    shown={"force_mae": "force error, meV/Å", "energy_mae": "energy error, meV/atom", "steps": "steps"},
    turns=2,
)


def frames(given, name):
    """(numbers, positions, energy, forces) of each structure."""
    ends = np.cumsum(given[f"{name}_sizes"])
    parts = [np.split(given[f"{name}_{part}"], ends[:-1]) for part in ("numbers", "positions", "forces")]
    return list(zip(parts[0], parts[1], given[f"{name}_energy"], parts[2], strict=True))


def rate(share, peak):
    """A cosine from the peak to a hundredth of it."""
    return peak * (0.01 + 0.99 * (1 + np.cos(np.pi * min(share, 1.0))) / 2)


def trained(seconds, batches, step, peak):
    """Steps until the time is over; how many, and the time they took."""
    start, steps = time.perf_counter(), 0
    while (share := (time.perf_counter() - start) / seconds) < 1:
        step(next(batches), rate(share, peak))
        steps += 1
    return steps, time.perf_counter() - start


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def escaip(case, given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax
    from ase import Atoms

    from broadsheet.atoms.potential import scaled
    from broadsheet.atoms.potentials.escaip import SMALL, EScAIP
    from broadsheet.atoms.structures import labelled
    from broadsheet.atoms.training import LabelledSet, Training, evaluate, label_loss

    made = {name: [labelled(Atoms(n, x), e, f) for n, x, e, f in frames(given, name)] for name in ("train", "test")}
    first = scaled(EScAIP(SMALL, SEED), made["train"])
    data = {name: LabelledSet(part, first) for name, part in made.items()}
    mask = jax.tree.map(eqx.is_inexact_array, first)
    mask = eqx.tree_at(lambda p: (p.references, p.scale), mask, (False, False))
    term = label_loss(Training())
    rule = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())

    @eqx.filter_jit
    def move(weights, fixed, state, average, parts, rate):
        pair = jax.tree.map(lambda leaf: leaf[0], parts)
        gradient = jax.grad(lambda w: term(eqx.combine(w, fixed), *pair, jax.random.key(0)))(weights)
        updates, state = rule.update(gradient, state)
        weights = jax.tree.map(lambda w, u: w - rate * u, weights, updates)
        return weights, state, jax.tree.map(lambda a, w: 0.99 * a + 0.01 * w, average, weights)

    warm = []

    def run():
        weights, fixed = eqx.partition(first, mask)
        now = [weights, rule.init(weights), weights]

        def step(parts, rate):
            now[:] = move(now[0], fixed, now[1], now[2], parts, jnp.asarray(rate, jnp.float32))
            jax.block_until_ready(now[0])

        steps, took = trained(case["seconds"] if warm else 1.0, data["train"].stream(BATCH, SEED), step, 3e-3)
        errors = evaluate(eqx.combine(now[2], fixed), data["test"])
        warm.append(True)
        return {"seconds": took, "steps": steps, "force_mae": errors.force_mae, "energy_mae": errors.energy_mae}

    return run


@comparison.side("MACE", environment="mace", packages=("mace-torch", "torch"))
def mace(case, given):
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn reads constants of its own that way
    import torch
    from e3nn import o3
    from mace import data, modules, tools
    from mace.tools import torch_geometric

    torch.set_default_dtype(torch.float32)
    table = tools.AtomicNumberTable(sorted(set(given["train_numbers"].tolist())))
    sets = {}
    for name in ("train", "test"):
        made = [
            data.Configuration(
                atomic_numbers=n, positions=x, properties={"energy": e, "forces": f}, property_weights={"energy": 1.0, "forces": 1.0},
                pbc=(False,) * 3, cell=np.eye(3) * 100,
            )
            for n, x, e, f in frames(given, name)
        ]  # fmt: skip
        sets[name] = [data.AtomicData.from_config(each, z_table=table, cutoff=CUTOFF) for each in made]
    composition = np.array([[np.sum(n == z) for z in table.zs] for n, *_ in frames(given, "train")], float)
    references = np.linalg.lstsq(composition, given["train_energy"], rcond=1e-10)[0]
    spread = float(np.sqrt(np.mean(given["train_forces"] ** 2)))
    block, loss = modules.interaction_classes, modules.WeightedEnergyForcesLoss(1.0, 100.0)

    def batches():
        while True:
            yield from torch_geometric.dataloader.DataLoader(sets["train"], batch_size=BATCH, shuffle=True, drop_last=True)

    def run():
        torch.manual_seed(SEED)
        net = modules.ScaleShiftMACE(
            r_max=CUTOFF, num_bessel=8, num_polynomial_cutoff=5, max_ell=2, num_interactions=2, num_elements=len(table.zs),
            interaction_cls=block["RealAgnosticResidualInteractionBlock"], interaction_cls_first=block["RealAgnosticInteractionBlock"],
            hidden_irreps=o3.Irreps("32x0e + 32x1o"), MLP_irreps=o3.Irreps("16x0e"), gate=torch.nn.functional.silu,
            atomic_energies=references, avg_num_neighbors=8.0, atomic_numbers=table.zs, correlation=3, atomic_inter_scale=spread,
            atomic_inter_shift=0.0,
        )  # fmt: skip
        average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
        rule = torch.optim.Adam(net.parameters(), lr=0.01, amsgrad=True)

        def step(batch, rate):
            rule.param_groups[0]["lr"] = rate
            rule.zero_grad()
            loss(batch, net(batch.to_dict(), training=True)).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            rule.step()
            average.update_parameters(net)

        steps, took = trained(case["seconds"] if warm else 1.0, batches(), step, 0.01)
        warm.append(True)
        force, energy = [], []
        for batch in torch_geometric.dataloader.DataLoader(sets["test"], batch_size=32):
            found = average.module(batch.to_dict())
            counts = (batch["ptr"][1:] - batch["ptr"][:-1]).numpy()
            force.append(np.abs((found["forces"].detach() - batch["forces"]).numpy()).ravel())
            energy.append(np.abs((found["energy"].detach() - batch["energy"]).numpy()) / counts)
        errors = {"force_mae": 1e3 * np.concatenate(force).mean(), "energy_mae": 1e3 * np.concatenate(energy).mean()}
        return {"seconds": took, "steps": steps, **errors}

    warm = []
    return run
