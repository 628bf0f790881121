"""Comments as readers, moderators and programs meet them."""

import re
import time
from datetime import UTC, datetime, timedelta

import feedparser
import pytest
from readership import BASE
from sqlalchemy import update

from broadsheet.errors import NotFoundError
from broadsheet.lab.backup import backup, restore
from broadsheet.lab.people import Account, Comment, Identity, Vote, Wording
from broadsheet.lab.store import Store
from broadsheet.page import edition
from broadsheet.readers import accounts, comments, moderation, notices, rates, votes

TOKEN = "administrator-" * 2
PAPER, CLAIM = "elm-neuron", "E1"


@pytest.fixture(scope="module")
def known():
    """What stands of the papers that run here, read once: these tests run nothing."""
    return {}


@pytest.fixture
def open_site(site, known, monkeypatch):
    """Browsers of a site whose administrator has a token, so that nobody else is one."""
    known.update(known or edition.standings(store=Store()))
    monkeypatch.setattr(edition, "standings", lambda store: known)
    return lambda **options: site(token=TOKEN, **options)


@pytest.fixture
def ada(open_site):
    return open_site(address="ada@example.org")


@pytest.fixture
def ben(open_site):
    return open_site(address="ben@example.org")


@pytest.fixture
def moderator(open_site):
    made = open_site(address="mo@example.org")
    accounts.set_role(Store(), "mo@example.org", "moderator")
    return made


def claim_of(browser, paper=PAPER):
    return browser.get(f"/api/v1/papers/{paper}").json()["claims"][0]["id"]


def say(browser, text, paper=PAPER, **more):
    answer = browser.post(f"/papers/{paper}/comments", data={"text": text, **more})
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].rpartition("-")[2])


def grow_old(address):
    """An account that has been there for a month."""
    with Store().session() as session:
        long_ago = datetime.now(UTC) - timedelta(days=30)
        session.execute(update(Account).where(Account.address == address).values(made=long_ago))


def test_votes_on_cards_and_pages(open_site, ada):
    anybody = open_site()
    before = re.search(r'<a class="vote" href="(/sign-in[^"]+)"[^>]*>.*?</span> (\d+) ', anybody.get(f"/papers/{PAPER}").text)
    answer = ada.post(f"/papers/{PAPER}/vote", data={"next": "/trending?number=1"})
    assert answer.headers["location"] == f"/trending?number=1#v-{PAPER}"
    for path in (f"/papers/{PAPER}", "/search?q=elm+neuron"):
        card = ada.get(path).text.partition(f'id="v-{PAPER}"')[2]
        button = re.search(r'aria-pressed="(\w+)".*?</span> (\d+) ', card)
        assert (button[1], int(button[2])) == ("true", int(before[2]) + 1), path
    assert ada.post(f"/papers/{PAPER}/vote", data={"next": "//evil.org"}).headers["location"] == f"/#v-{PAPER}"
    ada.post(f"/papers/{PAPER}/vote", data={"wanted": "false"})
    assert 'aria-pressed="true"' not in ada.get(f"/papers/{PAPER}").text
    refused = anybody.post(f"/papers/{PAPER}/vote")
    assert refused.headers["location"].startswith("/sign-in")
    assert ada.post(f"/papers/{PAPER}/vote", headers={"origin": "https://evil.org"}).status_code == 403


def test_a_thread_is_two_deep_and_leaves_traces(ada, ben, moderator):
    first = say(ada, "What is $\\tau$? **Tell** me [[" + claim_of(ada) + "]]")
    answer = say(ben, "A time constant", parent=first)
    deeper = say(ada, "Thank you", parent=answer)
    page = ben.get(f"/papers/{PAPER}/discussion").text
    assert re.search(r"<mi>(τ|&#x003C4;)</mi>", page)
    assert "<strong>Tell</strong>" in page
    (thread,) = ben.get(f"/api/v1/papers/{PAPER}/comments").json()["comments"]
    assert [one["id"] for one in thread["answers"]] == [answer, deeper]
    assert {one["parent"] for one in thread["answers"]} == {first}

    ben.post(f"/comments/{answer}/edit", data={"text": "A time constant, in ms"})
    assert "edited" in ada.get(f"/papers/{PAPER}/discussion").text
    assert ada.post(f"/comments/{answer}/edit", data={"text": "mine now"}).status_code == 404
    assert ada.post(f"/comments/{answer}/delete").status_code == 404
    with Store().session() as session:
        assert [row.text for row in session.query(Wording)] == ["A time constant"]
    ben.post(f"/comments/{answer}/delete")
    page = ada.get(f"/papers/{PAPER}/discussion").text
    assert "Deleted by its author" in page
    assert "in ms" not in page
    with Store().session() as session:
        assert session.query(Wording).count() == 0
    assert ada.post(f"/papers/{PAPER}/comments", data={"text": "still there?", "parent": answer}).status_code == 404
    assert ada.post("/papers/hlop/comments", data={"text": "elsewhere", "parent": first}).status_code == 404


