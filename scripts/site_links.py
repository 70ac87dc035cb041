"""A hook of mkdocs: links to files outside docs/, such as sources and configs, lead to copies of them in the site.

Lists and tables may follow a line of text, as on GitHub; Python-Markdown wants an empty line between.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = "files"
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)\)")
linked: set[str] = set()
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
GLUED = re.compile(r"^(?![-|]|\d+\. | |$)(.+)\n(?=- |\d+\. |\|)", re.MULTILINE)


def with_empty_lines(markdown: str) -> str:
    """An empty line between text and a list or table, outside fenced code."""
    fences = FENCE.findall(markdown)
    texts = [GLUED.sub(r"\1\n\n", text) for text in FENCE.split(markdown)]
    return "".join(part for pair in zip(texts, [*fences, ""], strict=True) for part in pair)


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

    return with_empty_lines(LINK.sub(target, markdown))


def on_post_build(config: Any, **_: Any) -> None:
    """Copy what is linked to; browsers show text files."""
    for name in linked:
        copy = Path(config["site_dir"], FOLDER, f"{name}.txt")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
