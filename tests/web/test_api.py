import contextlib
import json

import pytest
from browsing import client
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from broadsheet.errors import SourceError
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.web.app import create
from broadsheet.web.settings import Settings


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_breaks_the_api(page, monkeypatch, mode):
    """Valid and invalid requests to every operation: never a 5xx, and every answer as its description says."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not here: pip install '.[dev]'")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    from broadsheet.page import sources

    def away(*words, **options):
        raise SourceError("The source could not be read; nothing was changed.")

    for name in ("hub_daily", "hub_search", "arxiv_search", "arxiv_ids"):
        monkeypatch.setattr(sources, name, away)
    monkeypatch.setattr("broadsheet.web.security.is_loopback", lambda host: True)
    app = create(Settings(meaning=False), Store())
    app.state.edition.refresh()
    described = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    asked, statuses = set(), set()
    for found in described.get_all_operations():
        operation = found.ok()
        asked.add(f"{operation.method} {operation.path}")

        @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def one(case):
            answer = case.call()
            statuses.add(answer.status_code)
            case.validate_response(answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])

        with contextlib.suppress(Unsatisfiable):  # an operation that takes nothing has no invalid request
            one()
    assert len(asked) >= 12
    assert 422 in statuses if mode == "NEGATIVE" else 200 in statuses


def test_papers_claims_and_search(page):
    with client() as site:
        listed = site.get("/api/v1/papers?limit=3&offset=1").json()
        assert listed["count"] == 44
        assert len(listed["papers"]) == 3
        paper = site.get("/api/v1/papers/2306.16922").json()
        claim = next(claim for claim in paper["claims"] if claim["id"] == "C4b")
        assert (claim["verdict"], claim["preset"], claim["kind"]) == ("holds", "quick", "paper")
        assert claim["ablations"][0]["checks"][0]["distance"] < 0 < claim["checks"][0]["distance"]
        assert paper["verbs"]
        assert site.get(paper["figures"][0]).status_code == 200
        found = site.get("/api/v1/search?q=dendritc+neuron&limit=2").json()
        assert found["read_as"] == {"dendritc": "dendritic"}
        assert found["by_meaning"] is False
        assert len(found["papers"]) == 2
        assert site.get("/api/v1/search?q=neuron&topic=dendrites").json()["count"] < found["count"]
        assert site.get("/api/v1/papers/hlop/similar?limit=3").json()["count"] == 3
        assert site.get("/api/v1/topics").json()["dendrites"] == 2


def test_jobs_from_queue_to_cancel(page):
    with client() as site:
        made = site.post("/api/v1/jobs", json={"slug": "elm-neuron"}).json()
        assert {job["state"] for job in made} == {"queued"}
        assert {job["experiment"] for job in made} >= {"recall", "coincidence"}
        assert site.delete(f"/api/v1/jobs/{made[0]['id']}").json()["state"] == "cancelled"
        assert site.get(f"/api/v1/jobs/{made[0]['id']}").json()["state"] == "cancelled"
        assert site.get("/api/v1/jobs/999999").status_code == 404
        for wrong in ({"slug": "nope"}, {"slug": "fresh-paper-without-system"}, {"slug": "elm-neuron", "experiment": "x"},
                      {"slug": "elm-neuron", "seeds": 1000}, {"slug": "elm-neuron", "preset": "huge"}):  # fmt: skip
            answer = site.post("/api/v1/jobs", json=wrong)
            assert answer.status_code == 422, wrong
            assert len(answer.json()["detail"].splitlines()) == 1
        text = site.get("/runs").text
        assert "cancelled" in text
        assert "queued" in text


def test_the_description_has_no_hidden_address(page):
    with client() as site:
        paths = site.get("/api/v1/openapi.json").json()["paths"]
        assert all(path.startswith("/api/") for path in paths)
        assert json.dumps(paths).count("description") > len(paths)
        text = site.get("/about/api").text
        assert all(path in text for path in paths)


def test_a_source_that_gives_no_answer(page, monkeypatch):
    from broadsheet.page import sources

    def away(*words, **options):
        raise SourceError("The Hub could not be read; nothing was changed.")

    monkeypatch.setattr(sources, "hub_daily", away)
    with client() as site:
        answer = site.post("/api/v1/imports", json={"source": "daily"})
        assert (answer.status_code, answer.json()["detail"]) == (424, "The Hub could not be read; nothing was changed.")
        assert "Nothing was imported. The Hub" in site.post("/imports", data={"source": "daily"}).text
    assert len(Catalogue().papers()) == 44
