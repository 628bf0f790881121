import json
import threading
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlparse

import pytest

from broadsheet.errors import InputError, SourceError
from broadsheet.page import intake, sources
from broadsheet.page.facts import Facts

HUB_PAPER = {
    "id": "2306.16922",
    "title": "The Expressive Leaky Memory\n Neuron",
    "summary": "Biological cortical\nneurons are …",
    "publishedAt": "2023-06-14T13:34:13.000Z",
    "upvotes": 7,
    "authors": [{"_id": "1", "name": "A. Spieler"}, {"_id": "2", "name": "B. Second"}],
}
ATOM = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
<title>ArXiv Query</title><id>http://arxiv.org/api/x</id><updated>2025-01-01T00:00:00-05:00</updated>
<opensearch:totalResults>{total}</opensearch:totalResults><opensearch:startIndex>0</opensearch:startIndex>
<opensearch:itemsPerPage>{total}</opensearch:itemsPerPage>{entries}</feed>"""
ENTRY = """<entry><id>http://arxiv.org/abs/2408.00336v2</id><updated>2024-08-09T10:00:00Z</updated>
<published>2024-08-01T07:18:25Z</published><title>Cybloids - Creation and
  Control of Cybernetic Colloids</title><summary>Colloids play
an important role.</summary><author><name>D. Saha</name></author><author><name>S. Tarama</name></author>
<link href="http://arxiv.org/abs/2408.00336v2" rel="alternate" type="text/html"/>
<category term="cond-mat.soft" scheme="http://arxiv.org/schemas/atom"/></entry>"""


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub and arXiv do; `mode` makes it fail."""

    mode = "ok"

    def do_GET(self):
        url = urlparse(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        status, kind, body = 200, "application/json", "[]"
        if self.mode == "down":
            status, body = 503, '{"error": "unavailable"}'
        elif self.mode == "garbage":
            kind, body = "text/html", "<html>captive portal</html>"
        elif url.path == "/api/daily_papers":
            item = {"paper": {**HUB_PAPER, "submittedOnDailyAt": "2023-06-15T00:00:00.000Z"}, "title": HUB_PAPER["title"],
                    "summary": HUB_PAPER["summary"], "publishedAt": "2023-06-14T13:34:13.000Z", "numComments": 3}  # fmt: skip
            body = json.dumps([item] if query.get("date", "2023-06-15") == "2023-06-15" and query.get("p", "0") == "0" else [])
        elif url.path == "/api/papers/search":
            body = json.dumps(
                [{"paper": HUB_PAPER, "title": HUB_PAPER["title"], "summary": HUB_PAPER["summary"]}]
                if "neuron" in query.get("q", "")
                else []
            )
        elif url.path == "/api/query":
            wanted = query.get("id_list", "")
            entries = ENTRY if "2408.00336" in wanted or "colloid" in query.get("search_query", "") else ""
            kind, body = "application/atom+xml", ATOM.format(total=int(bool(entries)), entries=entries)
        else:
            status, body = 404, "{}"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Handler.mode = "ok"
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_hub_daily_papers(server):
    (paper,) = sources.hub_daily(date(2023, 6, 15), server)
    assert paper.title == "The Expressive Leaky Memory Neuron"
    assert (paper.arxiv, paper.authors, paper.published, paper.comments) == ("2306.16922", 2, "2023-06-14", 3)
    assert sources.hub_daily(date(2020, 1, 1), server) == []


def test_hub_search(server):
    (paper,) = sources.hub_search("leaky neuron", server)
    assert (paper.arxiv, paper.abstract) == ("2306.16922", "Biological cortical neurons are …")
    assert sources.hub_search("nothing", server) == []


def test_arxiv_search_and_ids(server):
    (paper,) = sources.arxiv_search("all:colloid", endpoint=server)
    assert paper.title == "Cybloids - Creation and Control of Cybernetic Colloids"
    assert (paper.arxiv, paper.names, paper.published) == ("2408.00336", ("D. Saha", "S. Tarama"), "2024-08-01")
    assert sources.arxiv_ids(["https://arxiv.org/abs/2408.00336v1", "2408.00336"], server) == [paper]
    with pytest.raises(InputError, match=r"does not know 2501\.00001"):
        sources.arxiv_ids(["2408.00336", "2501.00001"], server)


CALLS = [
    lambda at: sources.hub_daily(None, at),
    lambda at: sources.hub_search("x", at),
    lambda at: sources.arxiv_ids(["2408.00336"], at),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", ["down", "garbage"])
def test_trouble_is_one_sentence(server, call, mode):
    Handler.mode = mode
    with pytest.raises((SourceError, InputError)) as caught:
        call(server)
    assert "nothing was changed" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
def test_no_network_is_one_sentence(call):
    with pytest.raises(SourceError, match="nothing was changed"):
        call("http://127.0.0.1:9")


@pytest.mark.parametrize(
    "given",
    [
        ["2306.16922v2"], ["arXiv", "2306.16922"], ["arXiv:2306.16922", "[cs.LG]"], ["https://arxiv.org/pdf/2306.16922"],
        ["https://arxiv.org/html/2306.16922v1#S2"], ["https://arxiv.org/abs/2306.16922?context=cs.NE"], ["10.48550/arXiv.2306.16922"],
        ["https://doi.org/10.48550/ARXIV.2306.16922"], ["arxiv:2306.16922"], ["2306.16922", "https://arxiv.org/abs/math.GT/0309136"],
        ["ids.txt"],
    ],
)  # fmt: skip
def test_every_spelling_is_a_source(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.txt").write_text("arXiv:2306.16922v1 [cs.NE]\n\nhttps://doi.org/10.48550/arXiv.math/0309136\n")
    asked = []
    monkeypatch.setattr(
        sources, "_from_arxiv", lambda search, at: [Facts("x", arxiv=key) for key in asked.extend(search.id_list) or asked]
    )
    name, papers, _ = intake.read(given)
    assert name == "arxiv"
    assert asked == ["2306.16922", "math/0309136"][: len(asked)]
    assert [paper.arxiv for paper in papers] == asked


@pytest.mark.parametrize(("given", "told"), [("10.1038/nature12373", "DOI that arXiv did not give"),
    ("https://doi.org/10.1145/2363.2528", "DOI that arXiv did not give"), ("https://example.org/paper", "no arXiv identifier")])  # fmt: skip
def test_addresses_of_others_are_told_apart(given, told):
    with pytest.raises(InputError, match=told):
        intake.read([given])


@pytest.mark.parametrize(("name", "told"), [("mine.bib", "mine.bib"), ("", "the page")])
def test_a_file_that_was_sent_is_called_what_its_sender_calls_it(home, name, told):
    with pytest.raises(InputError) as caught:
        intake.uploaded(b"@misc{x, title = {open", name)
    assert told in str(caught.value)
    assert str(home) not in str(caught.value)


class Given:
    """Stands in for arXiv's client; what it is asked, and answers without end."""

    def __init__(self, **options):
        Given.options = options

    def results(self, search):
        Given.search = search
        for k in range(1000):
            yield SimpleNamespace(
                title=f"Paper {k}", summary="S", authors=[SimpleNamespace(name="A B")], published=datetime(2025, 1, 1, tzinfo=UTC),
                get_short_id=lambda k=k: f"2501.{k:05}v1",
            )  # fmt: skip


def test_arxiv_is_asked_as_it_wishes(monkeypatch):
    """No more than a request in three seconds (its terms of use), a hundred papers each, tried again twice."""
    monkeypatch.setattr("arxiv.Client", Given)
    found = sources.arxiv_search("cat:cs.NE")
    assert Given.options == {"page_size": 100, "delay_seconds": 3, "num_retries": 2}
    assert (Given.search.query, Given.search.max_results, Given.search.sort_by.value) == ("cat:cs.NE", 50, "submittedDate")
    assert len(found) == sources.MOST == 200
    assert found[7] == Facts("Paper 7", "2501.00007", "S", 1, ("A B",), "2025-01-01")
    sources.arxiv_search("x", most=900, endpoint="http://127.0.0.1:9")
    assert (Given.options["delay_seconds"], Given.search.max_results) == (0, 200)
    sources.arxiv_ids(["2501.00001", "2501.00001v2", "2501.00003"])
    assert (Given.search.id_list, Given.search.max_results) == (["2501.00001", "2501.00003"], 2)


def info(**changed):
    given = {"id": "2306.16922", "title": "A", "summary": "S", "authors": [SimpleNamespace(name="A B"), SimpleNamespace(name=None)],
             "published_at": datetime(2023, 6, 14, 23, tzinfo=UTC), "comments": 3, "upvotes": 7}  # fmt: skip
    return SimpleNamespace(**{**given, **changed})


def test_the_hub_is_asked_for_a_day_or_the_latest(monkeypatch):
    asked = []

    class Api:
        def __init__(self, endpoint=None):
            asked.append(endpoint)

        def list_daily_papers(self, **options):
            asked.append(options)
            return (info() for _ in range(300))

        def list_papers(self, **options):
            asked.append(options)
            return (info() for _ in range(300))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert len(sources.hub_daily()) == len(sources.hub_daily(date(2025, 1, 2), "there")) == len(sources.hub_search("q")) == 200
    assert asked == [
        None,
        {"date": None, "limit": 200},
        "there",
        {"date": "2025-01-02", "limit": 200},
        None,
        {"query": "q", "limit": 200},
    ]
    assert sources._from_hub(info()) == Facts("A", "2306.16922", "S", 1, ("A B",), "2023-06-14", 3, 7)
    bare = SimpleNamespace(id="2306.16922", title="A", summary=None, authors=None, published_at=None)
    assert sources._from_hub(bare) == Facts("A", "2306.16922")
    for lacks in ("id", "title"):
        with pytest.raises(SourceError, match="without id or title"):
            sources._from_hub(info(**{lacks: None}))


@pytest.fixture
def asked(monkeypatch):
    """What live sources are asked for; today is 1 February 2025."""
    found = []
    for name in ("hub_daily", "hub_search", "arxiv_search", "arxiv_ids"):
        monkeypatch.setattr(sources, name, lambda given, name=name: found.append((name, given)) or [])

    class Today(date):
        @classmethod
        def today(cls):
            return cls(2025, 2, 1)

    monkeypatch.setattr(intake, "date", Today)
    return found


@pytest.mark.parametrize(
    ("given", "as_of", "call", "name", "day"),
    [
        ("daily", None, ("hub_daily", None), "hub", date(2025, 2, 1)), ("daily", date(2025, 1, 5), ("hub_daily", date(2025, 1, 5)), "hub", date(2025, 1, 5)),
        ("daily:2025-01-07", None, ("hub_daily", date(2025, 1, 7)), "hub", date(2025, 1, 7)),
        ("daily:2025-01-07", date(2025, 1, 5), ("hub_daily", date(2025, 1, 7)), "hub", date(2025, 1, 7)),
        ("hub:spikes: all", None, ("hub_search", "spikes: all"), "hub", date(2025, 2, 1)),
        ("arxiv:cat:cs.NE", date(2025, 1, 5), ("arxiv_search", "cat:cs.NE"), "arxiv", date(2025, 1, 5)),
        ("arxiv:2306.16922", None, ("arxiv_ids", ["arxiv:2306.16922"]), "arxiv", date(2025, 2, 1)),
    ],
)  # fmt: skip
def test_live_sources_by_their_names(asked, given, as_of, call, name, day):
    assert intake.read([given], as_of) == (name, [], day)
    assert asked == [call]
    assert (intake.live_source(given, as_of) is None) is (call[0] == "arxiv_ids")


def test_files_by_what_they_hold(asked, tmp_path, monkeypatch):
    def read(text, name="list.txt", as_of=None):
        (tmp_path / name).write_text(text)
        asked.clear()
        return intake.read([str(tmp_path / name)], as_of)

    assert read("2306.16922 2306.16923\n2306.16924") == ("arxiv", [], date(2025, 2, 1))
    assert asked == [("arxiv_ids", ["2306.16922", "2306.16923", "2306.16924"])]
    read("arXiv: 2306.16922 [cs.NE]\n\narXiv 2306.16923\n")
    assert asked == [("arxiv_ids", ["arXiv: 2306.16922 [cs.NE]", "arXiv 2306.16923"])]
    assert read('{"title": "A"}', "a.jsonl", date(2025, 1, 5)) == ("page", [Facts("A")], date(2025, 1, 5))
    source, papers, day = read("<html><article><h3>A paper</h3></article></html>", "a.html", date(2024, 5, 1))
    assert (source, [paper.title for paper in papers], day) == ("page", ["A paper"], date(2024, 5, 1))
    monkeypatch.setattr(intake, "MOST_IDS", 3)
    read("2306.16922 2306.16923")
    assert len(asked[0][1]) == 2
    with pytest.raises(InputError, match="not a saved"):
        read("2306.16922\n2306.16923\n2306.16924")
    for wrong, told in ((["a.txt", "b.txt"], "one file or source at a time"), (["hub:x", "daily"], "one file or source at a time"),
                        (["kind:x"], "kind:x")):  # fmt: skip
        with pytest.raises(InputError, match=told):
            intake.read(wrong)
    for name in ("daily", "hub", "arxiv", "x:y"):
        assert (intake.live_source(name) is None) is (name != "daily")


@pytest.mark.parametrize(("name", "kind"), [("a.JSONL", "page"), ("a.html", "page"), ("", "page")])
def test_what_a_browser_sends_is_read_by_its_name(home, asked, name, kind):
    content = b'{"title": "A paper"}' if name == "a.JSONL" else b"<html><article><h3>A paper</h3></article></html>"
    source, papers, day = intake.uploaded(content, name, date(2025, 1, 5))
    assert (source, [paper.title for paper in papers], day) == (kind, ["A paper"], date(2025, 1, 5))
    assert not list((home / "scratch").iterdir())
