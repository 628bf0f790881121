"""The page: what papers there are, from which source, and where each stands."""

from broadsheet.page.catalogue import Catalogue, ListedPaper

__all__ = ["Catalogue", "ListedPaper"]
