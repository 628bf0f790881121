"""The spectrum of 15 000 representations of width 2048: streaming covariance against a full decomposition."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Features (texts, width) with a power-law spectrum, in float32 as a model gives them."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, case["width"] + 1) ** -0.5
    features = rng.standard_normal((case["texts"], case["width"]), dtype=np.float32) * scale
    return {"features": features.astype(np.float32)}


comparison = Comparison(
    "Spectrum of a covariance, 15 000 x 2048, in float64",
    {"15 000 x 2048": {"texts": 15_000, "width": 2048}},
    inputs,
    text="Descending eigenvalues of the centred covariance, from float32 features in batches of 512. RankMe of them agrees to "
    "nine digits.",
    agree={"rankme": 1e-9},
)


def rankme(values):
    p = values / values.sum() + 1e-7
    return float(np.exp(-np.sum(p * np.log(p))))


@comparison.side("broadsheet", packages=("numpy", "scipy"))
def ours(case, given):
    from broadsheet.language.geometry import spectrum_of

    def run():
        batches = (given["features"][k : k + 512] for k in range(0, case["texts"], 512))
        return {"rankme": rankme(spectrum_of(batches))}

    return run


@comparison.side("SciPy, full SVD", packages=("scipy",))
def full(case, given):
    from scipy.linalg import svdvals

    def run():
        features = given["features"].astype(np.float64)
        values = svdvals(features - features.mean(0), overwrite_a=True) ** 2 / (case["texts"] - 1)
        return {"rankme": rankme(values)}

    return run


@comparison.side("scikit-learn, PCA", packages=("scikit-learn",))
def pca(case, given):
    from sklearn.decomposition import PCA

    def run():
        return {"rankme": rankme(PCA(svd_solver="full").fit(given["features"].astype(np.float64)).explained_variance_)}

    return run
