import contextlib

import pytest

pytest.importorskip("fastapi", reason="The site is not here: pip install '.[readers]'")

from readership import Browser

from broadsheet.lab.store import Store


@pytest.fixture
def letters(tmp_path):
    """Where the site's letters go."""
    return tmp_path / "letters"


@pytest.fixture
def site(home, letters):
    """A site with readers; `site()` is another browser at it, `site(address="a@example.org")` one that is signed in."""
    store, opened = Store(), contextlib.ExitStack()

    def visit(**options):
        browser = Browser(store, letters, **options)
        opened.callback(browser.close if options.get("app") else lambda: browser.__exit__(None, None, None))
        return browser

    yield visit
    opened.close()
