"""Which messages reach the screen, and which a file."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from itmbench import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    logs.configure()


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (0, ["own info", "own warning", "other warning"]),
        (-1, ["own warning", "other warning"]),
        (1, ["own debug", "own info", "own warning", "other info", "other warning"]),
    ],
)
def test_the_screen_shows_what_was_asked_for_and_the_file_all_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbosity: int, shown: list[str]
) -> None:
    other = logging.getLogger("other")
    other.setLevel(logging.INFO)
    logs.configure(verbosity)
    with logs.to_file(tmp_path / "log.txt"):
        for name in ("own", "other"):
            logger = logging.getLogger("itmbench.runner.run" if name == "own" else "other")
            logger.debug("%s debug", name)
            logger.info("%s info", name)
            logger.warning("%s warning", name)
    assert capsys.readouterr().err.splitlines() == shown
    written = (tmp_path / "log.txt").read_text()
    assert "  own info\n" in written and "  own warning\n" in written


def test_progress_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("itmbench.test")
    with caplog.at_level(logging.INFO):
        rare = logs.Progress(logger, "rare", 4, every=60)
        often = logs.Progress(logger, "often", 4, done=1, every=0)
        open_end = logs.Progress(logger, "open", None, "{} bytes".format, every=0)
        for _ in range(2):
            rare.advance()
        often.advance(2)
        open_end.advance(7)
    assert caplog.messages == ["often: 3 of 4 (75%), about 0.0 s left", "open: 7 bytes"]
