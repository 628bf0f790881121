from datetime import date

import pytest

pytest.importorskip("fastapi", reason="The site is not here: pip install '.[web]'")

from browsing import CHROMIUM, FRESH, client

from broadsheet.page import Catalogue


@pytest.fixture
def page(home):
    """A home with two imported papers beside those that ship."""
    Catalogue().add("hub", FRESH, date(2025, 12, 11))
    return home


@pytest.fixture
def site(page):
    """The site, asked from this machine."""
    with client() as made:
        yield made


@pytest.fixture(scope="session")
def browser():
    """Chromium through Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not here: pip install '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is not here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()
