"""EScAIP with the same weights here and in fairchem, the authors' program."""

import numpy as np

from harness import Comparison

NAMES = ("CH3CH2OH", "CH3COOH", "C6H6", "CH3CHO", "C5H5N", "CH3CONH2", "C4H4S", "CH3CH2NH2")
SIZES = {
    "64 x 2": {"width": 64, "blocks": 2, "heads": 4, "frequencies": (5, 3, 1, 3, 4)},
    "128 x 4": {"width": 128, "blocks": 4, "heads": 8, "frequencies": (5, 3, 1, 3, 4)},
}
BASIS, BASIS_WIDTH, ATOM_WIDTH, ORDER_WIDTH, NEAREST, SLOTS, RATE = 96, 64, 32, 16, 16, 24, 1e-4


def molecules(count):
    """Rattled small molecules."""
    from ase.build import molecule

    made = [molecule(NAMES[k % len(NAMES)]) for k in range(count)]
    for k, each in enumerate(made):
        each.rattle(0.05, seed=k)
    return made


def configuration(case):
    from broadsheet.atoms.potentials.escaip import EScAIPConfig

    return EScAIPConfig(
        **SIZES[case["size"]], nearest=NEAREST, slots=SLOTS,
        rank="sigmoid", order_weights=False, basis=BASIS, basis_width=BASIS_WIDTH, atom_width=ATOM_WIDTH, order_width=ORDER_WIDTH,
        direct=case["task"] == "direct",
    )  # fmt: skip


def inputs(case):
    """Weights by fairchem's names."""
    import jax

    from broadsheet.atoms.fairchem import to_fairchem
    from broadsheet.atoms.potentials.escaip import EScAIP

    net = EScAIP(configuration(case), 0)
    rng = np.random.default_rng(0)
    return to_fairchem(jax.tree.map(lambda leaf: leaf + 0.02 * rng.standard_normal(leaf.shape).astype(leaf.dtype), net))


TASKS = {
    "gradient": "energy and its gradient",
    "direct": "energy and direct forces",
    "training": "a step of training on forces",
}
comparison = Comparison(
    "EScAIP: the same weights here and in fairchem",
    {
        f"{text}, 32 molecules, {size}": {"task": task, "size": size, "molecules": 32}
        for task, text in TASKS.items()
        for size in SIZES
    },
    inputs,
    text="Rattled organic molecules of 7 to 12 atoms, 32 at once; width x blocks; neighbours and graphs are part of the time. The "
    "training step is AdamW on squared energies and squared forces by gradient. In the compiled side the network goes through torch.compile, "
    "which does not differentiate twice.",
    agree={"energy": 1e-3, "forces": 1e-3, "loss": 1e-3},
)


@comparison.side("broadsheet", packages=("jax", "vesin"), devices=("cpu", "gpu"))
def ours(case, given):
    import equinox as eqx
    import jax.numpy as jnp
    import optax

    from broadsheet.atoms.fairchem import from_fairchem
    from broadsheet.atoms.potential import compiled_predict, predict
    from broadsheet.atoms.structures import batch_atoms

    net = from_fairchem(given, configuration(case))
    made = molecules(case["molecules"])
    atoms = sum(len(each) for each in made)
    if case["task"] != "training":

        def run():
            batch = batch_atoms(made, count=len(made))
            found = compiled_predict(net, batch, net.neighbours(batch), False, case["task"] == "direct")
            return {"energy": jnp.sum(found.energy[: len(made)]), "forces": jnp.linalg.norm(found.forces)}

        return run
    rule = optax.adamw(RATE, weight_decay=0.01)

    @eqx.filter_jit
    def step(net, state, batch, neighbours):
        def loss(net):
            found = predict(net, batch, neighbours)
            return jnp.mean(found.energy[: len(made)] ** 2) + jnp.sum(found.forces**2) / atoms

        value, gradient = eqx.filter_value_and_grad(loss)(net)
        updates, state = rule.update(gradient, state, eqx.filter(net, eqx.is_array))
        return eqx.apply_updates(net, updates), state, value

    state = [net, rule.init(eqx.filter(net, eqx.is_array))]

    def train():
        batch = batch_atoms(made, count=len(made))
        state[0], state[1], value = step(*state, batch, net.neighbours(batch))
        return {"loss": value}

    return train


