"""An elastic sheet solved and differentiated, ours against scikit-fem; and a step of the U-Net, against PyTorch."""

import numpy as np

from harness import Comparison

CASES = {
    **{f"solve, {size} pixels": {"do": "solve", "size": size} for size in (32, 64, 128, 256)},
    **{f"gradient, {size} pixels": {"do": "gradient", "size": size} for size in (16, 64, 128)},
    "U-Net, 8 cells of 64 pixels": {"do": "unet", "size": 64},
}


def inputs(case):
    """A cell of 40 µm with adhesions, and images with forces for the networks."""
    from broadsheet.matter.synthetic_cells import SyntheticCells

    size = case["size"]
    cell = SyntheticCells(1, size=size, h=64 / size).sample(8 if case["do"] == "unet" else 1)
    pull = np.stack([np.ones((size, size)), np.ones((size, size)), np.zeros((size, size))])
    return {
        "mask": cell.mask[0],
        "Y": cell.Y[0],
        "active": pull,
        "h": np.array(64 / size),
        "zyxin": cell.zyxin,
        "force": cell.force,
    }


comparison = Comparison(
    "Elastic sheets and tractions",
    CASES,
    inputs,
    text="A sheet on the pixels of a mask, assembled and solved; all that depends on the mask alone is ready before. The gradient is that of the "
    "squared traction in the stiffness of every pixel: by the adjoint, in a loop of differences as one would without it (16 pixels only), and for "
    "scikit-fem by a second solution with the factor of SuperLU. The step of the U-Net is a training step with AdamW: one block a stage, 8 channels, "
    "two stages; in PyTorch the same layers as published, with normalisation over batches.",
    agree={"size": 1e-6, "slope": 1e-6},
    turns=5,
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax", "scipy"))
def ours(case, given):
    if case["do"] == "unet":
        return unet(given)
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from broadsheet.matter import ElasticSheet

    sheet, step = ElasticSheet(given["mask"], float(given["h"])), [0]
    if case["do"] == "solve":
        return lambda: {"size": np.abs(sheet.equilibrium(given["Y"], 1.0, 0.5).displacement).sum()}
    error = jax.jit(jax.value_and_grad(lambda Y: jnp.sum(sheet.solve(Y, 1.0, 0.5)[1] ** 2)))

    def run():
        step[0] += 1  # a new stiffness each time, as in training: nothing is found that was factored before
        scale = 1 + 1e-9 * step[0]
        return {"slope": np.abs(np.asarray(error(scale * jnp.asarray(given["Y"]))[1])).sum()}

    return run


def unet(given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from broadsheet.matter.traction_nets import UNet

    net = UNet(np.random.default_rng(0), 1, channels=8, stages=2, blocks=1)
    x, y = jnp.asarray(given["zyxin"][..., None]), jnp.moveaxis(jnp.asarray(given["force"]), 1, -1)
    rule = optax.adamw(1e-3)
    held = [net, rule.init(eqx.filter(net, eqx.is_array))]

    @eqx.filter_jit
    def step(net, state):
        slope = eqx.filter_grad(lambda net: jnp.mean((net(x) - y) ** 2))(net)
        updates, state = rule.update(slope, state, eqx.filter(net, eqx.is_array))
        return eqx.apply_updates(net, updates), state

    def run():
        held[:] = step(*held)
        jax.block_until_ready(held[0].tail.last.bias)
        return {}

    return run


@comparison.side("scikit-fem", environment="scikitfem", packages=("scikit-fem", "scipy"))
def fem(case, given):
    if case["do"] == "unet":
        raise RuntimeError("no network here")
    from sheet_fem import Sheet

    sheet = Sheet(given["mask"].astype(bool), float(given["h"]))
    if case["do"] == "solve":
        return lambda: {"size": np.abs(sheet.displacement(given["Y"], 0.5, given["active"])).sum()}
    return lambda: {"slope": np.abs(sheet.gradient(given["Y"], 0.5, given["active"])).sum()}


@comparison.side("differences", packages=("scipy",))
def differences(case, given):
    if case["do"] != "gradient" or case["size"] > 16:
        raise RuntimeError("for the small gradient only")
    from broadsheet.matter import ElasticSheet

    sheet, at = ElasticSheet(given["mask"], float(given["h"])), np.argwhere(given["mask"])

    def run():
        slope = np.zeros(given["Y"].shape)
        for place in map(tuple, at):
            values = []
            for sign in (1, -1):
                Y = given["Y"].copy()
                Y[place] *= 1 + sign * 1e-5
                values.append((sheet.equilibrium(Y, 1.0, 0.5).traction ** 2).sum())
            slope[place] = (values[0] - values[1]) / (2e-5 * given["Y"][place])
        return {"slope": np.abs(slope).sum()}

    return run


@comparison.side("PyTorch", environment="torch", packages=("torch",))
def torch_unet(case, given):
    if case["do"] != "unet":
        raise RuntimeError("for the U-Net only")
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, c, factor=4):
            super().__init__()
            self.deep = nn.Sequential(nn.Conv2d(c, c, 7, padding=3, groups=c), nn.BatchNorm2d(c), nn.Conv2d(c, factor * c, 1),
                                      nn.GELU(), nn.Conv2d(factor * c, c, 1))  # fmt: skip

        def forward(self, x):
            return x + self.deep(x)

    class Net(nn.Module):
        def __init__(self, c=8):
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), Block(c), nn.Conv2d(c, c, 3, padding=1))
            self.levels = nn.ModuleList()
            for k in (c, 2 * c):
                down = nn.Sequential(Block(k), nn.BatchNorm2d(k), nn.Conv2d(k, 2 * k, 4, stride=4), nn.GELU())
                up = nn.Sequential(Block(3 * k), nn.Conv2d(3 * k, k, 3, padding=1))
                self.levels.append(nn.ModuleList([Block(k), down, up]))
            self.bottom = Block(4 * c)
            self.tail = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), Block(c, 8), nn.Conv2d(c, 2, 3, padding=1))

        def forward(self, x):
            x, kept = self.head(x), []
            for beside, down, _ in self.levels:
                kept.append(beside(x))
                x = down(x)
            x = self.bottom(x)
            for (_, _, up), beside in zip(reversed(self.levels), reversed(kept), strict=True):
                x = up(torch.cat([nn.functional.interpolate(x, scale_factor=4), beside], dim=1))
            return self.tail(x)

    net, x, y = Net(), torch.tensor(given["zyxin"][:, None]), torch.tensor(given["force"])
    rule = torch.optim.AdamW(net.parameters(), 1e-3)

    def run():
        rule.zero_grad()
        loss = ((net(x) - y) ** 2).mean()
        loss.backward()
        rule.step()
        return {}

    return run
