"""Explanations as rows of a sheet, for a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from itmbench.methods.explanations import ExplainedItem, ExplainedPair, Seen
from itmbench.report.sheet import Cell, Row

WHOLE = 0.1
"""Share of the whole image in what a word finds, from which it is named: it has no place to show."""


def explanation_rows(explained: Sequence[ExplainedPair | ExplainedItem], files: Mapping[str, Path]) -> list[Row]:
    """Rows of explanations, with the photographs by the id of the image."""
    return [
        row
        for item in explained
        for row in (_pair(item, files) if isinstance(item, ExplainedPair) else _item(item, files))
    ]


def _pair(pair: ExplainedPair, files: Mapping[str, Path]) -> list[Row]:
    """The photograph, then for each word that counts at least the mean the regions that it finds."""
    file = files.get(pair.image) if pair.grid else None
    least = (1 - 1e-6) / len(pair.words)  # equal shares of 32 bits may be just below the mean
    cells = []
    for word in (word for word in pair.words if word.share >= least):
        name = word.word + (f" ({100 * word.whole:.0f} % whole)" if word.whole >= WHOLE else "")
        cells.append(Cell(name, f"{100 * word.share:.0f} %", file, word.regions))
    digits = 3 if max(map(abs, pair.paths.values())) < 2 else 1  # cosines, or logits
    logits = " + ".join(f"{name} {logit:z.{digits}f}" for name, logit in pair.paths.items())
    note = f"{pair.image}: score {pair.score:z.{digits}f} = {logits}. In colour: what a word finds "
    note += f"(whole: the whole image). Percent: the word's share of {[*pair.paths][-1]}, if at least the mean."
    return [Row(pair.title, [*_photograph(file, "the photograph"), *cells], note)]


def _item(item: ExplainedItem, files: Mapping[str, Path]) -> list[Row]:
    """MCR-DGN: what the item attaches to; then, for each label, where it looks and what its node attaches to."""
    of_images = item.modality == "image"
    file = files.get(item.id) if of_images else None

    def seen(neighbours: Sequence[Seen]) -> list[Cell]:
        return [
            Cell(item.text or item.id, f"{item.weight:.3f}", files.get(item.id) if of_images else None)
            for item in neighbours
        ]

    cells = [*_photograph(file, item.text or ""), *seen(item.sees)]
    rows = [
        Row(item.title, cells, "What the whole attaches to in the bank, with the share of each in what it receives.")
    ]
    for label in item.labels:
        heading = f"{label.label}: {label.predicted:.2f} by the encoder, {label.received:.2f} by the graph"
        looks = _photograph(file, "where the label looks", label.regions) if item.grid else []
        rows.append(Row(heading, [*looks, *seen(label.sees)], "" if looks else item.looks_at(label)))
    return rows


def _photograph(file: Path | None, line: str, regions: Sequence[float] = ()) -> list[Cell]:
    return [] if file is None else [Cell(line, "", file, regions)]