def test_the_same_twice_is_once(ada):
    assert say(ada, "Once") == say(ada, "Once")


def test_a_thread_takes_so_many_answers(ada, monkeypatch):
    monkeypatch.setattr(comments, "MOST_ANSWERS", 1)
    first = say(ada, "One")
    say(ada, "Two", parent=first)
    answer = ada.post(f"/papers/{PAPER}/comments", data={"text": "Three", "parent": first})
    assert answer.status_code == 422
    assert re.search(r'name="parent" value="1">.*Three</textarea>', answer.text, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "links"),
    [("[[C1]] (see there)", False), ("a < b, f(x) [0] : 3 and/or e.g. so", False), ("[a](b)", True), ("[a]: //b", True), ("www.a.org", True),
     ("<a@b.org>", True), ("HTTPS://a.org", True), ("bit.ly/x", True), ("<tel:1>", True)],
)  # fmt: skip
def test_what_is_taken_for_a_link(text, links):
    assert (comments.LINK.search(text) is not None) == links


def test_a_claim_has_its_own_thread(open_site, ada, ben):
    claim = claim_of(ada)
    for browser, words, reproduced in ((ada, "No luck", "no"), (ben, "Worked", "no"), (ben, "Worked in the end", "yes")):
        say(browser, words, claim=claim, reproduced=reproduced)
    anybody = open_site()
    page = anybody.get(f"/papers/{PAPER}").text
    assert "1 could not reproduce this" in page
    assert "1 could</span>" in page
    thread = anybody.get(f"/papers/{PAPER}/claims/{claim}/discussion").text
    assert "No luck" in thread
    assert "No luck" not in anybody.get(f"/papers/{PAPER}/discussion").text
    assert f"[[{claim}]] " in ada.get(f"/papers/{PAPER}/discussion?quote={claim}").text
    assert ada.get(f"/papers/{PAPER}/claims/Z99/discussion").status_code == 404
    for run in (
        "f" * 64,
        "http://a.org/run",
        "javascript:alert(1)",
        "https://a.org/<b>",
        "https://u:p@a.org/",
        'https://a.org/"x',
    ):
        answer = ada.post(f"/papers/{PAPER}/comments", data={"text": "see", "claim": claim, "run": run})
        assert answer.status_code == 422, run
        assert "see</textarea>" in answer.text.partition('role="alert"')[2]
    assert ada.post(f"/papers/{PAPER}/comments", data={"text": "x", "reproduced": "yes"}).status_code == 422


def test_first_comments_with_links_wait_for_a_moderator(open_site, ada, moderator):
    number = say(ada, "Buy at https://example.org/pills")
    anybody = open_site()
    assert "pills" not in anybody.get(f"/papers/{PAPER}/discussion").text
    assert anybody.get(f"/comments/{number}").status_code == anybody.get(f"/api/v1/comments/{number}").status_code == 404
    assert "waits for a moderator" in ada.get(f"/papers/{PAPER}/discussion").text
    assert "pills" in moderator.get("/moderation").text
    assert ada.get("/moderation").status_code == 403
    assert ada.post(f"/moderation/comments/{number}", data={"action": "show"}).status_code == 403
    assert anybody.post(f"/moderation/comments/{number}", data={"action": "show"}).status_code == 303
    moderator.post(f"/moderation/comments/{number}", data={"action": "show"})
    assert "pills" in open_site().get(f"/papers/{PAPER}/discussion").text
    plain = say(ada, "No link in it")
    ada.post(f"/comments/{plain}/edit", data={"text": "Now [one](//elsewhere.org)"})
    assert "//elsewhere.org" not in open_site().get(f"/papers/{PAPER}/discussion").text
    grow_old("ada@example.org")
    for k in range(3):
        say(ada, f"Words {k}")
    say(ada, "https://example.org/known")
    assert "example.org/known" in open_site().get(f"/papers/{PAPER}/discussion").text


