"""The site: pages for readers, feeds, an API, and runs that fill the page while they go."""
