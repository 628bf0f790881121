"""Readers in a real browser, on a desktop and on a phone: vote, comment, report, moderate; axe looks at each page."""

import re

import pytest
from serving import free_port, served

from broadsheet.lab.store import Store
from broadsheet.readers import accounts
from broadsheet.web.app import create
from broadsheet.web.settings import Settings

PAPER = "elm-neuron"
WINDOWS = {"ada": (1280, "light", True), "ben": (390, "dark", False), "mo": (390, "light", True)}
"""reader -> width of the window, colours, whether it has JavaScript."""


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


def test_vote_comment_report_and_moderate(windows):
    ada, ben, mo = windows["ada"], windows["ben"], windows["mo"]
    ada.goto(f"/search?q={PAPER}")
    button = ada.locator(f"#v-{PAPER} button")
    assert button.get_attribute("aria-pressed") == "false"
    button.focus()
    ada.keyboard.press("Enter")
    ada.wait_for_url(f"**/search?q={PAPER}#v-{PAPER}")
    assert button.get_attribute("aria-pressed") == "true"
    look(ada)

    ada.goto(f"/papers/{PAPER}")
    claim = ada.locator("article.claim").first.get_attribute("id")
    ada.locator(".beneath").first.get_by_role("link", name=re.compile("Discuss")).click()
    ada.get_by_label("I could not reproduce this").check()
    ada.get_by_label("Your comment").fill("With **three** seeds $\\tau_m = 5$ it does not. <script>alert(1)</script>")
    ada.get_by_role("button", name="Comment").click()
    ada.wait_for_url(f"**/papers/{PAPER}/claims/{claim}/discussion#comment-1")
    comment = ada.locator("#comment-1")
    assert "could not reproduce this" in comment.inner_text()
    assert comment.locator("math").is_visible()
    look(ada)

    ben.goto(f"/papers/{PAPER}")
    assert "1 could not reproduce this" in ben.locator(".beneath").first.inner_text()
    ben.locator(".beneath").first.get_by_role("link", name="Quote").click()
    assert ben.get_by_label("Your comment").input_value().startswith(f"[[{claim}]]")
    ben.get_by_label("Your comment").fill(f"[[{claim}]] surprises me")
    ben.get_by_role("button", name="Comment").click()
    assert ben.locator("#comment-2 q").is_visible()
    ben.goto(f"/papers/{PAPER}/claims/{claim}/discussion")
    ben.get_by_text("Report").click()
    ben.get_by_label("What is wrong with it").fill("It says nothing of the data")
    ben.get_by_role("button", name="Tell a moderator").click()
    assert "A moderator will look" in ben.get_by_role("status").inner_text()
    ben.get_by_role("link", name="Back to the comment").click()
    ben.get_by_text("Answer", exact=False).first.click()
    ben.locator("#comment-1").get_by_label("Your answer").fill("Which data?")
    ben.locator("#comment-1").get_by_role("button", name="Answer").click()
    assert "Which data?" in ben.locator("#comment-1 .answers").inner_text()
    ben.goto(f"/papers/{PAPER}")
    look(ben)

    mo.goto("/")
    mo.get_by_role("link", name="Moderation").click()
    assert "It says nothing of the data" in mo.locator("#case-1").inner_text()
    look(mo)
    mo.locator("#case-1").get_by_role("button", name=re.compile("^Hide comment")).click()
    mo.locator("#hidden ~ details summary").click()
    assert mo.locator("#case-1").get_by_role("button", name=re.compile("Show again")).is_visible()
    ada.goto(f"/papers/{PAPER}/claims/{claim}/discussion")
    assert "Hidden by a moderator" in ada.locator("#comment-1").inner_text()
    assert "three" not in ada.locator("#discussion").inner_text()
    for page, path in ((ada, "/about/trending"), (ada, "/account/comments"), (ben, f"/papers/{PAPER}/discussion")):
        page.goto(path)
        look(page)
