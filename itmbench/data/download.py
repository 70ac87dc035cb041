"""Files over HTTP: resumed, retried, from mirrors, and checked."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from huggingface_hub import get_token, hf_hub_url
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from itmbench.errors import InputError
from itmbench.files import naming, write_atomically
from itmbench.logs import Progress
from itmbench.units import size as as_size

log = logging.getLogger(__name__)

TRIES = 5
"""Failures without a new byte in between after which a mirror is given up."""
LONGEST_WAIT = 120
"""Seconds to wait between two tries, whatever a server asks for."""
TIMEOUT = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""
BUSY = (429, 500, 502, 503, 504)
CHUNK = 1 << 16
"""Bytes that are written at once, and of which a broken connection loses a part."""


class _Refused(Exception):
    """What a server sends is not the file; the next mirror may have it."""


class _Broken(Exception):
    """A transfer ended early; what was received is kept."""


def download(
    urls: Sequence[str], target: Path, size: int | None = None, checksum: str | None = None, backoff: float = 1.0
) -> None:
    """Download a file; what an interrupted call has left in ``<target>.part`` is not downloaded again.

    Args:
        urls: mirrors, tried in this order; ``hf://OWNER/NAME/FILE`` is a file of a Hugging Face dataset.
        target: the file, which appears once it is whole.
        size: its length in bytes, if known.
        checksum: "sha256:" or "md5:" and its digest, if known.
        backoff: seconds to wait after the first failure, doubled after every further one.

    Raises:
        InputError: no mirror has the file (says why of each), or there is too little room for it.
        OSError: the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    reasons = []
    for url in urls:
        try:
            _fetch(url, part, size, checksum, backoff)
        except (_Refused, requests.RequestException) as error:
            reason = error if isinstance(error, _Refused) else f"no answer ({type(error).__name__})"
            reasons.append(f"{urlsplit(_address(url)[0]).netloc}: {reason}")
            log.info(f"{target.name}: {reasons[-1]}")
        else:
            os.replace(part, target)
            _state_file(part).unlink(missing_ok=True)
            return
    raise InputError("; ".join(reasons))


def _fetch(url: str, part: Path, size: int | None, checksum: str | None, backoff: float) -> None:
    """Download from one mirror until the file is whole, and check it."""
    retry = Retry(
        TRIES,
        backoff_factor=backoff,
        backoff_max=LONGEST_WAIT,
        retry_after_max=LONGEST_WAIT,
        status_forcelist=BUSY,
        raise_on_status=False,
    )
    failures, whole = 0, False
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        while not whole:
            before = _length(part)
            try:
                _receive(session, url, part, size, checksum is not None)
                whole = True
            except _Broken as error:
                failures = 0 if _length(part) > before else failures + 1
                if failures == TRIES:
                    raise _Refused(f"{error}, {TRIES} times") from None
                time.sleep(min(backoff * 2**failures, LONGEST_WAIT))
    if checksum:
        log.info(f"{part.stem}: checking {as_size(_length(part))}")
        algorithm, _, expected = checksum.partition(":")
        with part.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != expected:
            part.unlink()
            raise _Refused(f"the {algorithm} checksum is {found}, not {expected}")


def _receive(session: requests.Session, url: str, part: Path, size: int | None, checked: bool) -> None:
    """Append the rest of a file to what there is, or start anew where the server cannot continue that very file.

    Raises:
        _Broken: only a part has come.
        _Refused: the server has no such file, or one of another length.
        requests.RequestException: there is no answer.
    """
    address, headers = _address(url)
    known = _read_state(part)
    offset = _length(part) if known.get("url") == url and (known.get("version") or checked) else 0
    if offset:
        headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": version} if (version := known.get("version")) else {})
    with session.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        code, version = response.status_code, _version(response)
        resumed = code == HTTPStatus.PARTIAL_CONTENT
        sent, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == str(offset):
            return  # nothing is left to send
        if offset and (
            code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            or (resumed and (sent.partition("-")[0] != str(offset) or version != known.get("version")))
        ):
            part.unlink()
            raise _Broken("the file on the server changes")
        if code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise _Refused(f"HTTP {code} {response.reason}")
        length = total if resumed else response.headers.get("Content-Length", "")
        whole = int(length) if length.isdecimal() else size
        if size is not None and whole != size:
            raise _Refused(f"{whole:,} bytes instead of {size:,}")
        left, free = (whole or 0) - (_length(part) if resumed else 0), shutil.disk_usage(part.parent).free
        if left > free:
            raise InputError(f"{as_size(left)} to download, but {as_size(free)} free in {part.parent}; make room")
        if not resumed:  # in this order, so that no state ever describes bytes of another version
            part.write_bytes(b"")
            write_atomically(_state_file(part), json.dumps({"url": url, "version": version}))
        progress = Progress(log, part.stem, whole, as_size, done=_length(part))
        try:
            with naming(part), part.open("ab") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    progress.advance(len(chunk))
        except requests.RequestException as error:
            raise _Broken(f"the connection breaks off ({type(error).__name__})") from None
    if whole is not None and _length(part) < whole:
        raise _Broken("the connection ends early")
    if whole is not None and _length(part) > whole:
        part.unlink()
        raise _Refused(f"more than {whole:,} bytes")


def _version(response: requests.Response) -> str | None:
    """What identifies the version of a file for the header If-Range: a strong ETag, else the time of its change."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _address(url: str) -> tuple[str, dict[str, str]]:
    """Where a URL leads, and the headers to send there."""
    headers = {"Accept-Encoding": "identity"}
    if not url.startswith("hf://"):
        return url, headers
    owner, name, file = url.removeprefix("hf://").split("/", 2)
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    return hf_hub_url(f"{owner}/{name}", file, repo_type="dataset"), headers


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _state_file(part: Path) -> Path:
    """The file beside a partial download that says of which version of which URL it is."""
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict[str, str | None]:
    try:
        state = json.loads(_state_file(part).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
