"""Explanations of ``itmbench explain`` as rows of a sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itmbench.report.sheet import Cell, Row

WHOLE = 0.1
"""Share of the whole image in what a word finds, from which it is named: it has no place to show."""


def explanation_rows(content: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of what ``itmbench explain`` writes as JSON under "pairs" or "items"."""
    return [row for each in content for row in (_pair(each) if "paths" in each else _item(each))]


def _pair(pair: Mapping[str, Any]) -> list[Row]:
    """SEDRA: the photograph, then for each word that counts more than the mean the regions that it finds."""
    file = _path(pair["file"]) if pair["grid"] else None
    words = [word for word in pair["words"] if word["share"] >= 1 / len(pair["words"])]
    cells = [Cell(_word(word), f"{word['share']:.2f}", file, word["regions"]) for word in words]
    logits = " + ".join(f"{name} {logit:.1f}" for name, logit in pair["paths"].items())
    note = f"{pair['image']}: score {pair['score']:.1f} = {logits}. In colour: the regions that a word finds. "
    note += "Words are shown with their share of the local path, if it is at least the mean."
    return [Row(pair["text"] or pair["text_id"], [*_photograph(file, "the photograph"), *cells], note)]


def _word(word: Mapping[str, Any]) -> str:
    return word["word"] + (f" ({word['whole']:.0%} whole image)" if word["whole"] >= WHOLE else "")


def _item(item: Mapping[str, Any]) -> list[Row]:
    """MCR-DGN: what the item attaches to; then, for each label, where it looks and what its node attaches to."""
    file, kind = _path(item["file"]), "words" if item["modality"] == "text" else "regions"
    title = item["text"] if item["text"] and item["modality"] == "text" else item["id"]
    cells = [*_photograph(file, item["text"] or ""), *_seen(item["sees"])]
    rows = [Row(title, cells, "What the whole attaches to in the bank, with the share of each in what it hears.")]
    for label in item["labels"]:
        heading = f"{label['label']}: {label['predicted']:.2f} by the encoder, {label['heard']:.2f} by the graph"
        looks = _photograph(file, "where the label looks", label.get("regions", ())) if item["grid"] else []
        parts = ", ".join(f"{part['part']} {part['weight']:.2f}" for part in label["parts"])
        rows.append(Row(heading, [*looks, *_seen(label["sees"])], "" if looks else f"{kind}: {parts or 'none'}"))
    return rows


def _photograph(file: Path | None, line: str, regions: Sequence[float] = ()) -> list[Cell]:
    return [] if file is None else [Cell(line, "", file, regions)]


def _seen(seen: Sequence[Mapping[str, Any]]) -> list[Cell]:
    return [Cell(each["text"] or each["id"], f"{each['weight']:.3f}", _path(each["file"])) for each in seen]


def _path(file: str | None) -> Path | None:
    return None if file is None else Path(file)
