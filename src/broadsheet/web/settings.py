"""What a site is started with. Web workers get it through the environment."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import urlsplit

from broadsheet.errors import InputError

VARIABLE = "BROADSHEET_SITE"


@dataclass(frozen=True)
class Settings:
    """How the site is reached, and who administers it.

    - `host`, `port`: where it listens; `url`: its public address, for feeds and badges (by default that of each request).
    - `token`: the administrator's token. Without one the administrator is whoever sits at this machine, and the site
      listens on a loopback address only.
    - `meaning`: whether search goes by meaning where the extra is installed; `log`: how log lines look.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    url: str = ""
    token: str = ""
    meaning: bool = True
    log: Literal["text", "json"] = "text"

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
