import contextlib

import pytest

pytest.importorskip("fastapi", reason="The site is not here: pip install '.[readers]'")

from readership import Browser
from serving import free_port, served
from windows import WINDOWS

from broadsheet.lab.store import Store
from broadsheet.readers import accounts
from broadsheet.web.app import create
from broadsheet.web.settings import Settings


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


@pytest.fixture
def windows(browser, home):
    """name -> a window in which that reader is signed in; `mo` moderates. What the console says is an error."""
    port, store, opened, said = free_port(), Store(), {}, []
    url = f"http://localhost:{port}"
    settings = Settings(port=port, url=url, token="0123456789abcdef", meaning=False, readers=True)
    with served(create(settings, store), port):
        for name, (width, scheme, script) in WINDOWS.items():
            number, secret, _ = accounts.sign_in(store, f"{name}@example.org")
            accounts.rename(store, number, name.title())
            context = browser.new_context(
                base_url=url, viewport={"width": width, "height": 844}, color_scheme=scheme, java_script_enabled=script
            )
            context.add_cookies([{"name": "reader", "value": secret, "url": url}])
            opened[name] = context.new_page()
            opened[name].on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            opened[name].on("pageerror", lambda error: said.append(str(error)))
        accounts.set_role(store, "mo@example.org", "moderator")
        yield opened
        for page in opened.values():
            page.context.close()
    assert not said, said
