"""What a site is started with. Web workers get it through the environment."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import urlsplit

from broadsheet.errors import InputError
from broadsheet.readers.accounts import plain_address

VARIABLE = "BROADSHEET_SITE"
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


@dataclass(frozen=True)
class Settings:
    """How the site is reached, and who administers it.

    - `host`, `port`: where it listens; `url`: its public address, for feeds and links from elsewhere (by default the name
      that a request used, one of this site's own).
    - `token`: the administrator's token. Without one the administrator is whoever sits at this machine, and the site
      listens on a loopback address only.
    - `meaning`: whether search goes by meaning where the extra is installed; `log`: how log lines look.
    - `readers`: whether people may have accounts; `mail`: the SMTP server's address, or a folder for `.eml` files, empty where
      there is none; `sender`: the address that letters come from; `title`: what the site calls itself in them; `providers`: a
      TOML file of OpenID providers.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    url: str = ""
    token: str = ""
    meaning: bool = True
    log: Literal["text", "json"] = "text"
    readers: bool = False
    mail: str = ""
    sender: str = ""
    title: str = "Broadsheet"
    providers: str = ""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise InputError(f"The public address is {self.url!r}; http://… or https://… is wanted.")
        if not self.loopback and not self.token:
            raise InputError(
                f"On {self.host} others can reach the site: set an administrator's token in BROADSHEET_TOKEN "
                "(16 characters or more), or listen on 127.0.0.1."
            )
        if self.url and not self.token and not is_loopback(urlsplit(self.url).hostname or ""):
            raise InputError(f"{self.url} is public: set an administrator's token in BROADSHEET_TOKEN.")
        if self.token and len(self.token) < 16:
            raise InputError("The administrator's token is too short: 16 characters or more are wanted.")
        if self.readers and not (self.secure or is_loopback(urlsplit(self.url or f"//{self.host}").hostname or "")):
            raise InputError("Readers sign in over TLS: give the public address as https://… with --url.")
        if self.mail and not self.sender:
            raise InputError("Letters need an address that they come from: --mail-from, or BROADSHEET_MAIL_FROM.")
        if self.sender:
            plain_address(self.sender)

    @property
    def secure(self) -> bool:
        """Whether readers reach the site over TLS, so that cookies may ask for it."""
        return self.url.startswith("https://")

    def answers_to(self, host: str, server: str = "") -> bool:
        """Whether a request's Host header names this site: a loopback name, where it listens, or its public address.

        `server`: the address that the request came in on. Any other name was made up by who asks, or made to point here.
        """
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        own = (self.host, server, urlsplit(self.url).hostname or "", socket.gethostname())
        return is_loopback(name) or name in [one.strip("[]").lower() for one in own]

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def to_environment(self) -> None:
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(**json.loads(os.environ.get(VARIABLE, "{}")))


def is_loopback(host: str) -> bool:
    """Whether a host, as name or address, is this machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
