"""Residual networks from files with torchvision's names, against torch's own convolutions and normalisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from broadsheet.errors import DataError, UntrustedError
from broadsheet.vision.resnet import read_resnet
from resnets import write_resnet

torch = pytest.importorskip("torch")


def by_torch(arrays, x):
    """The same network, one operation after another, with its normalisations apart."""
    f = torch.nn.functional
    t = {name: torch.tensor(value) for name, value in arrays.items()}

    def apply(x, conv, norm, stride):
        w = t[f"{conv}.weight"]
        x = f.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
        return f.batch_norm(*(x, t[f"{norm}.running_mean"], t[f"{norm}.running_var"], t[f"{norm}.weight"], t[f"{norm}.bias"]))

    big = t["conv1.weight"].shape[-1] == 7
    x = torch.relu(apply(torch.tensor(x), "conv1", "bn1", 2 if big else 1))
    x = f.max_pool2d(x, 3, 2, 1) if big else x
    for place in dict.fromkeys(".".join(name.split(".")[:2]) for name in arrays if name.startswith("layer")):
        stride = 2 if place.endswith(".0") and not place.startswith("layer1") else 1
        count = 3 if f"{place}.conv3.weight" in t else 2
        y = x
        for n in range(1, count + 1):
            y = apply(y, f"{place}.conv{n}", f"{place}.bn{n}", stride if n == count - 1 else 1)
            y = torch.relu(y) if n < count else y
        if f"{place}.downsample.0.weight" in t:
            x = apply(x, f"{place}.downsample.0", f"{place}.downsample.1", stride)
        x = torch.relu(x + y)
    return (x.mean(dim=(2, 3)) @ t["fc.weight"].T + t["fc.bias"]).numpy()


@pytest.mark.parametrize(("side", "bottleneck"), [(3, False), (7, True)])
def test_answers_are_torchs(tmp_path, side, bottleneck):
    arrays = write_resnet(tmp_path / "model.safetensors", side=side, bottleneck=bottleneck)
    model = read_resnet(tmp_path / "model.safetensors")
    x = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype("f4")
    theirs = by_torch(arrays, x)
    np.testing.assert_allclose(jax.jit(jax.vmap(model))(jnp.asarray(x)), theirs, atol=2e-5 * np.abs(theirs).max())


def test_other_files_are_refused(tmp_path):
    arrays = write_resnet(tmp_path / "model.safetensors", side=3, bottleneck=False)
    for change, match in (
        ({"classifier.weight": np.zeros(3)}, "it has classifier.weight"),
        ({"fc.bias": np.full(5, np.nan, "f4")}, "not finite"),
    ):
        save_file(arrays | change, tmp_path / "other.safetensors")
        with pytest.raises(DataError, match=match):
            read_resnet(tmp_path / "other.safetensors")
    save_file({name: value for name, value in arrays.items() if name != "fc.bias"}, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match=r"it has no fc\.bias"):
        read_resnet(tmp_path / "part.safetensors")
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UntrustedError, match="pickle"):
        read_resnet(tmp_path / "model.pt")
