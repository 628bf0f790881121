import json
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