def test_reports_and_what_moderators_do(open_site, ada, ben, moderator):
    rude, dull = say(ada, "You fool"), say(ada, "Yawn")
    assert "A moderator will look" in ben.post(f"/comments/{rude}/report", data={"reason": "rude"}).text
    ben.post(f"/comments/{rude}/report", data={"reason": "again"})
    ben.post(f"/comments/{dull}/report", data={"reason": "dull"})
    assert ada.post(f"/comments/{rude}/report", data={"reason": "myself"}).status_code == 404
    queue = moderator.get("/moderation").text
    assert queue.count("rude") == 1
    assert "ben@example.org" not in queue
    assert "ada@example.org" not in queue
    moderator.post(f"/moderation/comments/{dull}", data={"action": "dismiss"})
    moderator.post(f"/moderation/comments/{rude}", data={"action": "hide"})
    page = open_site().get(f"/papers/{PAPER}/discussion").text
    assert "Yawn" in page
    assert "You fool" not in page
    assert ada.get(f"/api/v1/comments/{rude}").status_code == 404
    assert ada.post(f"/comments/{rude}/edit", data={"text": "sorry"}).status_code == 404
    ada.post(f"/papers/{PAPER}/vote")
    moderator.post(f"/moderation/comments/{dull}", data={"action": "block"})
    assert ada.get("/account").status_code == 303
    page = open_site().get(f"/papers/{PAPER}/discussion").text
    assert "Yawn" not in page
    assert moderator.get(f"/api/v1/papers/{PAPER}/votes").json()["votes"] == 0
    own = say(moderator, "I moderate")
    administrator = open_site()
    administrator.post("/administrator", data={"token": TOKEN})
    assert moderator.post(f"/moderation/comments/{own}", data={"action": "block"}).status_code == 422
    assert moderator.post(f"/moderation/comments/{own}", data={"action": "nonsense"}).status_code == 422
    assert administrator.post(f"/moderation/comments/{own}", data={"action": "block"}).status_code == 303
    assert moderator.get("/moderation").status_code == 303


def test_authors_are_confirmed_and_marked(open_site, ada, moderator):
    claim = claim_of(ada)
    say(ada, "We used another seed", claim=claim)
    ada.post(f"/papers/{PAPER}/authorship", data={"words": "Second author, see my page"})
    with Store().session() as session:
        number = session.query(Account).filter_by(address="ada@example.org").one().id
        session.add(
            Identity(
                issuer="https://orcid.org", subject="0000-0002-1825-0097", account_id=number, name="Ada", made=datetime.now(UTC)
            )
        )
    queue = moderator.get("/moderation").text
    assert "0000-0002-1825-0097" in queue
    assert "ada@example.org" not in queue
    administrator = open_site()
    administrator.post("/administrator", data={"token": TOKEN})
    assert "ada@example.org" in administrator.get("/moderation").text
    assert ada.post("/moderation/authors", data={"account": number, "slug": PAPER, "yes": "true"}).status_code == 403
    moderator.post("/moderation/authors", data={"account": number, "slug": PAPER, "yes": "true"})
    page = open_site().get(f"/papers/{PAPER}").text
    assert re.search(r'class="by-author">.*?An author,.*?We used another seed', page, re.DOTALL)
    say(ada, "Also https://example.org/data")  # an author's links do not wait
    assert open_site().get(f"/papers/{PAPER}/discussion").text.count("author of the paper</span>") == 1
    moderator.post("/moderation/authors", data={"account": number, "slug": PAPER, "yes": "false"})
    assert "by-author" not in open_site().get(f"/papers/{PAPER}").text


