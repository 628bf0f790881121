"""Binary synapses between cues and contents, against dictionaries."""

import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.networks.pair_memories import BinaryPairs


@pytest.mark.parametrize("overwrites", [False, True])
def test_stores_and_searches_as_a_dictionary_does(overwrites):
    rng = np.random.default_rng(0)
    memory, known = BinaryPairs(3, 4, 6, overwrites=overwrites), [{cue: set() for cue in range(4)} for _ in range(3)]
    for _ in range(9):
        cues, contents = np.eye(4, dtype=bool)[rng.integers(0, 4, 3)], rng.random((3, 6)) < 0.4
        memory.store(cues, contents)
        for table, cue, content in zip(known, cues, contents, strict=True):
            bits = set(np.flatnonzero(content).tolist())
            table[int(cue.argmax())] = bits if overwrites else table[int(cue.argmax())] | bits
    for cue in range(4):
        found = memory.contents(np.tile(np.eye(4, dtype=bool)[cue], (3, 1)))
        assert [set(np.flatnonzero(row).tolist()) for row in found] == [table[cue] for table in known]
    found = memory.cues(np.tile(np.arange(6) < 2, (3, 1)))
    expected = [{cue for cue, bits in table.items() if bits & {0, 1}} for table in known]
    assert [set(np.flatnonzero(row).tolist()) for row in found] == expected


def test_sizes_are_one_or_more():
    with pytest.raises(InputError, match="cues = 0"):
        BinaryPairs(1, 0, 3)
