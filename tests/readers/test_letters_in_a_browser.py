"""Following by mail in a real browser, on a desktop and on a phone: the form, the link, the letter itself, the way out."""

import re

import pytest
from followers import TODAY
from serving import free_port, served
from smtp import MailServer

from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts
from broadsheet.readers import subscriptions
from broadsheet.web.app import create
from broadsheet.web.settings import Settings
from commands import call
from waiting import follow, until

TITLE = r"Schr\"odinger meets $\Psi$ in a title_that_is_one_very_long_word_without_any_place_to_break_it_for_narrow_windows"


def look(page, path, width, scheme):
    """Nothing serious for axe, and nothing over the edge; in a window of its own that lets axe in."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here: pip install '.[dev]'")
    context = page.context.browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True, base_url=page.url
    )
    copy = context.new_page()
    if path.startswith("<"):
        copy.set_content(path)
    else:
        copy.goto(path)
    found = axe.Axe().run(copy).response["violations"]
    bad = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
    assert not bad, (path[:80], bad)
    assert copy.evaluate("document.documentElement.scrollWidth") <= width, path[:80]
    context.close()


@pytest.mark.parametrize(("width", "scheme", "script"), [(1280, "light", True), (320, "dark", False)])
def test_subscribe_confirm_read_and_leave(browser, home, width, scheme, script):
    store, port = Store(), free_port()
    Catalogue(store).add("hub", [Facts(TITLE, arxiv="2611.00001", abstract="We find it. " * 40, published=str(TODAY))], TODAY)
    url = f"http://localhost:{port}"
    with MailServer() as mail:
        settings = Settings(port=port, url=url, meaning=False, readers=True, mail=mail.url, sender="papers@example.org")
        with served(create(settings, store), port):
            context = browser.new_context(
                base_url=url, viewport={"width": width, "height": 844}, color_scheme=scheme, java_script_enabled=script
            )
            page = context.new_page()
            page.goto("/")
            form = page.locator("form.by-mail")
            form.get_by_label("E-mail address").fill("ada@example.org")
            form.get_by_label("How often").select_option("daily")
            form.get_by_role("button", name="Subscribe").click()
            page.get_by_role("heading", name="Look into your mailbox").wait_for()
            (letter,) = until(lambda: mail.mailbox.to("ada@example.org"))
            link = re.search(rf"{url}(/confirm/\S+)", letter.get_content())[1]
            look(page, link, width, scheme)
            page.goto(link)
            page.get_by_role("button", name="Yes, send me these letters").click()
            page.get_by_role("heading", name="You are subscribed").wait_for()

            call("digest", "--mail", mail.url, "--mail-from", "papers@example.org", "--url", url, "--no-meaning")
            digest = mail.mailbox.to("ada@example.org")[1]
            html = digest.get_body(("html",)).get_content()
            look(page, html, 320, scheme)
            page.goto("about:blank")
            asked = []
            page.on("request", lambda request: asked.append(request.url))
            page.set_content(html)
            assert not asked  # a letter loads nothing
            page.get_by_role("link", name=re.compile("Schrödinger")).click()
            page.wait_for_url("**/papers/**")

            leave = digest["List-Unsubscribe"].strip().strip("<>")
            look(page, leave, width, scheme)
            page.goto(leave)
            page.get_by_role("button", name="Unsubscribe", exact=True).click()
            page.get_by_role("heading", name="You are unsubscribed").wait_for()
            assert subscriptions.addresses(store, subscriptions.Followed("trending"), "daily") == []
            for path in ("/subscribe?kind=verdicts", "/"):
                look(page, path, width, scheme)
            context.close()


def test_what_an_account_gets(browser, home):
    from broadsheet.readers import accounts

    store, port = Store(), free_port()
    url = f"http://localhost:{port}"
    settings = Settings(port=port, url=url, meaning=False, readers=True, mail="smtp://127.0.0.1:9", sender="papers@example.org")
    with served(create(settings, store), port):
        _, secret, _ = accounts.sign_in(store, "ada@example.org")
        context = browser.new_context(base_url=url, viewport={"width": 390, "height": 844}, bypass_csp=True)
        context.add_cookies([{"name": "reader", "value": secret, "url": url}])
        page = context.new_page()
        page.goto("/topics")
        page.goto("/verdicts")
        follow(page.get_by_role("link", name="Follow changed verdicts by mail"))
        follow(page.get_by_role("button", name="Subscribe"))
        assert page.url.endswith("/account/subscriptions")
        follow(page.get_by_role("button", name="Subscribe"))
        page.get_by_role("listitem").filter(has_text="Trending papers").get_by_label("How often").select_option("weekly")
        follow(page.get_by_role("listitem").filter(has_text="Trending papers").get_by_role("button", name="Change"))
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here: pip install '.[dev]'")
        found = axe.Axe().run(page).response["violations"]
        assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("button", name="End Verdicts that changed").click()
        page.get_by_role("link", name="Verdicts that changed").wait_for(state="detached")
        (one,) = subscriptions.of_account(store, 1)
        assert (one.followed.kind, one.rhythm) == ("trending", "weekly")
        context.close()
