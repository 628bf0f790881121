"""What the tests of readers share."""

import email
import re
from email.policy import default

from fastapi.testclient import TestClient

from broadsheet.web.app import create
from broadsheet.web.settings import Settings

BASE = "http://localhost:8000"


class Browser(TestClient):
    """A browser without JavaScript at a site with readers; with an address, signed in by a link from its letters.

    `app`: the site that another browser is at already.
    """

    def __init__(self, store, letters, address="", app=None, **settings):
        given = {"readers": True, "meaning": False, "mail": str(letters), "sender": "papers@example.org", **settings}
        self.letters = letters
        super().__init__(
            app or create(Settings(**given), store), base_url=BASE, client=("127.0.0.1", 50000),
            headers={"origin": BASE, "accept": "text/html"}, follow_redirects=False,
        )  # fmt: skip
        if app is None:
            self.__enter__()
        if address:
            self.sign_in(address)

    def sign_in(self, address):
        assert self.post("/sign-in", data={"address": address}).status_code == 200
        link = re.search(r"/sign-in/[\w-]+", mails(self.letters, address)[-1].get_body().get_content())[0]
        assert self.post(link).status_code == 303


def mails(letters, address=None):
    """Letters that went out, the oldest first, of all or to one address."""
    files = sorted(letters.glob("*.eml"), key=lambda file: file.stat().st_mtime_ns) if letters.exists() else []
    read = [email.message_from_bytes(file.read_bytes(), policy=default) for file in files]
    return [one for one in read if address in (None, one["To"])]
