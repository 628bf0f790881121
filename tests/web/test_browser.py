"""A reader in a real browser: finds a paper, opens it, starts a run, watches it, follows a feed."""

import re
import time
from datetime import date

import pytest
from browsing import FRESH
from test_serve import Site

from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts
from waiting import follow

PAGES = (
    "/", "/day/2025-12-11", "/trending", "/topics", "/search?q=dendritc+neuron", "/search?q=zzyzx", "/papers/elm-neuron", "/papers/granet",
    "/papers/fresh-paper-without-system", "/compare?paper=hlop&paper=escaip", "/verdicts", "/runs", "/about/api", "/nope",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of this module's own, with its runner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROADSHEET_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("BROADSHEET_DATABASE", raising=False)
        Catalogue().add("hub", FRESH, date(2025, 12, 11))
        made = Site()
        yield made
        made.stop()


@pytest.fixture
def reader(browser, site):
    """A desktop window; whatever the browser's console says is an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=site.url)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert not [text for text in said if "404" not in text], said


def wait(page, expression, seconds=60):
    """Until a JavaScript expression is true; asked from outside, because the page's policy forbids `eval`."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(100)


def test_find_open_run_watch_and_follow(reader, site):
    reader.goto("/")
    assert reader.locator("h2.date").first.inner_text().startswith("11 December 2025")
    reader.get_by_label("Search papers").fill("coincident synapses on a dendritic segment")
    reader.keyboard.press("Enter")
    reader.wait_for_url("**/search?*")
    follow(reader.locator("article h2 a").first)
    assert reader.url.endswith("/papers/sdr-dendrites")
    assert reader.locator("#claims article").count() >= 5

    reader.get_by_label("Run", exact=True).select_option("online")
    reader.get_by_role("button", name="Start").click()
    reader.wait_for_url("**/papers/sdr-dendrites#running")
    job = reader.locator(".job")
    assert job.is_visible()  # at once: it is in the page that was sent
    assert "online" in job.inner_text()
    reader.evaluate("scrollTo(0, document.body.scrollHeight)")
    reader.locator(".elsewhere").wait_for(timeout=60_000)
    assert "online" in reader.locator(".elsewhere").inner_text()
    wait(reader, "/ \\d+ %/.test(document.querySelector('.job')?.textContent)")
    wait(reader, "document.querySelector('.job progress')?.value > 0")
    before = reader.locator("#e-online img").first.get_attribute("src")
    wait(reader, "document.querySelector('.job .meta')?.textContent === 'done'", 120)
    wait(reader, f"document.querySelector('#e-online img').getAttribute('src') !== '{before}'")
    reader.locator("#e-online img").first.scroll_into_view_if_needed()
    wait(reader, "document.querySelector('#e-online img').naturalWidth > 0")
    reader.locator("#claims .here").first.wait_for(timeout=60_000)
    assert re.search(r"holds|fails|vacuous", reader.locator("#claims .here").first.inner_text())
    reader.get_by_text(re.compile(r"^\d+ runs? of this site")).click()
    assert "online" in reader.locator("#provenance table").inner_text()

    reader.goto("/search?q=dendrites")
    feed = reader.get_by_role("link", name="Follow this search as a feed").get_attribute("href")
    answer = reader.request.get(feed)
    assert answer.headers["content-type"].startswith("application/atom+xml")
    assert "sdr-dendrites" in answer.text()


def test_live_curves_are_drawn(reader, site):
    (job,) = site.post("/api/v1/jobs", {"slug": "elm-neuron", "experiment": "recall", "preset": "quick"})
    reader.goto("/papers/elm-neuron")
    wait(reader, "document.querySelectorAll('.job .curve polyline').length > 0")
    wait(
        reader,
        "[...document.querySelectorAll('.job polyline')].some(line => line.getAttribute('points').split(' ').length > 2)",
    )
    reader.goto("/runs")
    reader.locator(".job").wait_for(timeout=60_000)
    reader.request.delete(f"/api/v1/jobs/{job['id']}")
    wait(reader, "/cancelled/.test(document.querySelector('.job')?.textContent)")


def test_administrator_imports_a_page_by_form(reader, tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<html><article><h3><a href="/papers/2512.00077">Imported by hand</a></h3><p>x</p></article></html>')
    reader.goto("/runs")
    reader.get_by_label("A saved page").set_input_files(page)
    reader.get_by_label("Day of the page").fill("2025-12-12")
    follow(reader.get_by_role("button", name="Import"))
    assert "1 paper: 1 new" in reader.get_by_role("status").inner_text()
    reader.wait_for_timeout(1000)
    reader.goto("/day/2025-12-12")
    assert reader.locator("article h2").inner_text() == "Imported by hand"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious_and_nothing_runs_over_the_edge(browser, site, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here: pip install '.[dev]'")
    context = browser.new_context(
        viewport={"width": width, "height": 844}, base_url=site.url, color_scheme=scheme, bypass_csp=True
    )  # fmt: skip
    page = context.new_page()
    for path in PAGES:
        page.goto(path, wait_until="load")
        found = axe.Axe().run(page).response["violations"]
        bad = [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")]
        assert not bad, (path, bad)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()


def test_reading_and_searching_work_without_javascript(browser, site):
    context = browser.new_context(java_script_enabled=False, base_url=site.url)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Search papers").fill("overwrite what they knew")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?*")
    follow(page.locator("article h2 a").first)
    assert page.locator("#claims article").count() > 3
    page.get_by_label("on", exact=True).select_option("0")
    assert page.locator("figure img").first.is_visible()
    context.close()


def test_the_keyboard_reaches_everything(reader):
    reader.goto("/")
    reader.keyboard.press("Tab")
    assert reader.evaluate("document.activeElement.textContent") == "Skip to the content"
    reader.keyboard.press("Enter")
    assert reader.evaluate("document.activeElement.id") == "content"
    reader.keyboard.press("Tab")
    assert reader.evaluate("document.activeElement.closest('nav').getAttribute('aria-label')") == "Period"


def test_suggestions_by_keyboard(reader):
    reader.goto("/")
    field = reader.get_by_label("Search papers")
    field.press_sequentially("leaky mem")
    option = reader.get_by_role("option").first
    option.wait_for(timeout=60_000)
    assert "Leaky Memory Neuron" in option.inner_text()
    assert field.get_attribute("aria-expanded") == "true"
    reader.keyboard.press("ArrowDown")
    assert field.get_attribute("aria-activedescendant") == option.get_attribute("id")
    assert reader.evaluate("document.activeElement.id") == "q"
    reader.keyboard.press("Escape")
    assert not option.is_visible()
    field.press_sequentially("o")
    option.wait_for(timeout=60_000)
    reader.keyboard.press("ArrowDown")
    reader.keyboard.press("Enter")
    reader.wait_for_url("**/papers/elm-neuron")


def test_code_is_copied_by_a_button(browser, site):
    context = browser.new_context(base_url=site.url, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto("/papers/fresh-paper-without-system")
    button = page.locator("#cite ~ .copied button")
    button.click()
    wait(page, "document.querySelector('#cite ~ .copied button').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith("@misc{fresh-paper-without-system,")
    context.close()


def test_a_phone_scrolls_in_one_direction_and_not_far(browser, site):
    Catalogue().add(
        "hub", [Facts(f"Number {k}", abstract="An abstract of some length. " * 30) for k in range(42)], date(2025, 12, 12)
    )
    for experiment in ("online", "union"):
        site.post("/api/v1/jobs", {"slug": "sdr-dendrites", "experiment": experiment, "preset": "smoke"})
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url=site.url)
    page = context.new_page()
    page.goto("/")
    wait(page, "document.querySelector('.more') !== null || (location.reload(), false)")
    assert page.evaluate("document.documentElement.scrollHeight") < 6000
    for path in ("/runs", "/compare?paper=hlop&paper=escaip&paper=transip"):
        page.goto(path)
        assert page.locator("table.stacked tbody tr").first.is_visible()
        wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).length"
        assert page.evaluate(wide) == 0, path
    context.close()


def test_it_prints_without_furniture(reader):
    reader.goto("/papers/elm-neuron")
    reader.emulate_media(media="print")
    assert not reader.locator(".masthead nav").is_visible()
    assert not reader.locator(".start").is_visible()
    assert reader.locator("#claims table").first.is_visible()
