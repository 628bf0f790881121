"""People who read the page: accounts, letters, votes, comments, collections. A site has them with `serve --readers`."""
