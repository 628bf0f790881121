"""Waiting for what another process does."""

import time


def until(holds, seconds=60):
    """Asks again and again; what `holds` gives in the end. A test that waits longer than `seconds` fails."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
    return found
