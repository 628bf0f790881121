"""Non-negative tensor factors: ours, of ten starts side by side, against TensorLy's HALS and multiplicative updates."""

import numpy as np

from harness import Comparison

RANK = 5
SIZES = {
    "240 frames, 6 animals, 276 pairs (24 neurons)": (240, 6, 276),
    "240 frames, 20 animals, 780 pairs (40 neurons)": (240, 20, 780),
    "480 frames, 20 animals, 780 pairs (40 neurons)": (480, 20, 780),
    "960 frames, 20 animals, 780 pairs (40 neurons)": (960, 20, 780),
    "240 frames, 20 animals, 3160 pairs (80 neurons)": (240, 20, 3160),
}


def inputs(case):
    """Five components under gamma noise, and the same first factors for all sides."""
    rng = np.random.default_rng(0)
    shape = case["shape"]
    parts = [rng.gamma(0.5, size=(size, RANK)) for size in shape]
    tensor = np.einsum("tr,wr,pr->twp", *parts, optimize=True)
    return {"tensor": (tensor + rng.gamma(0.5, size=shape) * tensor.mean()).astype(np.float32)}


comparison = Comparison(
    "Non-negative factors of a tensor of time, animals and pairs",
    {name: {"shape": shape, "starts": 1} for name, shape in SIZES.items()}
    | {f"{name}, ten starts": {"shape": SIZES[name], "starts": 10} for name in list(SIZES)[:2]},
    inputs,
    text="Rank 5 from random starts until the relative error falls by less than 1e-6 a sweep; the best error of the starts. TensorLy on NumPy, "
    "which runs one start after the other. The cases of 240, 480 and 960 frames, and of 24, 40 and 80 neurons, are the cost curves.",
    agree={"error": 3e-3},  # of the error, about 1e-3 of the tensor
    shown={"error": "relative error"},
    turns=3,
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",))
def ours(case, given):
    from broadsheet.recordings.tensor_factors import NTF

    model = NTF(RANK, n_starts=case["starts"])
    return lambda: {"error": model.fit(given["tensor"]).error_}


def theirs(case, given, decompose):
    import tensorly

    tensor = tensorly.tensor(given["tensor"])
    size = float(tensorly.norm(tensor))

    def run():
        errors = []
        for start in range(case["starts"]):
            found = decompose(tensor, start)
            errors.append(float(tensorly.norm(tensor - tensorly.cp_to_tensor(found))) / size)
        return {"error": min(errors)}

    return run


@comparison.side("TensorLy, HALS", packages=("tensorly",))
def hals(case, given):
    from tensorly.decomposition import non_negative_parafac_hals

    return theirs(
        case, given,
        lambda tensor, start: non_negative_parafac_hals(tensor, RANK, n_iter_max=500, init="random", tol=1e-6, random_state=start),
    )  # fmt: skip


@comparison.side("TensorLy, multiplicative", packages=("tensorly",))
def multiplicative(case, given):
    from tensorly.decomposition import non_negative_parafac

    return theirs(
        case, given,
        lambda tensor, start: non_negative_parafac(tensor, RANK, n_iter_max=500, init="random", tol=1e-6, random_state=start),
    )  # fmt: skip