def test_it_is_the_same_in_both_databases(any_home):
    store = Store()
    ada, ben = (accounts.by_session(store, accounts.sign_in(store, f"{name}@example.org")[1]) for name in ("ada", "ben"))
    first, noticed = comments.add(store, ada, "hlop", "One", claim="H1", reproduced="no")
    assert noticed.comments == 1
    answer, _ = comments.add(store, ben, "hlop", "Two", parent=first)
    waiting, noticed = comments.add(store, ben, "hlop", "See www.example.org", claim="H1")
    assert noticed.comments == 2
    comments.edit(store, ben, answer, "Two and a half")
    comments.report(store, ada, answer, "half")
    comments.report(store, ada, answer, "half")
    moderation.ask(store, ada, "hlop", "It is me")
    queue = moderation.queue(store)
    ((case,), (asked,)) = queue.reported, queue.asked
    assert (case.comment.id, case.reasons, case.wordings) == (answer, ["half"], ["Two"])
    assert [case.comment.id for case in queue.waiting] == [waiting]
    assert (asked.account, asked.slug, len(queue)) == (ada.id, "hlop", 3)
    moderation.confirm(store, ada.id, "hlop", True)
    assert moderation.settle(store, waiting, "show")["hlop"].comments == 3
    moderation.settle(store, answer, "dismiss")
    assert len(moderation.queue(store)) == 0
    tally = comments.tallies(store, "hlop")["H1"]
    assert (tally.comments, tally.could, tally.could_not, tally.answer.text) == (3, 0, 1, "One")
    votes.cast(store, ben.id, "hlop")
    assert moderation.settle(store, answer, "block")["hlop"].votes == 0
    comments.erase(store, ada, first)
    (left,) = comments.threads(store, "hlop", "H1").found
    assert (left.state, left.text, left.answers) == ("deleted", "", ())
    assert comments.latest(store, "hlop") == []
    with pytest.raises(NotFoundError):
        comments.one(store, answer)


