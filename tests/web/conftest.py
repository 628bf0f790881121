from datetime import date

import pytest

pytest.importorskip("fastapi", reason="The site is not here: pip install '.[web]'")

from browsing import FRESH, client

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
