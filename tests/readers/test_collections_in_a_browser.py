"""A collection in a real browser, on a desktop and on a phone without JavaScript: made, ordered, followed as a feed."""

import feedparser
from windows import look


def slugs(page):
    return page.locator("ol.shelf > li").evaluate_all("items => items.map(item => item.id)")


def test_make_a_collection_and_follow_its_feed(windows):
    ada, ben = windows["ada"], windows["ben"]
    ben.goto("/papers/granet")
    ben.get_by_role("button", name="Read later").click()
    assert ben.get_by_role("button", name="Read later").get_attribute("aria-pressed") == "true"
    ben.get_by_role("link", name="Make a collection").click()
    ben.get_by_label("Title").fill("Sparse, and quick")
    ben.get_by_label("Everybody may see it").check()
    ben.get_by_role("button", name="Make a collection").click()
    ben.wait_for_url("**/collections/*")
    for paper in ("granet", "2306.16922"):
        ben.get_by_label("Add a paper", exact=False).fill(paper)
        ben.get_by_role("button", name="Add", exact=True).click()
    assert slugs(ben) == ["granet", "elm-neuron"]
    ben.get_by_role("button", name="Move up").click()
    assert slugs(ben) == ["elm-neuron", "granet"]
    ben.get_by_label("Note on", exact=False).first.fill("Read the <b>appendix</b>")
    ben.get_by_role("button", name="Keep the note").first.click()
    look(ben)

    ada.goto("/collections")
    look(ada)
    ada.get_by_role("link", name="Sparse, and quick").click()
    assert ada.get_by_text("Read the <b>appendix</b>").is_visible()
    assert not ada.get_by_role("button", name="Take out").count()
    look(ada)
    path = ada.get_by_role("link", name="Follow it as a feed").get_attribute("href")
    feed = feedparser.parse(ada.request.get(path).text())
    assert [entry.link.rpartition("/")[2] for entry in feed.entries] == ["granet", "elm-neuron"]
    assert "eprint = {2306.16922}" in ada.request.get(f"{ada.url}/export.bib").text()

    ada.goto("/submit")
    ada.get_by_label("Identifier or address").fill("https://example.org/ada/claims")
    ada.get_by_role("button", name="Bring it").click()
    assert ada.get_by_role("cell", name="waiting").is_visible()
    look(ada)