def test_limits(ada, monkeypatch):
    for text in ("", " \n\u200b ", "x" * (comments.LONGEST + 1)):
        assert ada.post(f"/papers/{PAPER}/comments", data={"text": text}).status_code == 422
    kept = say(ada, "one\x00\u202etwo\r\nthree")
    assert ada.get(f"/api/v1/comments/{kept}").json()["text"] == "onetwo\nthree"
    monkeypatch.setattr(comments, "NEWCOMERS", rates.Limit("commented", 5, 3600))
    answers = [ada.post(f"/papers/{PAPER}/comments", data={"text": f"again {k}"}) for k in range(6)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    assert "again 5</textarea>" in answers[-1].text


def test_long_discussions_have_pages_and_comments_an_address(open_site, ada):
    with Store().session() as session:
        number = session.query(Account).one().id
        now = datetime.now(UTC)
        session.add_all(
            Comment(slug=PAPER, account_id=number, text=f"Comment {k}", state="shown", made=now, edited=None) for k in range(45)
        )
        session.flush()
        notices.recount_comments(session, PAPER)
        last = max(row.id for row in session.query(Comment))
    anybody = open_site()
    assert anybody.get(f"/comments/{last}").headers["location"] == f"/papers/{PAPER}/discussion?number=3#comment-{last}"
    assert "Comment 44" in anybody.get(f"/papers/{PAPER}/discussion?number=3").text
    assert "Comment 44" not in anybody.get(f"/papers/{PAPER}").text
    assert anybody.get(f"/papers/{PAPER}/discussion?number=4").status_code == 404
    assert "45 comments" in anybody.get(f"/papers/{PAPER}").text


def test_the_feed_of_a_papers_comments(open_site, ada):
    say(ada, "Is *a* < b & c? [[" + claim_of(ada) + "]]")
    answer = open_site().get(f"/feeds/papers/{PAPER}/comments.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    feed = feedparser.parse(answer.content)
    assert not feed.bozo
    (entry,) = feed.entries
    assert "<em>a</em> &lt; b &amp; c?" in entry.content[0].value
    assert entry.link == f"{BASE}/comments/1"


def test_no_comment_makes_a_feed_unreadable(open_site, ada):
    say(ada, "A form feed: &#12; and \ufffe what is no character")
    feed = feedparser.parse(open_site().get(f"/feeds/papers/{PAPER}/comments.atom").content)
    assert not feed.bozo
    assert "A form feed:" in feed.entries[0].content[0].value


def test_a_text_without_links_is_soon_looked_through():
    for text in ("a-" * 5000, "<" * 10_000, "a" * 10_000):
        began = time.process_time()
        assert comments.LINK.search(text) is None
        assert time.process_time() - began < 0.1


def test_another_name_stands_beside_what_was_said(open_site, ada, monkeypatch):
    monkeypatch.setattr(edition, "SETTLED", 0)
    anybody = open_site(app=ada.app)
    ada.post("/account/name", data={"name": "Ada Quill"})
    say(ada, "Mine")
    ada.app.state.edition.refresh()
    assert "Ada Quill" in anybody.get(f"/papers/{PAPER}/discussion").text
    ada.post("/account/name", data={"name": "Countess"})
    ada.app.state.edition.refresh()
    assert "Ada Quill" not in anybody.get(f"/papers/{PAPER}/discussion").text


def test_an_answer_comes_behind_its_comment_in_a_backup(any_home, tmp_path, monkeypatch):
    store = Store()
    number = accounts.sign_in(store, "ada@example.org")[0]
    reader = accounts.Reader(number, "Ada", "ada@example.org", "reader")
    first, _ = comments.add(store, reader, PAPER, "A comment")
    comments.add(store, reader, PAPER, "An answer", parent=first)
    comments.edit(store, reader, first, "Another wording")  # PostgreSQL keeps the new row behind the others
    counts = backup(store, tmp_path / "all.zip")
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    assert restore(Store(tmp_path / "other"), tmp_path / "all.zip") == counts


def key(browser, *scopes):
    page = browser.post("/account/keys", data={"name": "a key", "scope": scopes}).text
    return {"authorization": "Bearer " + re.search(r"bsr_[\w-]+", page)[0]}


def test_the_api_has_it_all(open_site, ada, ben):
    voting, commenting = key(ada, "votes"), key(ada, "comments")
    program = open_site()
    program.headers.pop("origin")
    votes, said = f"/api/v1/papers/{PAPER}/vote", f"/api/v1/papers/{PAPER}/comments"
    assert program.put(votes).status_code == 401
    assert program.put(votes, headers=commenting).status_code == 403
    assert program.put(votes, headers=voting).json() == {"votes": 1, "weight": 1.0, "mine": True}
    assert program.get(votes + "s").json() == {"votes": 1, "weight": 1.0, "mine": False}
    assert program.delete(votes, headers=voting).json()["votes"] == 0
    assert program.put("/api/v1/papers/nothing/vote", headers=voting).status_code == 404
    made = program.post(
        said, json={"text": "By *program*", "claim": claim_of(program), "reproduced": "yes"}, headers=commenting
    )
    assert made.status_code == 201
    at = f"/api/v1/comments/{made.json()['id']}"
    assert program.post(said, json={"text": "x", "account_id": 2, "author": True}, headers=commenting).json()["author"] is False
    assert program.patch(at, json={"text": "Edited"}, headers=key(ben, "comments")).status_code == 404
    assert program.patch(at, json={"text": "Edited"}, headers=commenting).json()["edited"]
    assert program.post(at + "/reports", json={"reason": "rude"}, headers=key(ben, "comments")).status_code == 204
    assert program.delete(at, headers=commenting).json()["state"] == "deleted"
    assert program.post(said, content=b'{"text": "\\ud800 \\u0000"}', headers=commenting).status_code == 422
    assert "address" not in program.get(said).text


def test_own_votes_and_comments(ada):
    say(ada, "Mine, **all** mine")
    ada.post(f"/papers/{PAPER}/vote")
    page = ada.get("/account/comments").text
    assert "Mine, all mine" in page
    assert f'href="/papers/{PAPER}"' in page


def test_trending_goes_by_votes(open_site, ada):
    listed = [one["slug"] for one in open_site().get("/api/v1/papers?sort=newest&limit=200").json()["papers"]]
    with Store().session() as session:
        number, long_ago = session.query(Account).one().id, datetime.now(UTC) - timedelta(days=1)
        session.add_all(Vote(slug=slug, account_id=number, made=long_ago) for slug in listed[5:9])
        session.flush()
        notices.recount(session, listed[5:9])
    at = open_site().get("/api/v1/papers?sort=trending&limit=200").json()["papers"]
    days = {one["slug"]: one["published"] for one in at}
    places = {one["slug"]: place for place, one in enumerate(at)}
    for slug in listed[5:9]:
        assert all(places[slug] < places[other] for other in listed[9:] if days[other] == days[slug])
    assert "maximum diversity" in ada.get("/about/trending").text
