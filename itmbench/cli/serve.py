"""A search as a page on this machine alone: a form, and the sheet of what it found."""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from itmbench.errors import InputError, in_a_line

if TYPE_CHECKING:
    from itmbench.report.sheet import Row

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
LONGEST = 500
"""Most characters of a sentence."""


def server(search: "Callable[[str], Sequence[Row]]", title: str, port: int) -> ThreadingHTTPServer:
    """A server of one page, ``/?q=SENTENCE``, that listens on this machine only.

    It reads no files by name, and refuses requests that a page of another site sends here under its own name. One
    thread at a time calls ``search``. Port 0 is any free one; an InputError if another program uses the port.
    """
    from itmbench.report.sheet import sheet_html

    one = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                url = urlsplit(self.path)
            except ValueError:
                return self.send_error(400)
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (ADDRESS, "localhost"):
                return self.send_error(403)
            if url.path != "/":
                return self.send_error(404)
            sentence = parse_qs(url.query).get("q", [""])[0].strip()[:LONGEST]
            try:
                with one:
                    page = sheet_html(title, search(sentence) if sentence else [], sentence).encode()
            except Exception as error:
                logger.warning("%r: %s", sentence, in_a_line(error))
                return self.send_error(500, "The search failed", in_a_line(error))
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            logger.debug(format, *args)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            logger.debug("%s: %s", client_address, sys.exception())  # a browser that no longer waits for its page

    try:
        return Server((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"--serve {port}: {getattr(error, 'strerror', None) or error}; give another port") from None
