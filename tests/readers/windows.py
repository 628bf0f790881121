"""Windows of Chromium in which readers are signed in, on a desktop and on a phone."""

import pytest

WINDOWS = {"ada": (1280, "light", True), "ben": (390, "dark", False), "mo": (390, "light", True)}
"""reader -> width of the window, colours, whether it has JavaScript."""


def look(page):
    """Nothing serious for axe, and nothing over the edge; in a window of its own that lets axe in."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here: pip install '.[dev]'")
    width = page.viewport_size["width"]
    scheme = next(scheme for wide, scheme, _ in WINDOWS.values() if wide == width)
    context = page.context.browser.new_context(viewport=page.viewport_size, color_scheme=scheme, bypass_csp=True)
    context.add_cookies(page.context.cookies())
    copy = context.new_page()
    copy.goto(page.url)
    copy.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(copy).response["violations"]
    bad = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
    assert not bad, (page.url, bad)
    assert copy.evaluate("document.documentElement.scrollWidth") <= width, page.url
    context.close()