def fairchem(case, given, compiled):
    import torch
    from fairchem.core.models.escaip.EScAIP import EScAIPBackbone, EScAIPDirectForceHead, EScAIPEnergyHead

    class Data(dict):
        __getattr__ = dict.__getitem__
        __setattr__ = dict.__setitem__

    size, direct = SIZES[case["size"]], case["task"] == "direct"
    made = molecules(case["molecules"])
    atoms = sum(len(each) for each in made)
    backbone = EScAIPBackbone(
        regress_forces=True, direct_forces=direct, hidden_size=size["width"], num_layers=size["blocks"], use_compile=compiled,
        use_padding=False, use_pbc=False, max_num_elements=119, max_atoms=atoms, max_batch_size=len(made), max_radius=6.0,
        knn_k=NEAREST, knn_soft=True, knn_sigmoid_scale=0.2, knn_lse_scale=0.1, knn_use_low_mem=False, knn_pad_size=SLOTS,
        atten_name="math", atten_num_heads=size["heads"], atom_embedding_size=ATOM_WIDTH, node_direction_embedding_size=ORDER_WIDTH,
        edge_distance_expansion_size=BASIS, edge_distance_embedding_size=BASIS_WIDTH, freequency_list=list(size["frequencies"]),
    )  # fmt: skip
    heads = {"energy": EScAIPEnergyHead(backbone)} | ({"forces": EScAIPDirectForceHead(backbone)} if direct else {})
    for prefix, module in {"backbone": backbone, **heads}.items():
        wanted = module.state_dict()
        own = {name.removeprefix(f"{prefix}."): torch.tensor(value) for name, value in given.items() if name.startswith(prefix)}
        missing, _ = module.load_state_dict(
            {name: own[name][: len(wanted[name])] for name in own if name in wanted}, strict=False
        )
        assert not missing, missing
    modules = torch.nn.ModuleList([backbone, *heads.values()])
    modules.train(case["task"] == "training")

    def data():
        positions = torch.tensor(np.concatenate([each.positions for each in made]), dtype=torch.float32)
        sizes = torch.tensor([len(each) for each in made])
        return Data(
            pos=positions, pos_original=positions, batch=torch.repeat_interleave(torch.arange(len(made)), sizes),
            atomic_numbers=torch.tensor(np.concatenate([each.numbers for each in made])),
            cell=torch.zeros(len(made), 3, 3), natoms=sizes, num_graphs=len(made),
        )  # fmt: skip

    def energy_and_gradient(create):
        here = data()
        found = backbone(here)
        energy = heads["energy"](here, found)["energy"]
        return energy, -torch.autograd.grad(energy.sum(), here["pos"], create_graph=create)[0]

    if case["task"] == "training":
        rule = torch.optim.AdamW(modules.parameters(), lr=RATE, weight_decay=0.01)

        def train():
            energy, forces = energy_and_gradient(True)
            loss = (energy**2).mean() + (forces**2).sum() / atoms
            rule.zero_grad()
            loss.backward()
            rule.step()
            return {"loss": loss.item()}

        return train

    def run():
        if not direct:
            energy, forces = energy_and_gradient(False)
            return {"energy": energy.sum().item(), "forces": forces.norm().item()}
        with torch.no_grad():
            here = data()
            found = backbone(here)
            energy, forces = (heads[name](here, found)[name] for name in ("energy", "forces"))
        return {"energy": energy.sum().item(), "forces": forces.norm().item()}

    return run


PEER = {"environment": "fairchem", "packages": ("fairchem-core", "torch"), "devices": ("cpu",)}


@comparison.side("fairchem", **PEER)
def eager(case, given):
    return fairchem(case, given, False)


@comparison.side("fairchem, compiled", **PEER)
def compiled(case, given):
    if case["task"] == "training":
        raise RuntimeError("torch.compile does not differentiate twice")
    return fairchem(case, given, True)
