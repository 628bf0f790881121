"""A file on a server, read by parts: what is not asked for is not fetched.

Addresses of DANDI's assets are found by its REST API (https://api.dandiarchive.org); nothing is kept on disk.
"""

from __future__ import annotations

import io
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import OrderedDict
from typing import Any

from broadsheet.errors import DataError, InputError, SourceError

DANDI = "https://api.dandiarchive.org/api"
BLOCK = 1024 * 1024
KEPT = 128
"""Blocks that are kept: what one open file takes in memory is this times a block."""
TRIES, PAUSE, PATIENCE = 3, 0.5, 60.0


def open_remote(source: str, dandi: str | None = None) -> RangeFile:
    """The file at `dandi://DANDISET[@VERSION]/PATH`, or at an http address; `dandi` is the address of another archive's API."""
    return RangeFile(asset_address(source, dandi or DANDI) if source.startswith("dandi://") else source, source)


def asset_address(source: str, dandi: str) -> str:
    """The address of an asset's content.

    **Raises:** `InputError` where there is no such asset, with those that begin like it.
    """
    parts = re.fullmatch(r"dandi://(\d{6})(?:@([\w.]+))?/(.+)", source)
    if not parts:
        raise InputError(f"{source}: dandi://000000/PATH/OF/ASSET.nwb is wanted, or dandi://000000@VERSION/PATH.")
    dandiset, version, path = parts[1], parts[2] or "draft", parts[3]
    query = urllib.parse.urlencode({"path": path, "page_size": 20})
    body = _get(f"{dandi}/dandisets/{dandiset}/versions/{version}/assets/?{query}", source)
    try:
        found = {str(each["path"]): str(each["asset_id"]) for each in json.loads(body)["results"]}
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{source}: {dandi} did not answer as DANDI does.") from None
    if path not in found:
        like = f"; it has {', '.join(sorted(found)[:3])}" if found else ""
        raise InputError(f"{source}: dandiset {dandiset} ({version}) has no asset of this path{like}.")
    if not re.fullmatch(r"[0-9a-fA-F-]{8,64}", found[path]):
        raise SourceError(f"{source}: {dandi} gave no identifier of the asset.")
    return f"{dandi}/assets/{found[path]}/download/"


class RangeFile(io.RawIOBase):
    """A file on a server as a seekable file, fetched block by block.

    **Arguments:** `address`: http or https; `name`: what messages call it.

    **Raises:** `SourceError` where the server fails three times, `DataError` where it gives no parts of files.
    """

    def __init__(self, address: str, name: str = "") -> None:
        super().__init__()
        self.address, self.name = address, name or address
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._at, self.fetched = 0, 0
        self.size = 0
        first, headers = self._fetch(0, BLOCK - 1)
        total = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
        if not total:
            raise DataError(f"{self.name}: the server gives no parts of files; download it and open the copy.")
        self.size = int(total[1])
        self._blocks[0] = first

    def _fetch(self, first: int, last: int) -> tuple[bytes, Any]:
        body, headers = _request(self.address, self.name, {"Range": f"bytes={first}-{last}"}, last - first + 1)
        self.fetched += len(body)
        return body, headers

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        first, last = number * BLOCK, min((number + 1) * BLOCK, self.size) - 1
        body, _ = self._fetch(first, last)
        if len(body) != last - first + 1:
            raise SourceError(f"{self.name}: the server gave {len(body)} bytes where {last - first + 1} were asked for.")
        self._blocks[number] = body
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        return body

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self.size - self._at))
        done = 0
        while done < wanted:
            number, within = divmod(self._at + done, BLOCK)
            part = self._block(number)[within : within + wanted - done]
            view[done : done + len(part)] = part
            done += len(part)
        self._at += wanted
        return wanted


def _get(address: str, name: str) -> bytes:
    return _request(address, name, {"Accept": "application/json"}, 16 * BLOCK)[0]


def _request(address: str, name: str, headers: dict[str, str], most: int) -> tuple[bytes, Any]:
    """Body and headers of an answer, at most `most` bytes of it; tried again where the server or the network fails."""
    said = ""
    for k in range(TRIES):
        if k:
            time.sleep(PAUSE * 2 ** (k - 1))
        try:
            request = urllib.request.Request(address, headers={"User-Agent": "broadsheet", **headers})
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read(most), answer.headers
        except urllib.error.HTTPError as error:
            said = f"the server answered {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except (urllib.error.URLError, OSError, ValueError) as error:
            said = str(getattr(error, "reason", error))[:80]
    raise SourceError(f"{name} cannot be fetched ({said}).")
