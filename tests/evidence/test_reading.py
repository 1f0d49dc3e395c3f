"""Packs made to harm who opens them: each is refused, with the cause, and nothing is written."""

import json
import os
import stat
import struct
import zipfile

import pytest

from perdure.errors import IntegrityError, PerdureError, UnsafeFileError
from perdure.evidence import check_pack, reading
from perdure.evidence.reading import read_files

GOOD = {"manifest.json": b"{}", "README.md": b"# card"}


def zipped(path, entries):
    """A zip file of names or entries and their bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in entries:
            pack.writestr(name, data)
    return path


def entry(name, mode=stat.S_IFREG | 0o644, method=zipfile.ZIP_STORED):
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr, made.compress_type = 3, mode << 16, method
    return made


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt", "/etc/passwd", "versions/../../x", "a/b.json", "versions/a/b", "C:\\x", "..\\x", ".hidden",
        "versions/.x", "versions/", "x/", "ü.txt", "a b", "-rf", "", "versions", "x" * 200, "a\nb", "~root",
    ],
)  # fmt: skip
def test_names_that_leave_the_pack_or_hide_are_refused(tmp_path, name):
    path = zipped(tmp_path / "p.zip", [*GOOD.items(), (name, b"x")] if name else [*GOOD.items(), ("..", b"x")])
    if name == "versions":
        assert read_files(path)["versions"] == b"x"  # a plain file; the manifest does not name it
        return
    with pytest.raises(UnsafeFileError, match=r"no name of a file in a pack|no plain file"):
        read_files(path)


def test_a_name_cut_at_nul_is_refused(tmp_path):
    path = zipped(tmp_path / "p.zip", [*GOOD.items(), ("a.txtXb", b"x")])
    path.write_bytes(path.read_bytes().replace(b"a.txtXb", b"a.txt\0b"))
    with pytest.raises(PerdureError):
        read_files(path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o600, stat.S_IFDIR | 0o755, stat.S_IFCHR])
def test_links_and_special_files_in_a_zip_are_refused(tmp_path, mode):
    path = zipped(tmp_path / "p.zip", [*GOOD.items(), (entry("policy.toml", mode), b"/etc/passwd")])
    with pytest.raises(UnsafeFileError, match="a link or no plain file"):
        read_files(path)


def test_a_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "p.zip", [*GOOD.items(), ("README.md", b"# another card")])
    with pytest.raises(UnsafeFileError, match="twice"):
        read_files(path)


def test_a_bomb_is_refused_by_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 1 << 20)
    path = zipped(tmp_path / "p.zip", [*GOOD.items(), (entry("a.bin", method=zipfile.ZIP_DEFLATED), bytes(1 << 21))])
    assert path.stat().st_size < 1 << 13
    with pytest.raises(UnsafeFileError, match="unpacks to more than"):
        read_files(path)


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 1 << 20)
    big = 1 << 21
    path = zipped(tmp_path / "p.zip", [(entry("manifest.json", method=zipfile.ZIP_DEFLATED), bytes(big))])
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", big), struct.pack("<I", 10)))
    with pytest.raises(PerdureError):
        read_files(path)


def test_many_files_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MOST", 5)
    path = zipped(tmp_path / "p.zip", [*GOOD.items(), *((f"f{number}", b"") for number in range(5))])
    with pytest.raises(UnsafeFileError, match="more than 5 files"):
        read_files(path)


def test_encryption_and_odd_compression_are_refused(tmp_path):
    path = zipped(tmp_path / "p.zip", [*GOOD.items(), (entry("a.txt", method=zipfile.ZIP_LZMA), b"x" * 99)])
    with pytest.raises(UnsafeFileError, match="compressed in an unusual way"):
        read_files(path)
    path = zipped(tmp_path / "q.zip", GOOD.items())
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match="encrypted"):
        read_files(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", b"\x80\x04pickle", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_pack_is_refused(tmp_path, data):
    (tmp_path / "p.zip").write_bytes(data)
    with pytest.raises(IntegrityError):
        read_files(tmp_path / "p.zip")


def test_a_zip_cut_off_anywhere_is_refused(tmp_path):
    whole = zipped(tmp_path / "p.zip", GOOD.items()).read_bytes()
    for end in range(0, len(whole) - 1, 7):
        (tmp_path / "p.zip").write_bytes(whole[:end])
        with pytest.raises(PerdureError):
            read_files(tmp_path / "p.zip")


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(IntegrityError, match="cannot be read"):
        check_pack(tmp_path / "nothing.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IntegrityError, match=r"no manifest\.json"):
        check_pack(tmp_path / "empty")


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "folder", "hidden", "large"])
def test_folders_with_more_than_plain_files_are_refused(pack, tmp_path, kind, monkeypatch):
    place = pack / "policy.toml"
    if kind != "hidden":
        place.unlink()
    if kind == "link":
        (tmp_path / "secret").write_text("x")
        place.symlink_to(tmp_path / "secret")
    elif kind == "link to a folder":
        place.symlink_to(tmp_path)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "hidden":
        (pack / ".git").mkdir()
    else:
        monkeypatch.setattr(reading, "LARGEST", 1 << 10)
        place.write_bytes(bytes(1 << 11))
    with pytest.raises(UnsafeFileError):
        check_pack(pack)


def test_a_versions_folder_that_is_a_link_is_refused(pack, tmp_path):
    (pack / "versions").rename(tmp_path / "elsewhere")
    (pack / "versions").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match="link"):
        check_pack(pack)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "[" * 100_000, '{"_type": 1}', "\ud800".encode("utf-8", "surrogatepass"),
        '{"_type":"https://in-toto.io/Statement/v1","predicateType":"urn:perdure:evidence:1","subject":[]}',
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(pack, text):
    (pack / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(IntegrityError, match="statement"):
        check_pack(pack)


def test_a_manifest_that_names_a_file_twice_is_refused(pack):
    told = json.loads((pack / "manifest.json").read_text())
    told["subject"].append(told["subject"][0])
    (pack / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(IntegrityError, match="names a file twice"):
        check_pack(pack)
