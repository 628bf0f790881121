"""One-time links and sessions, as a browser meets them."""

import re

from readership import mails


def link_of(letter):
    return re.search(r"/sign-in/[\w-]+", letter.get_body().get_content())[0]


def test_a_link_signs_in_once_and_only_by_its_button(site, letters):
    browser = site()
    browser.post("/sign-in", data={"address": "Ada@Example.org", "next": "/trending"})
    link = link_of(mails(letters, "ada@example.org")[0])
    assert browser.get(link).status_code == browser.get(link).status_code == 200
    assert browser.get("/account").headers["location"].startswith("/sign-in")
    assert browser.post(link).headers["location"] == "/account"  # a new account chooses its name first
    assert "ada@example.org" in browser.get("/account").text
    assert browser.post(link).status_code == browser.get(link).status_code == 410
