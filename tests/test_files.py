import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from broadsheet.errors import BroadsheetError, DataError, InputError, UntrustedError
from broadsheet.files import PICKLE_OPCODES, load_arrays, load_pickle, read_bytes, read_json, read_text, unpack


def npy_header(shape, descr="<f8"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def test_arrays_round_trip(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array(["x", "y"])}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    np.save(tmp_path / "a.npy", arrays["a"])
    save_file({"a": arrays["a"]}, tmp_path / "a.safetensors")
    for name, value in load_arrays(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(value, arrays[name])
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.npy")[""], arrays["a"])
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.safetensors")["a"], arrays["a"])


def hostile(tmp_path, kind):
    path = tmp_path / f"{kind}.npz"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "objects":
        np.savez(path, a=np.array([{}], dtype=object))
    elif kind == "objects-npy":
        path = tmp_path / "objects.npy"
        np.save(path, np.array([print], dtype=object))
    elif kind == "large-claim":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", npy_header((10**10,)))
    elif kind == "large-claim-npy":
        path = tmp_path / "large.npy"
        path.write_bytes(npy_header((10**5, 10**5)))
    elif kind == "large-header":
        path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{'descr'")
    elif kind == "large-safetensors":
        path = tmp_path / "large.safetensors"
        path.write_bytes(struct.pack("<Q", 10 * 2**30) + b"{}")
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", b"\0" * (200 * 2**20))
        return path, {"max_bytes": 100 * 2**20}
    elif kind == "outside":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../a.npy", b"")
    elif kind == "truncated":
        np.savez(path, a=np.zeros(1000))
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "shape-nonsense":
        path.write_bytes(npy_header("(__import__('os'),)"))
    elif kind == "text":
        path.write_text("a,b\n1,2\n")
    elif kind == "empty":
        path.write_bytes(b"")
    return path, {}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("pickle", UntrustedError), ("objects", UntrustedError), ("objects-npy", UntrustedError), ("large-claim", DataError),
        ("large-claim-npy", DataError), ("large-header", DataError), ("large-safetensors", DataError), ("bomb", DataError),
        ("outside", UntrustedError), ("truncated", DataError), ("shape-nonsense", DataError), ("text", DataError),
        ("empty", DataError),
    ],
)  # fmt: skip
def test_hostile_arrays_are_refused_with_a_reason(tmp_path, kind, error):
    path, options = hostile(tmp_path, kind)
    with pytest.raises(error) as caught:
        load_arrays(path, **options)
    assert path.stem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_stay_in_their_folder(tmp_path):
    good = tmp_path / "good.zip"
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("inner/a.txt", "hello")
    assert (unpack(good, tmp_path / "out") / "inner" / "a.txt").read_text() == "hello"
    for name in ("../evil", "/evil", "a/../../evil", "..\\evil"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, "x")
        with pytest.raises(UntrustedError, match="outside its folder"):
            unpack(tmp_path / "bad.zip", tmp_path / "bad")
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for member in (link, tarfile.TarInfo("../evil")):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            tar.addfile(member, io.BytesIO(b""))
        with pytest.raises(UntrustedError):
            unpack(tmp_path / "bad.tar", tmp_path / "bad")
    assert not (tmp_path / "evil").exists()
    (tmp_path / "no.zip").write_text("no archive")
    with pytest.raises(DataError):
        unpack(tmp_path / "no.zip", tmp_path / "bad")


def test_text_is_checked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text(path) == "a\nb"
    for content, words in ((b"\xff\xfea\0", "UTF-8"), (b"a\0b", "control"), (b"x" * 100, "at most")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_text(path, max_bytes=50)
    with pytest.raises(InputError, match="no such file"):
        read_bytes(tmp_path / "none", 10)
    with pytest.raises(InputError, match="folder"):
        read_bytes(tmp_path, 10)


def test_json_depth_and_pickles(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(path)
    path.write_bytes(pickle.dumps([1, 2]))
    monkeypatch.delenv("BROADSHEET_TRUST", raising=False)
    with pytest.raises(UntrustedError, match="--trust"):
        load_pickle(path)
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    assert load_pickle(path) == [1, 2]
    path.write_bytes(b"garbage")
    with pytest.raises(BroadsheetError, match="not a pickle"):
        load_pickle(path)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_safetensors_file_whose_length_begins_like_a_pickle_is_read(tmp_path, length):
    path, arrays = tmp_path / "a.safetensors", {"a": np.arange(3.0)}
    save_file(arrays, path, metadata={"note": ""})
    first = int.from_bytes(path.read_bytes()[:8], "little")
    for filler in range(length - first - 8, length - first + 9):  # the header is padded to whole words
        save_file(arrays, path, metadata={"note": "x" * filler})
        if int.from_bytes(path.read_bytes()[:8], "little") == length:
            break
    assert path.read_bytes()[:2] in PICKLE_OPCODES
    np.testing.assert_array_equal(load_arrays(path)["a"], arrays["a"])
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(UntrustedError):
        load_arrays(path)
