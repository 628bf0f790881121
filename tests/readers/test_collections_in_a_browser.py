"""A collection in a real browser, on a desktop and on a phone without JavaScript: made, ordered, followed as a feed."""

import feedparser
from windows import look

from waiting import follow


def slugs(page):
    return page.locator("ol.shelf > li").evaluate_all("items => items.map(item => item.id)")


def test_make_a_collection_and_follow_its_feed(windows):
    ada, ben = windows["ada"], windows["ben"]
    ben.goto("/papers/granet")
    follow(ben.get_by_role("button", name="Read later"))
    assert ben.get_by_role("button", name="Read later").get_attribute("aria-pressed") == "true"
    follow(ben.get_by_role("link", name="Make a collection"))
    ben.get_by_label("Title").fill("Sparse, and quick")
    ben.get_by_label("Everybody may see it").check()
    follow(ben.get_by_role("button", name="Make a collection"))
    for paper in ("granet", "2306.16922"):
        ben.get_by_label("Add a paper", exact=False).fill(paper)
        follow(ben.get_by_role("button", name="Add", exact=True))
    assert slugs(ben) == ["granet", "elm-neuron"]
    follow(ben.get_by_role("button", name="Move up"))
    assert slugs(ben) == ["elm-neuron", "granet"]
    ben.get_by_label("Note on", exact=False).first.fill("Read the <b>appendix</b>")
    follow(ben.get_by_role("button", name="Keep the note").first)
    look(ben)

    ada.goto("/collections")
    look(ada)
    follow(ada.get_by_role("link", name="Sparse, and quick"))
    assert ada.get_by_text("Read the <b>appendix</b>").is_visible()
    assert not ada.get_by_role("button", name="Take out").count()
    look(ada)
    path = ada.get_by_role("link", name="Follow it as a feed").get_attribute("href")
    feed = feedparser.parse(ada.request.get(path).text())
    assert [entry.link.rpartition("/")[2] for entry in feed.entries] == ["granet", "elm-neuron"]
    assert "eprint = {2306.16922}" in ada.request.get(f"{ada.url}/export.bib").text()

    ada.goto("/submit")
    ada.get_by_label("Identifier or address").fill("https://example.org/ada/claims")
    follow(ada.get_by_role("button", name="Bring it"))
    assert ada.get_by_role("cell", name="waiting").is_visible()
    look(ada)
