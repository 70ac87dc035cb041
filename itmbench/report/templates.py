"""The templates of pages, in ``web/``."""

from collections.abc import Callable
from typing import Any

import jinja2


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A template by its file name, with filters of its own; whatever it is given is escaped and must be complete."""
    jinja = jinja2.Environment(
        loader=jinja2.PackageLoader("itmbench.report", "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    jinja.filters |= filters
    return jinja.get_template(name)
