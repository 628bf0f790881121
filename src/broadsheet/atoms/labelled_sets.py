"""Labelled sets beside the plain one: of small molecules, whose sets share one compiled program, and of more frames than memory
holds with their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from broadsheet.atoms.potential import Potential
from broadsheet.atoms.structures import batch_atoms, bucket
from broadsheet.atoms.training import LabelledSet, Pair
from broadsheet.atoms.trajectories import TrajectorySet
from broadsheet.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

SMALL = 16
"""Atoms up to which each may be each other's neighbour."""
PART = 512
"""Frames that are looked at together to find the most neighbours of an atom."""


class EvenSet(LabelledSet):
    """As `LabelledSet`, with room in each batch for any of its structures, in steps of four atoms: what is compiled for one set
    of small molecules serves the others.
    """

    def __init__(self, structures: Sequence[Atoms], potential: Potential, stress: bool = False):
        super().__init__(structures, potential, stress)
        self._largest = bucket(int(self.sizes.max()), 4)
        more = self._largest - self.width
        if self._largest > SMALL or more <= 0:  # larger structures have fewer neighbours than atoms
            return
        own = np.arange(int(self.sizes.sum())) - np.repeat(self._starts, self.sizes)  # padding points at the atom itself
        for name, each in self._lists.items():
            fill = own[:, None] if name == "index" else np.zeros((), int)
            shape = (len(own), more, *each.shape[2:])
            self._lists[name] = np.concatenate([each, np.broadcast_to(fill, shape).astype(each.dtype)], axis=1)
        self.width += more

    def room(self, size: int) -> int:
        return bucket(size * self._largest)


class StreamedSet(LabelledSet):
    """As `LabelledSet`, of a `TrajectorySet`: it keeps positions and labels alone, and finds neighbours for each batch.

    A first pass finds how many neighbours an atom has at most, so that all batches have one shape.

    **Raises:** `DataError` without frames.
    """

    def __init__(self, data: TrajectorySet, potential: Potential):
        if not len(data):
            raise DataError("There are no structures to train on.")
        self.data, self.potential, self.stress = data, potential, False
        self.sizes = np.diff(data.first)
        parts = (np.arange(k, min(k + PART, len(data))) for k in range(0, len(data), PART))
        self.width = max(potential.neighbours(batch_atoms(data.frames(part), motion=False)).width for part in parts)

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, chosen: Sequence[int] | np.ndarray, atoms: int | None = None, count: int | None = None) -> Pair:
        count = len(chosen) if count is None else count
        made = batch_atoms(
            self.data.frames(chosen), atoms=self.room(count) if atoms is None else atoms, count=count, motion=False
        )
        return made, self.potential.neighbours(made, width=self.width)
