"""The pages of the datasets say what the code says: archives, sizes, places to ask, published counts, names."""

import re
from pathlib import Path

import pytest

from itmbench.data.datasets import captions, dcmh, mirflickr, nuswide
from itmbench.data.sources import SOURCES
from itmbench.data.splits import label_split
from itmbench.runner import registry

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / "datasets" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", SOURCES)
def test_archives_are_those_of_the_code(name: str) -> None:
    text = page(name)
    for archive in SOURCES[name].archives:
        assert archive.names[0] in text
        for address in re.findall(r"https://\S+", archive.request):
            assert address.rstrip(",") in text
        if archive.size:
            assert f"{archive.size / 1e9:.1f} GB" in text
        for folder in archive.files.values():
            assert folder.partition("/{")[0] in text
    assert f"itmbench data prepare {name} " in text


@pytest.mark.parametrize("name", captions.PUBLISHED)
def test_counts_of_captions_are_those_of_the_code(name: str) -> None:
    for count in captions.PUBLISHED[name]:
        if name != "flickr8k" or count < 8_000:  # whose page leaves the sums out
            assert re.search(rf"\b{count:,}\b", page(name)), count


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mirflickr25k", [*mirflickr.PUBLISHED.values(), mirflickr.PUBLISHED_LABELS["potential"]]),
        ("dcmh", dcmh.PUBLISHED.values()),
        ("nuswide", [*nuswide.PUBLISHED.values(), *nuswide.PUBLISHED_KEPT.values()]),
        ("nuswide", [size for _, *sizes in nuswide.VARIANTS.values() for size in sizes]),
    ],
)
def test_counts_of_labelled_datasets_are_those_of_the_code(name: str, counts: list[int]) -> None:
    for count in counts:
        assert re.search(rf"\b{count:,}\b|\b{count}\b", page(name)), count


def test_the_split_of_mirflickr_is_that_of_the_code() -> None:
    train, stages = label_split(20_015, 2_000, 10_000)
    numbers = [len(stages["test"].queries), len(stages["test"].gallery), len(stages["val"].queries), len(train)]
    assert all(f"{number:,}" in page("mirflickr25k") for number in numbers)


def test_the_overview_names_every_dataset_and_page() -> None:
    overview = (DOCS / "data.md").read_text()
    for name in [*(entry.name for entry in registry.entries("datasets")), *SOURCES]:
        assert f"`{name}`" in overview, name
    for path in (DOCS / "datasets").glob("*.md"):
        assert f"(datasets/{path.name})" in overview
