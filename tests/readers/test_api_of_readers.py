"""The API as strangers and readers may use it: valid and invalid requests to every operation that a site with readers adds."""

import contextlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

SECRET = "Adas own words 7f3a"


@pytest.fixture
def ada(site):
    """A reader with things that nobody else is to see or change."""
    made = site(address="ada@example.org")
    number = int(made.post("/account/collections", data={"title": SECRET}).headers["location"].rpartition("/")[2])
    made.post(f"/collections/{number}/papers", data={"paper": "transip", "note": SECRET})
    made.post("/later", data={"paper": "granet"})
    made.post("/read", data={"paper": "hlop"})
    made.post("/submit", data={"value": "https://example.org/adas", "note": SECRET})
    return made


def held(browser):
    """What the account has, by the API."""
    paths = ("collections", "collections/1", "me/collections", "me/marks", "me/submissions")
    return [browser.get(f"/api/v1/{path}").json() for path in paths]


def key(browser):
    """A key of the API with every scope."""
    scopes = re.findall(r'name="scope" value="(\w+)"', browser.get("/account").text)
    return re.search(r"bsr_[\w-]+", browser.post("/account/keys", data={"name": "all", "scope": scopes}).text)[0]


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("who", ["anybody", "bob"])
def test_no_request_breaks_the_api_or_reaches_another_account(site, ada, who, mode, monkeypatch):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not here: pip install '.[dev]'")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    monkeypatch.setattr("broadsheet.readers.rates.count", lambda *given: None)  # else most answers are 429
    bob = site(address="bob@example.org")
    headers = {"authorization": f"Bearer {key(bob)}"} if who == "bob" else {}
    before = held(ada)
    described = schemathesis.openapi.from_asgi("/api/v1/openapi.json", site().app)
    asked, statuses = set(), set()
    for found in described.get_all_operations():
        operation = found.ok()
        if not {"readers", "me"} & set(operation.tags or ()) and "/me/" not in operation.path:
            continue
        asked.add(f"{operation.method} {operation.path}")

        @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def one(case):
            answer = case.call(headers=headers)
            statuses.add(answer.status_code)
            assert SECRET not in answer.text
            case.validate_response(answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])

        with contextlib.suppress(Unsatisfiable):  # an operation that takes nothing has no invalid request
            one()
    assert len(asked) >= 10
    assert held(ada) == before
    if who == "anybody":
        assert 401 in statuses
    elif mode == "POSITIVE":
        assert statuses & {200, 201}
