"""Writes tests/references/elastic_sheet.json: a small sheet solved by scikit-fem.

python bench/references_sheet.py        in an environment with scikit-fem
"""

import json
from pathlib import Path

import numpy as np

from sheet_fem import Sheet

rng = np.random.default_rng(0)
y, x = np.mgrid[:14, :12] - np.array([6.5, 5.5])[:, None, None]
mask = np.hypot(x, 0.9 * y) < 4.6
Y = np.where(mask, 0.02 + 0.3 * rng.random(mask.shape), 0).round(4)
active = rng.normal(size=(3, *mask.shape)).round(3)
h, sigma_a, alpha = 0.8, 1.1, 0.45
whole = active + sigma_a * np.array([1.0, 1.0, 0.0])[:, None, None]
found = Sheet(mask, h).displacement(Y, alpha, whole)
told = {"h": h, "sigma_a": sigma_a, "alpha": alpha, "mask": mask.astype(int).tolist(), "Y": Y.tolist(),
        "active": active.tolist(), "displacement": found.round(10).tolist()}  # fmt: skip
target = Path(__file__).parent.parent / "tests" / "references" / "elastic_sheet.json"
target.write_text(json.dumps(told) + "\n")
