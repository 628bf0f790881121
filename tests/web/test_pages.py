import re
from datetime import date
from xml.etree import ElementTree

import feedparser
import pytest
from browsing import client
from bs4 import BeautifulSoup

from broadsheet.errors import InputError
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import Progress, Started
from broadsheet.lab.registry import entries
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts
from broadsheet.page.records import read_records
from broadsheet.web.settings import Settings
from waiting import until

READ = (
    "/", "/day/2025-12-11", "/day/1999-01-01", "/week/2025-W50", "/month/2025-12", "/trending", "/topics", "/topics/dendrites",
    "/search", "/search?q=dendrites", "/search?q=zzyzx", "/search?verdict=fails", "/search?verdict=no+system+yet&code=true", "/month/9999-12", "/week/9999-W52", "/authors/A.%20One",
    "/papers/hlop", "/papers/tulu3", "/papers/fresh-paper-without-system", "/compare", "/compare?paper=hlop&paper=escaip&paper=",
    "/verdicts", "/about/api", "/runs", "/administrator",
)  # fmt: skip
TOKEN = "a-token-of-enough-length"


def tree(answer):
    return BeautifulSoup(answer.text, "html.parser")


@pytest.mark.parametrize("path", READ)
def test_every_page_reads_without_scripts_and_styles_of_its_own(site, path):
    answer = site.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    page = tree(answer)
    assert [script.get("src") for script in page.find_all("script")] == [page.find("script")["src"]]
    assert not page.find_all("style")
    assert not page.find_all(attrs={"style": True})
    assert not [name for element in page.find_all(True) for name in element.attrs if name.startswith("on")]
    assert len(page.find_all("h1")) == 1
    assert len({element["id"] for element in page.find_all(id=True)}) == len(page.find_all(id=True))
    for link in {a["href"] for a in page.find_all("a", href=re.compile("^/(?!feeds|api)"))}:
        assert not link.startswith("//")


def test_all_links_of_the_front_page_and_of_a_paper_lead_somewhere(site):
    for path in ("/", "/papers/elm-neuron"):
        for target in {a["href"] for a in tree(site.get(path)).find_all("a", href=re.compile("^/"))}:
            assert site.get(target).status_code == 200, target
        for picture in {image["src"] for image in tree(site.get(path)).find_all("img")}:
            answer = site.get(picture)
            assert answer.status_code == 200
            ElementTree.fromstring(answer.content)
            assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_listings_hold_what_was_listed_in_their_time(site):
    assert "2 papers" in site.get("/day/2025-12-11").text
    for path in ("/day/2025-12-11", "/week/2025-W50", "/month/2025-12"):
        titles = [h.get_text() for h in tree(site.get(path)).select("article h2")]
        assert titles[0] == "A fresh paper without a system"  # it has votes
    assert "No page listed papers" in site.get("/day/1999-01-01").text
    assert site.get("/trending").text.index("A fresh paper") < site.get("/trending").text.index("Schrödinger meets")


def test_a_paper_shows_claims_with_control_interval_scale_and_what_could_not_be_tested(site):
    page = tree(site.get("/papers/elm-neuron"))
    assert "with the paper's mechanism switched off" in page.select_one("#claims .lead").get_text()
    row = page.find(id="C4b")
    assert row.find(class_="holds")
    assert "toy size, from the official code" in row.get_text()
    assert "≥ 0.95" in row.get_text()
    assert float(row.select_one("tr.ablation .value b").get_text()) < 0.7  # fast memory does not carry it
    assert row.select_one("tr.ablation .stands").get_text().startswith("outside by")
    text = page.get_text()
    for words in ("What could not be tested", "broadsheet run elm-neuron -e recall", "from broadsheet.neurons import",
                  "broadsheet neurons fit-elm", "The authors' answer", "Similar papers", "@misc{elm-neuron", "docs/verdicts"):  # fmt: skip
        assert words in text
    assert page.find("img", src="/badges/elm-neuron.svg")
    assert not tree(site.get("/papers/cybloids")).find("img", src=re.compile("/badges"))


def test_how_verdicts_are_made_counts_what_has_no_null_model_yet(site):
    page = tree(site.get("/verdicts"))
    claims = [claim for made in entries().values() for _, claim in made.claims() if claim.kind == "paper"]
    waiting = [claim for claim in claims if claim.judged_at("quick") and claim.waits_for_null]
    assert f"{len(waiting)} of them have no null model yet" in page.get_text()
    words = [dt.get_text() for dt in page.select("#words + dl dt")]
    assert {"holds", "mixed", "fails", "vacuous", "provisional", "reference", "stale", "not run"} <= set(words)


