"""`itmbench data prepare`: a server that misbehaves, archives in the genuine layouts, archives that attack."""

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
from layouts import karpathy_entries, write_image, write_karpathy, write_mirflickr, write_nuswide
from refusal import refusal

from itmbench.cli.main import main
from itmbench.data import sources
from itmbench.data.download import CHUNK, download
from itmbench.data.prepare import WORK, prepare
from itmbench.data.sources import SOURCES, Archive, Source
from itmbench.data.unpack import unpack
from itmbench.errors import InputError, InputErrors

CONTENT = bytes(range(256)) * 2000
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves files from memory; each request takes the next step of its path's script, the last one for good.

    A step is a status, or "drop" (half of what was asked for comes), "short" (no length, half the file), "plain" (no
    ranges), "changing" (another version at every request), or (status, headers).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.scripts: dict[str, list[Any]] = {}
        self.requests: list[tuple[str, str | None, str | None]] = []
        """Path, range and authorization of every request."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up: they may do so late, in another test."""

    def url(self, path: str = "/file", content: bytes = CONTENT, script: tuple[Any, ...] = (200,)) -> str:
        self.files[path], self.scripts[path] = content, list(script)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self) -> list[str | None]:
        return [sent for _, sent, _ in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        sent = self.headers.get("Range")
        self.server.requests.append((self.path, sent, self.headers.get("Authorization")))
        script = self.server.scripts.get(self.path, [404])
        step = script.pop(0) if len(script) > 1 else script[0]
        status, headers = step if isinstance(step, tuple) else (step if isinstance(step, int) else 200, {})
        content = self.server.files.get(self.path, b"") if status == 200 else b"no"
        etag = f'"{len(self.server.requests) if step == "changing" else hashlib.md5(content).hexdigest()}"'
        if self.headers.get("If-Range") not in (None, etag):
            sent = None
        start = int(sent.removeprefix("bytes=").partition("-")[0]) if sent and step not in ("plain", "short") else 0
        if start and start >= len(content):
            status, headers, content = 416, {"Content-Range": f"bytes */{len(content)}"}, b""
        elif start:
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            status, content = 206, content[start:]
        self.send_response(status)
        for name, value in ({"ETag": etag} | headers).items():
            self.send_header(name, value)
        if step == "short":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if step in ("drop", "short", "changing"):
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def fetch(target: Path, *urls: str, **options: Any) -> bytes:
    download(urls, target, backoff=0.001, **options)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return target.read_bytes()


def kept(sent: int) -> int:
    """What of a broken transfer is on the disk."""
    return sent // CHUNK * CHUNK


def test_a_dropped_connection_resumes_where_it_was(server: Server, tmp_path: Path) -> None:
    url = server.url(script=("drop", "drop", 200))
    assert fetch(tmp_path / "f", url, size=len(CONTENT), checksum=MD5) == CONTENT
    first = kept(len(CONTENT) // 2)
    assert server.ranges() == [None, f"bytes={first}-", f"bytes={first + kept((len(CONTENT) - first) // 2)}-"]


def test_a_later_call_resumes_the_same_version_only(server: Server, tmp_path: Path) -> None:
    url = server.url(script=("drop", (404, {})))
    with pytest.raises(InputError, match=r"127\.0\.0\.1:\d+: HTTP 404 Not Found"):
        fetch(tmp_path / "f", url)
    server.scripts["/file"] = [200]
    assert fetch(tmp_path / "f", url) == CONTENT
    assert server.ranges()[2] == f"bytes={kept(len(CONTENT) // 2)}-"

    server.scripts["/file"] = ["drop", (404, {})]
    with pytest.raises(InputError):
        fetch(tmp_path / "g" / "f", url)
    other = CONTENT[::-1]
    assert fetch(tmp_path / "g" / "f", server.url(content=other)) == other


def test_what_one_mirror_sent_is_not_completed_by_another(server: Server, tmp_path: Path) -> None:
    first = server.url("/a", script=("drop", (404, {})))
    second = server.url("/b", content=CONTENT[::-1])
    assert fetch(tmp_path / "f", first, second) == CONTENT[::-1]
    assert server.requests[-1][:2] == ("/b", None)


def test_a_whole_file_that_was_not_yet_renamed_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    url = server.url(script=("drop", (404, {})))
    with pytest.raises(InputError):
        fetch(tmp_path / "f", url)
    (tmp_path / "f.part").write_bytes(CONTENT)
    server.scripts["/file"] = [200]
    assert fetch(tmp_path / "f", url) == CONTENT
    assert server.ranges()[-1] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize(
    "script",
    [
        (500, 502, 200),
        (503, "drop", 500, 200),
        ("plain", 200),
        ("drop", "plain"),
        ((301, {"Location": "/other"}), 200),
        ((302, {"Location": "/other"}), "drop", (302, {"Location": "/other"})),
    ],
)
def test_passing_errors_and_redirects(server: Server, tmp_path: Path, script: tuple[Any, ...]) -> None:
    server.url("/other")
    assert fetch(tmp_path / "f", server.url(script=script), checksum=MD5) == CONTENT


def test_retry_after_is_waited_for(server: Server, tmp_path: Path) -> None:
    started = time.monotonic()
    assert fetch(tmp_path / "f", server.url(script=((429, {"Retry-After": "1"}), 200))) == CONTENT
    assert 1 <= time.monotonic() - started < 10


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "missing": ((404,), {}, "HTTP 404 Not Found"),
    "forbidden": ((403,), {}, "HTTP 403 Forbidden"),
    "busy for good": ((429,), {}, "HTTP 429 Too Many Requests"),
    "broken for good": ((500,), {}, "HTTP 500 Internal Server Error"),
    "short without a length": (("short",), {"size": len(CONTENT)}, "the connection ends early, 5 times"),
    "cut off for good": (("drop", "plain", "changing"), {"size": len(CONTENT) + 1}, "instead of 512,001"),
    "another version at every try": (("changing",), {}, "5 times"),
    "another length": ((200,), {"size": 7}, "512,000 bytes instead of 7"),
    "another content": ((200,), {"checksum": "md5:" + "0" * 32}, "the md5 checksum is"),
    "round in a circle": (((302, {"Location": "/file"}),), {}, "no answer (TooManyRedirects)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_file_is_refused_and_the_next_mirror_asked(
    case: str, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script, options, reason = REFUSED[case]
    with pytest.raises(InputError) as refused:
        fetch(tmp_path / "f", server.url(script=script), **options)
    assert reason in str(refused.value) and not (tmp_path / "f").exists()
    good = {"size": len(CONTENT), "checksum": MD5}
    if case not in ("another length", "another content", "cut off for good"):
        server.scripts["/file"] = list(script)
        assert fetch(tmp_path / "f", server.url(script=script), server.url("/mirror"), **good) == CONTENT


def test_too_little_room_is_noticed_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(InputError, match=r"512\.0 kB to download, but 512\.0 kB free in"):
        fetch(tmp_path / "f", server.url(), server.url("/mirror"))
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9: no answer \(ConnectionError\)"):
        fetch(tmp_path / "f", "http://127.0.0.1:9/f")


def test_the_hub_gets_the_users_token_and_a_redirect_to_another_host_does_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://localhost:{server.server_port}")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://localhost:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    where = server.url("/elsewhere")
    server.url("/datasets/a/b/resolve/main/f.zip", script=((302, {"Location": where}),))
    assert fetch(tmp_path / "f", "hf://a/b/f.zip") == CONTENT
    assert [token for _, _, token in server.requests] == ["Bearer hf_secret", None]


# Archives in the genuine layouts ---------------------------------------------------------------------------------


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Mapping[str, bytes], mode: Any = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """The files below a folder by their path, which begins with a prefix."""
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def captions(name: str, folders: tuple[str, str] | None = None) -> dict[str, bytes]:
    """``caption_datasets.zip``, with the six images of `karpathy_entries`."""
    entries = karpathy_entries()
    for row, entry in enumerate(entries if folders else ()):
        assert folders
        entry |= {"filepath": folders[row % 2], "filename": f"COCO_{folders[row % 2]}_{row}.jpg"}
    others = dict.fromkeys(("dataset_coco.json", "dataset_flickr8k.json", "dataset_flickr30k.json"), b"{}")
    return others | {f"dataset_{name}.json": json.dumps({"dataset": "small", "images": entries}).encode()}


def pictures(folder: Path, prefix: str, names: Mapping[int, str] | None = None) -> dict[str, bytes]:
    for row, name in (names or {row: f"{row}.jpg" for row in range(6)}).items():
        write_image(folder / name, row)
    return tree(folder, prefix)


JUNK = {"__MACOSX/._0.jpg": b"junk", "__MACOSX/flickr30k-images/0.jpg": b"junk", "x/._1.jpg": b"junk"}


def genuine(name: str, made: Path, into: Path, form: str = "zip") -> None:
    """Write all archives of a dataset into a folder."""
    if name == "mirflickr25k":
        write_mirflickr(made)
        (made / "mirflickr" / "meta" / "tags_raw").mkdir()
        (made / "mirflickr" / "meta" / "tags_raw" / "tags1.txt").write_text("Sun\n")
        zipped(into / "mirflickr25k.zip", tree(made / "mirflickr", "mirflickr/"))
        zipped(into / "mirflickr25k_annotations_v080.zip", tree(made / "mirflickr25k_annotations_v080"))
    elif name == "nuswide":
        write_nuswide(made)
        for part in ("ImageList", "ConceptsList", "Groundtruth", "NUS_WID_Tags"):
            zipped(into / f"{part}.zip", tree(made / part, f"{part}/" if form == "zip" else ""))
        (zipped if form == "zip" else tarred)(
            into / ("Flickr.zip" if form == "zip" else "Flickr.tar.gz"), tree(made / "Flickr", "Flickr/")
        )
    elif name == "coco":
        parts = ("train2014", "val2014")
        zipped(into / "caption_datasets.zip", captions(name, parts))
        for first, part in enumerate(parts):
            rows = {row: f"COCO_{part}_{row}.jpg" for row in range(first, 6, 2)}
            zipped(into / f"{part}.zip", pictures(made / part, f"{part}/", rows))
    else:
        zipped(into / "caption_datasets.zip", captions(name))
        folder = {"flickr30k": "flickr30k-images", "flickr8k": "Flicker8k_Dataset"}[name]
        files = JUNK | pictures(made, f"{folder}/")
        if form == "zip":
            zipped(into / ("flickr30k-images.zip" if name == "flickr30k" else "Flickr8k_Dataset.zip"), files)
        else:
            tarred(into / "flickr30k-images.tar.gz", files)


SPLIT = {
    "mirflickr25k": ["--queries=1", "--train=3", "--val=1"],
    "nuswide": ["--queries=1", "--train=2", "--val=1"],
}
CASES = [*((name, "zip") for name in SOURCES), ("flickr30k", "tar"), ("nuswide", "tar")]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_archives_of_the_user_become_a_dataset(
    name: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine(name, tmp_path / "made", tmp_path / "archives", form)
    root, given = tmp_path / "root", tmp_path / "archives"
    before = tree(given)
    options = ["--root", str(root), *SPLIT.get(name, [])]
    assert main(["data", "prepare", name, *options, "--from", str(given)]) == 0
    assert "fingerprint" in capsys.readouterr().out and tree(given) == before
    assert main(["data", "verify", name, *options, "--deep"]) == 0
    assert "images can be read" in capsys.readouterr().out

    files = tree(root)
    assert main(["data", "prepare", name, *options]) == 0  # nothing is missing, so nothing is looked for
    assert tree(root) == files


def local(name: str, server: Server, archives: Path) -> Source:
    """The table's row of a dataset, with the addresses of a server that has the archives of a folder."""

    def served(archive: Archive) -> Archive:
        path = archives / archive.names[0]
        content = path.read_bytes()
        script = ("drop", 500, 200) if name == "flickr8k" else (200,)  # it takes a few seconds
        url = server.url(f"/{path.name}", content, script)
        checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
        gone = f"http://127.0.0.1:{server.server_port}/gone"
        return replace(archive, urls=(gone, url), size=len(content), checksum=checksum)

    return replace(SOURCES[name], archives=tuple(served(archive) for archive in SOURCES[name].archives))


@pytest.mark.parametrize("name", SOURCES)
def test_downloaded_archives_become_a_dataset(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine(name, tmp_path / "made", tmp_path / "archives")
    monkeypatch.setitem(SOURCES, name, local(name, server, tmp_path / "archives"))
    options = ["--root", str(tmp_path / "root"), *SPLIT.get(name, [])]
    assert main(["data", "prepare", name, *options]) == 0
    assert main(["data", "verify", name, *options, "--deep"]) == 0
    asked = len(server.requests)
    assert main(["data", "prepare", name, *options]) == 0 and len(server.requests) == asked
    left = {path.name for path in (tmp_path / "root" / WORK).iterdir()}
    assert left == {"lock", *(f"{archive.names[0]}.json" for archive in SOURCES[name].archives)}


def test_what_nobody_may_pass_on_is_asked_for_and_the_rest_is_prepared(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine("nuswide", tmp_path / "made", tmp_path / "archives")
    row = local("nuswide", server, tmp_path / "archives")
    texts, images = row.archives[:-1], replace(row.archives[-1], urls=())
    texts = (*texts[:-1], replace(texts[-1], urls=texts[-1].urls[:1]))  # a mirror that has lost its file
    monkeypatch.setitem(SOURCES, "nuswide", replace(row, archives=(*texts, images)))
    root = tmp_path / "root"
    command = ["data", "prepare", "nuswide", "--root", str(root), *SPLIT["nuswide"]]
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("itmbench: ")]
    assert len(lines) == 2 and all(line.startswith("itmbench: nuswide: ") for line in lines)
    assert "NUS_WID_Tags.zip is missing (127.0.0.1" in lines[0] and "HTTP 404" in lines[0]
    assert "Flickr.zip is missing (it may not be passed on); send the agreement form" in lines[1]
    assert f"put Flickr.zip or Flickr.tar.gz or Flickr.tar into {root} or" in lines[1]
    assert (root / "Groundtruth" / "AllLabels" / "Labels_sky.txt").is_file()

    asked = len(server.requests)
    for archive in ("NUS_WID_Tags.zip", "Flickr.zip"):
        (root / archive).write_bytes((tmp_path / "archives" / archive).read_bytes())
    assert main(command) == 0 and len(server.requests) == asked
    assert (root / "Flickr.zip").is_file()


def test_interrupted_while_files_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine("flickr30k", tmp_path / "made", tmp_path / "archives")
    root = tmp_path / "root"
    moved: list[Path] = []

    def move(path: Path, target: Path) -> Path:
        if len(moved) == 4:
            raise KeyboardInterrupt
        moved.append(target)
        return real(path, target)

    real = Path.replace
    command = ["data", "prepare", "flickr30k", "--root", str(root), "--from", str(tmp_path / "archives")]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", move)
        assert main(command) == 1
    assert len(list(root.glob("flickr30k-images/*"))) == 3
    assert main(command) == 0
    assert len(list(root.glob("flickr30k-images/*"))) == 6
    next(root.glob("flickr30k-images/*")).unlink()
    assert main(command) == 0  # a file that was lost comes back
    assert len(list(root.glob("flickr30k-images/*"))) == 6


def test_a_folder_that_the_user_has_unpacked_is_left_alone(tmp_path: Path, server: Server) -> None:
    root = write_karpathy(tmp_path / "root", karpathy_entries(), images="images")
    (root / "dataset_small.json").rename(root / "dataset_flickr30k.json")
    assert main(["data", "prepare", "flickr30k", "--root", str(root)]) == 0
    (root / "images").rename(root / "flickr30k-images")
    data = (root / "dataset_flickr30k.json").read_bytes()
    (root / "dataset_flickr30k.json").unlink()
    (root / "dataset_flickr30k.json.gz").write_bytes(gzip.compress(data))
    (root / "flickr30k-images" / "5.jpg").unlink()
    prepare("flickr30k", SOURCES["flickr30k"], root, None, lambda: False)  # asks for nothing


def test_a_download_that_is_no_archive_is_removed(server: Server, tmp_path: Path) -> None:
    page = Archive(("a.zip",), {"*.jpg": "images"}, 10**6, (server.url(content=b"<html>log in</html>"),))
    with pytest.raises(InputErrors, match=r"not a readable zip or tar archive .* the download is removed"):
        prepare("d", Source("captions", (page,)), tmp_path, None, lambda: False)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock"}


def test_one_call_at_a_time(tmp_path: Path) -> None:
    row = Source("captions", (Archive(("a.zip",), {"*.jpg": "images"}, 10**6),))

    def second() -> bool:
        prepare("d", row, tmp_path, None, lambda: True)
        return True

    with pytest.raises(InputError, match="another `itmbench data prepare` works here"):
        prepare("d", row, tmp_path, None, second)


def test_from_names_a_folder_and_a_dataset_with_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", "flickr8k", "--root", str(tmp_path / "root"), "--from", str(tmp_path / "no")]
    assert "no such folder" in refusal(command, capsys, tmp_path)
    command = ["data", "prepare", "dcmh", "--root", str(tmp_path), "--from", str(tmp_path)]
    assert "dcmh has no archives" in refusal(command, capsys, tmp_path)


# Archives that attack -----------------------------------------------------------------------------------------------

PICTURE = {"images/a.jpg": b"a"}


def zip_with(name: str, mode: int = 0, content: bytes = b"x") -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        with zipfile.ZipFile(zipped(path, PICTURE), "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
        return path

    return write


def tar_with(name: str, **fields: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        with tarfile.open(path, "w:gz") as archive:
            for entry in (tarfile.TarInfo("images/a.jpg"), tarfile.TarInfo(name)):
                for field, value in fields.items() if entry.name == name else ():
                    setattr(entry, field, value)
                archive.addfile(entry, io.BytesIO(bytes(entry.size)))
        return path

    return write


def long_header(path: Path) -> Path:
    """A header that says that the next one has a gigabyte."""
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 10**9
    path.write_bytes(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000))
    return path


def cut(write: Callable[[Path, Mapping[str, bytes]], Path], share: float) -> Callable[[Path], Path]:
    def damage(path: Path) -> Path:
        data = write(path, {f"images/{n}.jpg": bytes(600) for n in range(9)}).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return damage


def between_members(path: Path) -> Path:
    data = tarred(path, {f"images/{n}.jpg": bytes(512) for n in range(9)}, "w").read_bytes()
    path.write_bytes(data[: 4 * 1024])
    return path


def encrypted(path: Path) -> Path:
    data = bytearray(zipped(path, PICTURE).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def page(path: Path) -> None:
    path.write_text("<html>")


def overwritten(path: Path) -> Path:
    data = zipped(path, {"images/a.jpg": b"abcdefgh" * 99}).read_bytes()
    path.write_bytes(data.replace(data[45:55], bytes(10)))
    return path


EVIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "zip: up": (zip_with("../up.jpg"), "'../up.jpg' leads out"),
    "zip: up with backslashes": (zip_with("..\\..\\up.jpg"), "leads out"),
    "zip: up in the middle": (zip_with("images/../../up.jpg"), "leads out"),
    "zip: absolute": (zip_with("/tmp/absolute.jpg"), "leads out"),
    "zip: link": (zip_with("images/l.jpg", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a link or a device"),
    "zip: device": (zip_with("images/d.jpg", stat.S_IFCHR | 0o666), "is a link or a device"),
    "zip: pipe": (zip_with("images/p.jpg", stat.S_IFIFO | 0o666), "is a link or a device"),
    "zip: bomb": (zip_with("images/b.jpg", 0, bytes(3 * 10**6)), "more than 1.0 MB"),
    "zip: bomb beside": (zip_with("other.bin", 0, bytes(3 * 10**6)), "more than 1.0 MB"),
    "zip: one name twice": (zip_with("elsewhere/a.jpg"), "two files would become images/a.jpg"),
    "zip: cut": (cut(zipped, 0.7), "not a readable zip or tar"),
    "zip: encrypted": (encrypted, "encrypted"),
    "zip: overwritten": (overwritten, "not a readable zip or tar"),
    "zip: nothing of use": (lambda path: zipped(path, {"a.txt": b""}), "no file *.jpg inside"),
    "tar: up": (tar_with("../up.jpg"), "leads out"),
    "tar: absolute": (tar_with("/tmp/absolute.jpg"), "leads out"),
    "tar: symbolic link": (tar_with("images/l.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "tar: hard link": (tar_with("images/l.jpg", type=tarfile.LNKTYPE, linkname="images/a.jpg"), "is a link"),
    "tar: device": (tar_with("images/d.jpg", type=tarfile.BLKTYPE), "is a link or a device"),
    "tar: pipe": (tar_with("images/p.jpg", type=tarfile.FIFOTYPE), "is a link or a device"),
    "tar: bomb": (tar_with("images/b.jpg", size=3 * 10**6), "more than 1.0 MB"),
    "tar: bomb beside": (tar_with("other.bin", size=3 * 10**6), "more than 1.0 MB"),
    "tar: a header of a gigabyte": (long_header, "absurd length"),
    "tar: cut": (cut(tarred, 0.7), "not a readable zip or tar"),
    "tar: cut between two members": (between_members, "not a readable zip or tar"),
    "a text": (page, "not a readable zip or tar"),
    "empty": (lambda path: path.touch(), "not a readable zip or tar"),
    "an archive in an archive": (
        lambda path: zipped(path, {"a.zip": zipped(path, PICTURE).read_bytes()}),
        "no file *.jpg inside",
    ),
}


@pytest.mark.parametrize("case", EVIL)
def test_an_archive_that_attacks_leaves_nothing(case: str, tmp_path: Path) -> None:
    write, reason = EVIL[case]
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    write(root / "a.zip")
    before = set(tmp_path.rglob("*"))
    row = Source("captions", (Archive(("a.zip",), {"*.jpg": "images"}, 10**6),))
    with pytest.raises(InputErrors) as refused:
        prepare("d", row, root, None, lambda: False)
    assert reason in str(refused.value) and str(root / "a.zip") in str(refused.value)
    assert set(tmp_path.rglob("*")) - before == {root / WORK, root / WORK / "lock"}


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itmbench.data.unpack.MOST_MEMBERS", 5)
    archive = zipped(tmp_path / "a.zip", {f"{n}.jpg": b"" for n in range(6)})
    with pytest.raises(InputError, match="or 5 files when unpacked"):
        unpack(archive, {"*.jpg": "images"}, tmp_path, 10**6)


# Verify -------------------------------------------------------------------------------------------------------------


def test_verify_writes_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_karpathy(tmp_path / "root", karpathy_entries())
    command = ["data", "verify", "flickr30k", "--root", str(root), "--json", str(tmp_path / "found.json")]

    def found() -> dict[str, Any]:
        content: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
        return content

    assert main(command) == 0
    assert found()["problems"] == [] and (found()["images"], found()["decoded"]) == (6, False)
    assert found()["counts"][0] == {"what": "images", "found": 6, "published": None}
    for row in (2, 4):
        (root / "images" / f"{row}.jpg").write_bytes(b"no picture at all")
    assert main(command) == 0 and "--deep decodes them" in capsys.readouterr().out
    assert main([*command, "--deep"]) == 2
    assert [problem["file"] for problem in found()["problems"]] == ["2.jpg", "4.jpg"]
    assert "2 of 6 images cannot be read" in capsys.readouterr().err
    for row in (2, 4):
        (root / "images" / f"{row}.jpg").unlink()
    assert main(command) == 2
    assert found()["problems"] == [{"file": f"{row}.jpg", "problem": "missing"} for row in (2, 4)]
    assert "4.jpg: missing" in capsys.readouterr().out
    (tmp_path / "link").symlink_to(root / "images")
    for name in ("dataset_small.json", "images/0.jpg", "../link/0.jpg"):
        before = (root / name).read_bytes()
        assert main([*command[:-1], str(root / name)]) == 2
        assert "is read here, so it was not replaced" in capsys.readouterr().err
        assert (root / name).read_bytes() == before
    (root / "dataset_small.json").write_text("{")
    assert main(command) == 2
    assert [problem["file"] for problem in found()["problems"]] == [None]


def test_missing_images_of_nuswide_are_listed_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_nuswide(tmp_path / "root")
    command = ["data", "verify", "nuswide", "--root", str(root), *SPLIT["nuswide"]]
    (root / "Flickr" / "zebra" / "0001_333.jpg").unlink()
    assert main(command) == 2
    assert "or leave their rows out with missing_images: drop" in capsys.readouterr().err
    listed = tmp_path / "found.json"
    assert main([*command, "--missing_images=drop", "--json", str(listed), "--deep"]) == 0
    out = capsys.readouterr().out
    assert "left out, its image is missing: zebra/0001_333.jpg" in out and "all 3 images can be read" in out
    found = json.loads(listed.read_text())
    assert found["dropped"] == ["zebra/0001_333.jpg"] and found["problems"] == []


def test_the_table_is_of_registered_readers_and_sound_checksums() -> None:
    from itmbench.runner import registry

    lengths = {"md5": 32, "sha256": 64}
    for row in sources.SOURCES.values():
        registry.find("datasets", row.reader)
        for archive in row.archives:
            algorithm, _, digest = (archive.checksum or "md5:" + "0" * 32).partition(":")
            assert len(bytes.fromhex(digest)) * 2 == lengths[algorithm]
            assert archive.urls or archive.request
            assert all(url.startswith(("https://", "http://images.cocodataset.org/", "hf://")) for url in archive.urls)
            assert archive.limit > (archive.size or 0)


def test_a_complete_dataset_on_a_read_only_disk_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine("flickr8k", tmp_path / "made", tmp_path / "archives")
    command = ["data", "prepare", "flickr8k", "--root", str(tmp_path / "root"), "--from", str(tmp_path / "archives")]
    assert main(command) == 0
    before = tree(tmp_path / "root")
    monkeypatch.setattr(os, "access", lambda *_: False)
    (tmp_path / "root" / WORK / "lock").unlink()
    assert main(command) == 0 and set(before) - set(tree(tmp_path / "root")) == {f"{WORK}/lock"}
