"""A hook of mkdocs: links to files outside docs/, such as sources and configs, lead to copies of them in the site."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = "files"
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)\)")
linked: set[str] = set()


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ to the copies; a link to a folder becomes plain text."""
    here = PurePosixPath("docs", page.file.src_uri).parent

    def target(match: re.Match[str]) -> str:
        text, link = match.groups()
        name = os.path.normpath(here / link)
        if link.startswith(("http", "mailto:")) or not (ROOT / name).exists():
            return match[0]
        if (ROOT / name).is_dir():
            return text
        if name.startswith("docs/"):
            return match[0]
        linked.add(name)
        return f"[{text}]({os.path.relpath(f'{FOLDER}/{name}.txt', page.url or '.')})"

    return LINK.sub(target, markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """Copy what is linked to; browsers show text files."""
    for name in linked:
        copy = Path(config["site_dir"], FOLDER, f"{name}.txt")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
