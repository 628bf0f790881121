"""Makes `src/broadsheet/recordings/worm/connectomes.npz` from the cached readers of ConnectomeToolbox (`cect`, MIT).

    python bench/references_worm.py FOLDER_OF_CECT_0.3.5 FOLDER_OF_CECT_0.2.5

Each is the package's own folder (with `cache/` in it), as `pip install --no-deps cect==…` leaves it. White's two
reconstructions with muscles are in 0.2.5 alone; its Cook tables are from before the correction of gap junctions, so that these
are taken from 0.3.5.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src/broadsheet/recordings/worm/connectomes.npz"
NEW = {
    "white": "White_whole",
    "durbin_n2u": "DurbinN2UDataReader",
    "durbin_jsh": "DurbinJSHDataReader",
    "varshney": "VarshneyDataReader",
    "cook2019h": "Cook2019HermReader",
    "cook2019m": "Cook2019MaleReader",
    **{f"witvliet{k}": f"WitvlietDataReader{k}" for k in range(1, 9)},
}
OLD = {"white_a": "White_A", "white_l4": "White_L4"}


def main(new: Path, old: Path) -> None:
    read = {}
    for folder, names in ((new, NEW), (old, OLD)):
        for name, stem in names.items():
            read[name] = json.loads((folder / "cache" / f"{stem}.json").read_text())
    every = sorted({cell for data in read.values() for cell in data["nodes"]})
    arrays = {"cells": np.frombuffer("\n".join(every).encode(), np.uint8)}
    for name, data in sorted(read.items()):
        cells = sorted(data["nodes"])
        order = [data["nodes"].index(cell) for cell in cells]
        chem, gap = (np.array(data["connections"][kind])[np.ix_(order, order)] for kind in ("Generic_CS", "Generic_GJ"))
        if not (gap == gap.T).all():
            raise SystemExit(f"{name}: gap junctions are not symmetric.")
        arrays[f"{name}.cells"] = np.array([every.index(cell) for cell in cells], np.uint16)
        for kind, matrix in (("chemical", chem), ("electrical", np.triu(gap))):
            pre, post = np.nonzero(matrix)
            weight = matrix[pre, post]
            if (weight != weight.astype(np.uint16)).any():
                raise SystemExit(f"{name}: weights are no small whole numbers.")
            arrays[f"{name}.{kind}"] = np.stack([pre, post, weight]).astype(np.uint16)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB, {len(read)} maps")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
