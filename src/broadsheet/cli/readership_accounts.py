"""Commands on readers' accounts, for the administrator: link, list, moderator, block, export, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broadsheet.errors import InputError

Who = Annotated[str, typer.Argument(metavar="ADDRESS|NAME", help="The account, by its address or its name.")]


def link(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Who may sign in; who is new gets an account.")],
    url: Annotated[str, typer.Option(envvar="BROADSHEET_URL", help="The site's public address.")] = "http://127.0.0.1:8000",
) -> None:
    """Print a link that signs somebody in once, for 15 minutes, where the site sends no letters."""
    from broadsheet.lab.store import Store
    from broadsheet.readers import accounts, keys

    if not url.startswith(("http://", "https://")):
        raise InputError(f"The public address is {url!r}; http://… or https://… is wanted.")
    data = {"address": accounts.plain_address(address), "next": "/"}
    token, code = accounts.ask(Store(), "sign-in", data, keys.fresh())  # no browser has asked: each types the code
    print(f"{url.rstrip('/')}/sign-in/{token}\nThe code for it: {code}")


def list_(
    addresses: Annotated[bool, typer.Option("--addresses", help="With their e-mail addresses.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the accounts: name, role, first and last seen; addresses only where they are asked for."""
    from broadsheet.cli.output import console, print_json, table
    from broadsheet.lab.store import Store
    from broadsheet.readers import accounts

    rows = [
        {
            "name": one.name,
            "role": "blocked" if one.blocked else one.role,
            "since": f"{one.made:%Y-%m-%d}",
            "seen": f"{one.seen:%Y-%m-%d}",
            **({"address": one.address or ""} if addresses else {}),
        }
        for one in accounts.everybody(Store())
    ]
    if as_json:
        print_json(rows)
    elif not rows:
        print("Nobody has an account yet.")
    else:
        console().print(table(list(rows[0]), [list(row.values()) for row in rows]))


def moderator(who: Who, off: Annotated[bool, typer.Option("--off", help="Make the account a reader again.")] = False) -> None:
    """Let an account moderate comments."""
    from broadsheet.lab.store import Store
    from broadsheet.readers import accounts

    store = Store()
    accounts.set_role(store, who, "reader" if off else "moderator")
    print(f"{accounts.find(store, who).name} {'is a reader' if off else 'moderates'} from now on.")


def block(who: Who, off: Annotated[bool, typer.Option("--off", help="Let the account in again.")] = False) -> None:
    """Shut an account out: its sessions and keys end, and its votes count no more."""
    from broadsheet.lab.store import Store
    from broadsheet.readers import accounts, leaving

    store = Store()
    found = accounts.find(store, who)
    leaving.block(store, found.id, not off)
    print(f"{found.name} is {'let in again' if off else 'shut out'}.")


def export(
    who: Who, file: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Where it goes.")] = None
) -> None:
    """Write all that is kept of an account, as JSON."""
    import json

    from broadsheet.cache import writing
    from broadsheet.cli.output import print_json
    from broadsheet.lab.store import Store
    from broadsheet.readers import accounts, leaving

    store = Store()
    found = leaving.export(store, accounts.find(store, who).id)
    if file is None:
        print_json(found)
        return
    with writing(file) as stream:
        stream.write(json.dumps(found, ensure_ascii=False, indent=1).encode())
    print(f"{file} holds all that is kept of {found['account']['name']}.")


def delete(who: Who, yes: Annotated[bool, typer.Option("--yes", help="Do it without a question.")] = False) -> None:
    """Delete an account and all that hangs on it. Nobody can bring it back."""
    from broadsheet.lab.store import Store
    from broadsheet.readers import accounts, leaving

    store = Store()
    found = accounts.find(store, who)
    if not yes and not typer.confirm(f"Delete the account {found.name}?"):
        raise typer.Exit(1)
    leaving.delete_account(store, found.id)
    print(f"{found.name} is deleted. Archives of before hold the account still: see the guide on backups.")
