"""Versions of the libraries that can change a number."""

import platform
from importlib.metadata import version

import itmbench

PACKAGES = (
    "jsonargparse",
    "lightning",
    "numpy",
    "pillow",
    "timm",
    "tokenizers",
    "torch",
    "torch-geometric",
    "torchmetrics",
    "torchvision",
    "transformers",
)
"""Names under which they are installed."""


def versions() -> dict[str, str]:
    """Versions of itmbench, Python and ``PACKAGES``."""
    return {
        "itmbench": itmbench.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def own_package(class_path: str) -> str | None:
    """Top-level package or module of a class; None if it belongs to ``PACKAGES``, whose versions are recorded."""
    package = class_path.partition(".")[0]
    return None if package.replace("_", "-") in PACKAGES else package
