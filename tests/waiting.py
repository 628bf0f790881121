"""Waiting for what another process does, and for pages of a browser."""

import time


def until(holds, seconds=60):
    """Asks again and again; what `holds` gives in the end. A test that waits longer than `seconds` fails."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
    return found


def follow(locator):
    """Click what leads to another page, or sends a form, and wait until the page that answers is there, whole."""
    with locator.page.expect_navigation():
        locator.click()
