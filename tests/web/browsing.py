"""What the tests of the site share."""

from fastapi.testclient import TestClient

from broadsheet.page.facts import Facts
from broadsheet.web.app import create
from broadsheet.web.settings import Settings

FRESH = [
    Facts("A fresh paper without a system", arxiv="2512.00001", abstract="We find $O(n^2)$ of them. " * 8, names=("A. One", "B. Two"),
          published="2025-12-10", comments=2, upvotes=9),
    Facts(r"Schr\"odinger meets $\Psi$", arxiv="2512.00002", abstract="Bridges between marginals. " * 8, published="2025-12-09"),
]  # fmt: skip


def client(settings=None, address=("127.0.0.1", 50000), base_url="http://localhost:8000", store=None, **options):
    """A browser without JavaScript at the site, by default on this machine."""
    settings = settings or Settings(meaning=False)
    return TestClient(create(settings, store), base_url=base_url, client=address, **options)