def test_a_page_of_new_papers_shows_what_is_near_and_runs(site):
    Catalogue().add(
        "hub", [Facts(f"Dendrites and active memory, part {k}", names=("A", "B")) for k in range(5)], date(2025, 12, 13)
    )
    site.app.state.edition.refresh()
    cards = tree(site.get("/")).select('section[aria-labelledby="d2025-12-13"] article')
    assert len(cards) == 5
    for card in cards:
        assert "2 authors" in card.get_text()
        assert card.find("a", href=re.compile("/papers/(sdr-dendrites|elm-neuron)$"))
        assert "Nearest that runs" in card.get_text()


def test_what_is_not_near_is_not_suggested(site):
    Catalogue().add("hub", [Facts("Learning household budgets from receipts", names=("A",))], date(2025, 12, 13))
    site.app.state.edition.refresh()
    card = tree(site.get("/")).select_one('section[aria-labelledby="d2025-12-13"] article')
    assert "Nearest that runs" not in card.get_text()


@pytest.mark.parametrize(
    "spelt",
    ["2306.16922", "2306.16922v2", "arXiv:2306.16922v1", "ARXIV:2306.16922", "https://arxiv.org/abs/2306.16922v2",
     "https://arxiv.org/pdf/2306.16922v2.pdf", "http://arxiv.org/html/2306.16922", "10.48550/arXiv.2306.16922"],
)  # fmt: skip
def test_arxiv_ids_lead_to_papers(site, spelt):
    answer = site.get(f"/papers/{spelt}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (301, "/papers/elm-neuron")
    if "/" not in spelt:
        assert site.get(f"/api/v1/papers/{spelt}").json()["slug"] == "elm-neuron"


def test_authors_have_pages_with_feeds(site):
    Catalogue().add(
        "hub", [Facts("Another one", arxiv="2512.00004", names=("B. Two", "C. d'Été/Três", "A. One"))], date(2025, 12, 12)
    )
    site.app.state.edition.refresh()
    links = {a.get_text(): a["href"] for a in tree(site.get("/papers/2512.00004")).select('a[rel="author"]')}
    assert list(links) == ["B. Two", "C. d'Été/Três", "A. One"]  # in the paper's order
    page = tree(site.get(links["B. Two"]))
    assert [h.get_text() for h in page.select("article h2")] == ["Another one", "A fresh paper without a system"]
    assert len(feedparser.parse(site.get(page.find("link", type="application/atom+xml")["href"]).content).entries) == 2
    assert tree(site.get(links["C. d'Été/Três"])).select_one("article h2").get_text() == "Another one"
    assert site.get("/authors/b.%20TWO", follow_redirects=False).headers["location"] == "/authors/B.%20Two"
    assert site.get("/authors/nobody").status_code == 404


def test_a_paper_can_be_saved_by_reference_managers(site):
    page = tree(site.get("/papers/fresh-paper-without-system"))
    tags = [(tag["name"], tag["content"]) for tag in page.find_all("meta", attrs={"name": re.compile("^citation_")})]
    assert tags[:3] == [
        ("citation_title", "A fresh paper without a system"), ("citation_author", "A. One"), ("citation_author", "B. Two"),
    ]  # fmt: skip
    known = dict(tags)
    assert known["citation_publication_date"] == "2025/12/10"
    assert known["citation_arxiv_id"] == "2512.00001"
    assert known["citation_pdf_url"] == "https://arxiv.org/pdf/2512.00001"
    assert page.find("a", href=known["citation_pdf_url"])
    graph = {tag["property"]: tag["content"] for tag in page.find_all("meta", property=re.compile("^og:"))}
    assert graph["og:url"] == "http://localhost:8000/papers/fresh-paper-without-system"
    assert graph["og:type"] == "article"
    assert graph["og:title"].startswith("A fresh paper")
    assert page.find("a", href="https://github.com/AaronSpieler/elmneuron") is None
    assert tree(site.get("/papers/elm-neuron")).find("a", href="https://github.com/AaronSpieler/elmneuron")
    assert (
        tree(site.get("/papers/2512.00002")).find("meta", attrs={"name": "citation_title"})["content"] == "Schrödinger meets Ψ"
    )


def test_what_a_page_and_our_own_record_say_stands_side_by_side(site):
    Catalogue().add(
        "page", [Facts("GradDFT", arxiv=entries()["grad-dft"].facts["arxiv"], published="2023-09-22")], date(2025, 12, 11)
    )
    site.app.state.edition.refresh()
    text = tree(site.get("/papers/grad-dft")).select_one("article.paper").get_text(" ")
    assert "22 September 2023" in text
    assert f"our own record says {int(entries()['grad-dft'].facts['published'][8:])} September 2023" in text


def test_today_is_today(site, monkeypatch):
    assert tree(site.get("/")).select_one("nav a").get_text() == "11 Dec 2025"
    Catalogue().add("hub", [Facts("Of today")], date.today())
    site.app.state.edition.refresh()
    assert tree(site.get("/")).select_one("nav a").get_text() == "Today"


def test_a_long_day_is_folded(site):
    Catalogue().add("hub", [Facts(f"Number {k}") for k in range(70)], date(2025, 12, 13))
    site.app.state.edition.refresh()
    day = tree(site.get("/")).select_one('section[aria-labelledby="d2025-12-13"]')
    assert len(day.find_all("article", recursive=False)) == 8
    assert "52 more" in day.find("summary").get_text()
    assert len(day.select("details article")) == 52
    assert site.get(day.find_all("a")[-1]["href"]).status_code == 200


def test_a_run_is_seen_as_soon_as_it_is_queued(site):
    assert tree(site.get("/papers/elm-neuron")).find(id="running").has_attr("hidden")
    site.post("/runs", data={"slug": "elm-neuron", "experiment": "recall"})
    for path, place in (("/papers/elm-neuron", "running"), ("/", "now")):
        shown = tree(site.get(path)).find(id=place)
        assert not shown.has_attr("hidden")
        assert re.search(r"recall\s+queued", shown.get_text(" "))
    jobs = Jobs(Store())
    job = jobs.claim()
    for said in (Started("r", "system", 100, 1, 4), Progress("r", 0.72)):
        jobs.tell(job.id, said)
    until(lambda: "running, 43 %" in site.get("/papers/elm-neuron").text)  # (1 + .72) of 4
    assert "recall" not in tree(site.get("/papers/hlop")).find(id="running").get_text()


def test_suggestions_are_papers_and_authors_with_their_pages(site):
    found = site.get("/api/v1/suggestions?q=fresh").json()
    assert found[0] == {
        "kind": "paper",
        "text": "A fresh paper without a system",
        "papers": 1,
        "url": "/papers/fresh-paper-without-system",
    }
    found = site.get("/api/v1/suggestions?q=two").json()
    assert {"kind": "author", "text": "B. Two", "papers": 1, "url": "/authors/B.%20Two"} in found
    assert site.get("/api/v1/suggestions?q=2306.169").json()[0]["url"] == "/papers/elm-neuron"
    assert site.get("/api/v1/suggestions?q=").json() == []
    assert {site.get(one["url"]).status_code for one in found} == {200}


def test_latex_is_rendered_and_nothing_else_of_a_title_is_markup(site):
    Catalogue().add("hub", [Facts("<img src=x onerror=alert(1)> & <b>$x^2$</b>", arxiv="2512.00003")], date(2025, 12, 12))
    site.app.state.edition.refresh()
    assert "<math>" in site.get("/papers/2512.00001").text
    assert "Schrödinger meets <math><mrow><mi>Ψ" in site.get("/papers/2512.00002").text
    page = tree(site.get("/papers/2512.00003"))
    assert page.h1.get_text() == "<img src=x onerror=alert(1)> & <b>x2</b>"
    assert page.h1.find("math")
    assert not page.h1.find(["img", "b"])


def test_what_has_not_changed_is_not_sent_again(site):
    first = site.get("/")
    assert site.get("/", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    Catalogue().add("hub", [Facts("One more", arxiv="2512.00009")], date(2025, 12, 12))
    site.app.state.edition.refresh()
    assert site.get("/", headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_head_is_get_without_the_body(site):
    for path in ("/", "/papers/hlop", "/feeds/latest.atom", "/nope"):
        head, got = site.head(path), site.get(path)
        assert head.content == b""
        assert (head.status_code, head.headers["content-length"]) == (got.status_code, got.headers["content-length"])


def test_mistakes_are_one_sentence_on_a_page(site):
    html = {"accept": "text/html"}
    for path, status in (("/nope", 404), ("/papers/nope", 404), ("/topics/nope", 404), ("/day/x", 422), ("/week/2025-W99", 422),
                         ("/?number=2", 200), ("/day/2025-12-11?number=99", 404), ("/search?since=x", 422), ("/badges/cybloids.svg", 404),
                         ("/figures/hlop/permuted/..%2f..%2fmatrices.svg", 404), ("/figures/x/y/z.svg", 404),
                         ("/day/2025-12-11?number=0", 422)):  # fmt: skip
        answer = site.get(path, headers=html)
        assert answer.status_code == status, path
        assert "Traceback" not in answer.text
    assert "There is no such page." in site.get("/nope", headers=html).text
    assert site.get("/api/v1/papers/nope").json() == {"detail": "No paper is called 'nope'."}


def test_search_says_how_it_read_the_words(site):
    text = tree(site.get("/search?q=dendritc")).get_text()
    assert "“dendritc” was read as “dendritic”" in text
    assert "By words alone" in text
    assert "<mark>" in site.get("/search?q=bridges").text
    assert "Nothing was found" in site.get("/search?q=zzyzx").text
    assert site.get("/search?q=...").status_code == 422


def test_compare_shows_each_system_beside_its_controls(site):
    text = tree(site.get("/compare")).get_text(" ")
    assert "To classify handwritten digits" in text
    assert re.search(r"acc\s+0\.\d+", text)
    both = tree(site.get("/compare?paper=hlop&paper=granet"))
    assert [th.get_text()[:9] for th in both.select("table.beside thead th")] == ["Hebbian L", "Sparse Tr"]


def test_tasks_and_verbs_of_papers_exist():
    from typer.main import get_command

    from broadsheet.cli.app import app

    commands = get_command(app)
    for slug, entry in entries().items():
        for verb in entry.facts["verbs"]:
            program, group, command, *_ = verb.split()
            assert program == "broadsheet"
            assert command in commands.commands[group].commands, (slug, verb)
        for place in entry.facts["tasks"].values():
            assert place.partition(":")[0] in entry.experiments


def test_every_list_has_a_valid_feed(site):
    for path in READ:
        for link in tree(site.get(path)).find_all("link", type="application/atom+xml"):
            answer = site.get(link["href"])
            assert answer.status_code == 200, link
            assert answer.headers["content-type"].startswith("application/atom+xml")
            read = feedparser.parse(answer.content)
            assert not read.bozo
            assert read.feed.id.startswith("http://localhost:8000/")
    latest = feedparser.parse(site.get("/feeds/latest.atom").content)
    assert len(latest.entries) == 44
    assert latest.entries[0].title == "A fresh paper without a system"
    assert latest.entries[1].title == "Schrödinger meets Ψ"
    assert latest.entries[0].link == "http://localhost:8000/papers/fresh-paper-without-system"
    assert latest.entries[0].updated.startswith("2025-12-11")


def test_badges(site):
    answer = site.get("/badges/hlop.svg")
    words = ElementTree.fromstring(answer.content).attrib["aria-label"]
    assert re.fullmatch(r"Broadsheet: \d+ holds(, \d+ \w+)*", words)
    for slug, entry in entries().items():
        assert site.get(f"/badges/{slug}.svg").status_code == (404 if entry.facts["basis"] == "reconstructed" else 200)


def test_daily_papers_have_the_hubs_shape_and_can_be_imported_elsewhere(site, tmp_path, monkeypatch):
    from huggingface_hub.hf_api import PaperInfo

    answer = site.get("/api/daily_papers?date=2025-12-11").json()
    read = [PaperInfo(**item) for item in answer]
    assert [info.id for info in read] == ["2512.00001", "2512.00002"]
    assert [author.name for author in read[0].authors] == ["A. One", "B. Two"]
    assert (read[0].upvotes, read[0].comments, read[0].published_at.date()) == (9, 2, date(2025, 12, 10))
    file = tmp_path / "day.json"
    file.write_text(site.get("/api/daily_papers?date=2025-12-11").text)
    source, papers = read_records(file)
    assert source == "hub"
    assert [(paper.title, paper.comments) for paper in papers] == [("A fresh paper without a system", 2), (papers[1].title, 0)]


def test_the_sites_own_listing_can_be_imported_elsewhere(site, tmp_path):
    import json

    file = tmp_path / "papers.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in site.get("/api/v1/papers?limit=5").json()["papers"]))
    assert read_records(file)[1][0].title == "A fresh paper without a system"


def test_health(site):
    answer = site.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["papers"] == 44


def test_who_may_start_runs_on_this_machine(page):
    run = {"slug": "elm-neuron", "experiment": "recall"}
    with client() as here:
        assert here.post("/runs", data=run, follow_redirects=False).status_code == 303
        assert here.post("/api/v1/jobs", json=run).status_code == 202
        assert len(here.get("/api/v1/jobs").json()) == 1  # the same job again is that job
        assert "Start" in here.get("/papers/elm-neuron").text
        assert here.post("/runs", data=run, headers={"host": "evil.example:8000"}).status_code == 421
        for headers in ({"x-forwarded-for": "1.2.3.4"}, {"origin": "http://evil.example"},
                        {"origin": "null"}, {"sec-fetch-site": "cross-site"}):  # fmt: skip
            for answer in (here.post("/runs", data=run, headers=headers), here.post("/api/v1/jobs", json=run, headers=headers),
                           here.post("/imports", data={"source": "daily"}, headers=headers)):  # fmt: skip
                assert answer.status_code == 403, headers
    with client(address=("192.168.1.7", 5)) as other:
        assert other.post("/runs", data=run).status_code == 403
        assert other.post("/api/v1/imports", json={"source": "daily"}).status_code == 403
        assert other.delete("/api/v1/jobs/1").status_code == 403
        assert "Start</button>" not in other.get("/papers/elm-neuron").text


def test_with_a_token_only_its_holder_may(page):
    run = {"slug": "elm-neuron", "experiment": "recall"}
    with client(Settings(host="0.0.0.0", token=TOKEN, meaning=False)) as site:
        assert site.post("/runs", data=run).status_code == 403  # on this machine as well
        assert site.post("/api/v1/jobs", json=run, headers={"authorization": "Bearer wrong"}).status_code == 403
        assert site.post("/api/v1/jobs", json=run, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 202
        assert site.post("/administrator", data={"token": "wrong"}).status_code == 403
        answer = site.post("/administrator", data={"token": TOKEN}, follow_redirects=False)
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=strict" in answer.headers["set-cookie"]
        assert TOKEN not in answer.headers["set-cookie"]
        assert site.post("/runs", data=run, follow_redirects=False).status_code == 303
        site.post("/administrator/leave")
        assert site.post("/runs", data=run).status_code == 403
        site.cookies.set("broadsheet_session", f"{10**12}.{'0' * 64}")
        assert site.post("/runs", data=run).status_code == 403


@pytest.mark.parametrize(
    ("given", "words"),
    [({"host": "0.0.0.0"}, "others can reach"), ({"host": "192.168.1.2"}, "others can reach"), ({"host": "example.org"}, "others"),
     ({"host": "0.0.0.0", "token": "short"}, "too short"), ({"url": "ftp://x"}, "public address"), ({"url": "https://papers.example.org"}, "is public")],
)  # fmt: skip
def test_a_site_that_others_reach_needs_a_token(given, words):
    with pytest.raises(InputError, match=words):
        Settings(**given)
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        Settings(host=host)


def test_imports_of_files_and_mistakes_in_them(site):
    page = (
        "Daily Papers\n\nDec 11\n\nA brand new paper on dendrites\n\n"
        + "An abstract. " * 40
        + "\n\n  • 3 authors\n·\nNov 2 4\n"
    )
    answer = site.post("/imports", files={"file": ("page.txt", page)}, data={"as_of": "2025-12-11"})
    assert "1 paper: 1 new" in answer.text
    site.app.state.edition.refresh()
    assert site.get("/papers/brand-new-paper-dendrites").status_code == 200
    for file, words in ((("x.txt", b"\xff\xfe\0"), "UTF-8"), (("x.html", "<html><body>no papers</body></html>"), "holds no papers"),
                        (("x.json", "[1]"), "stands where a record"), (("../../x.txt", "plain words"), "not a saved")):  # fmt: skip
        answer = site.post("/imports", files={"file": file})
        assert answer.status_code == 422
        assert words in answer.text
        assert "/tmp" not in answer.text
    for source in ("/etc/passwd", "file:///etc/passwd", "pages/x.txt", ""):
        assert "Nothing was imported" in site.post("/imports", data={"source": source}).text
    assert site.post("/api/v1/imports/page?name=x.txt&as_of=2025-12-11", content=page.encode()).json()["new"] == []


def test_bodies_have_a_limit(site):
    assert site.post("/api/v1/imports/page", content=b"x", headers={"content-length": str(10**10)}).status_code == 413
