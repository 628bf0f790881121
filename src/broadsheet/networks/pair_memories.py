"""Pairs of a cue and a content in a matrix of binary synapses: what a memory of such pairs is without neurons or time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from broadsheet.errors import InputError


class BinaryPairs:
    """Synapses (cues, bits) that are there or not, read in both directions, in many memories at once.

    A store switches on the synapses between its cue and its bits: Hebb's rule, as in a Hopfield network of 0/1 units whose cue
    is held and which is read after one step. With `overwrites` it also switches off those from the cue to all other bits, which
    is the delta rule at a rate of 1.

    **Arguments:** `memories`, `cues`, `bits`: sizes, 1 or more; `overwrites`: which of the two rules it is.
    """

    def __init__(self, memories: int, cues: int, bits: int, *, overwrites: bool = False) -> None:
        if min(memories, cues, bits) < 1:
            raise InputError(f"memories = {memories}, cues = {cues} and bits = {bits}; 1 or more of each are wanted.")
        self.overwrites = overwrites
        self.synapses: Bool[np.ndarray, "memories cues bits"] = np.zeros((memories, cues, bits), bool)

    def store(self, cues: Bool[np.ndarray, "memories cues"], contents: Bool[np.ndarray, "memories bits"]) -> None:
        """Stores a content in each memory, under the cues that are on."""
        pairs = cues[:, :, None] & contents[:, None, :]
        kept = self.synapses & ~cues[:, :, None] if self.overwrites else self.synapses
        self.synapses = kept | pairs

    def contents(self, cues: Bool[np.ndarray, "memories cues"]) -> Bool[np.ndarray, "memories bits"]:
        """The bits with a synapse from a cue that is on."""
        return (self.synapses & cues[:, :, None]).any(axis=1)

    def cues(self, bits: Bool[np.ndarray, "memories bits"]) -> Bool[np.ndarray, "memories cues"]:
        """The cues with a synapse to a bit that is on."""
        return (self.synapses & bits[:, None, :]).any(axis=2)
