"""The packages that results stand on: their versions are recorded, and their code is in no key."""

from importlib.metadata import version

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
"""By the names that they are installed by."""


def versions() -> dict[str, str]:
    """The version of each that is installed."""
    return {package: version(package) for package in PACKAGES}


def own_package(class_path: str) -> str | None:
    """The package or module of a class, as it is imported; None if it is one of these."""
    package = class_path.partition(".")[0]
    return None if package.replace("_", "-") in PACKAGES else package
