"""Commands of a site with readers: digest, and `readers` for the administrator."""

from __future__ import annotations

import typer

readers = typer.Typer(no_args_is_help=True, help="Readers of the site: letters that came back, addresses that want none.")


@readers.callback()
def _readers() -> None:
    pass
