"""Files on a server, read by parts, through a server of our own that answers as DANDI does."""

import http.server
import json
import threading
import urllib.parse

import numpy as np
import nwb_files
import pytest

from broadsheet.errors import DataError, InputError, SourceError
from broadsheet.recordings import open_session, streaming

ASSET = "0123abcd-0000-4000-8000-000000000000"


class Archive(http.server.BaseHTTPRequestHandler):
    """DANDI's list of assets, a redirect to the content, and the content by ranges."""

    content, fails, asked, ranges = b"", 0, [], True

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/api/dandisets/000006/versions/draft/assets/":
            (wanted,) = urllib.parse.parse_qs(url.query)["path"]
            found = [
                {"path": path, "asset_id": ASSET} for path in ("sub-1/a.nwb", "sub-1/ab.nwb") if path.startswith(wanted[:5])
            ]
            return self.answer(200, json.dumps({"results": found}).encode())
        if url.path == f"/api/assets/{ASSET}/download/":
            self.send_response(302)
            self.send_header("Location", "/blob")
            self.end_headers()
            return None
        if url.path != "/blob":
            return self.answer(404, b"{}")
        if type(self).fails:
            type(self).fails -= 1
            return self.answer(503, b"later")
        if not self.ranges:
            return self.answer(200, self.content)
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        type(self).asked.append((first, last))
        part = self.content[first : last + 1]
        return self.answer(206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(self.content)}"})

    def answer(self, code, body, headers=None):
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def archive(tmp_path, monkeypatch):
    put = nwb_files.write_two_photon(tmp_path / "s.nwb", cells=60)
    handler = type("Own", (Archive,), {"content": (tmp_path / "s.nwb").read_bytes(), "asked": [], "put": put})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(streaming, "DANDI", f"http://127.0.0.1:{server.server_port}/api")
    monkeypatch.setattr(streaming, "BLOCK", 64 * 1024)
    monkeypatch.setattr(streaming, "PAUSE", 0.01)
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_an_asset_of_dandi_is_read_by_parts(archive):
    with open_session("dandi://000006/sub-1/a.nwb") as session:
        cells = session.trace("dff/traces")
        opened = sum(last - first + 1 for first, last in archive.asked)
        part = cells.between(20.0, 21.0)
        fetched = sum(last - first + 1 for first, last in archive.asked)
        np.testing.assert_array_equal(part.values, archive.put["dff"][450:480].astype(float))
    assert opened < 0.8 * len(archive.content)
    assert fetched - opened < 0.2 * len(archive.content)
    assert session.name == "dandi://000006/sub-1/a.nwb"
    assert len(set(archive.asked)) == len(archive.asked)  # no block twice


def test_a_server_that_stumbles_is_asked_again(archive):
    archive.fails = 2
    address = streaming.DANDI.removesuffix("/api") + "/blob"
    with open_session(address) as session:
        assert session.trace("speed").unit == "cm/s"
    archive.fails = 99
    with pytest.raises(SourceError, match="the server answered 503"):
        open_session(address)


def test_what_cannot_be_had_is_one_sentence(archive, monkeypatch):
    with pytest.raises(InputError, match=r"has no asset of this path; it has sub-1/a.nwb, sub-1/ab.nwb"):
        open_session("dandi://000006/sub-1/b.nwb")
    with pytest.raises(InputError, match=r"PATH/OF/ASSET\.nwb is wanted"):
        open_session("dandi://6/sub-1/b.nwb")
    with pytest.raises(SourceError, match=r"dandi://000007/a\.nwb cannot be fetched \(the server answered 404\)"):
        open_session("dandi://000007/a.nwb")
    address = streaming.DANDI.removesuffix("/api") + "/blob"
    archive.ranges = False
    with pytest.raises(DataError, match="gives no parts of files; download it"):
        open_session(address)
    archive.ranges, archive.content = True, b"no HDF5 at all"
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        open_session(address)
    monkeypatch.setattr(streaming, "DANDI", "http://127.0.0.1:9/api")
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_session("dandi://000006/sub-1/a.nwb")
