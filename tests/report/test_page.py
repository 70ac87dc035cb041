import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from itmbench.report.columns import find
from itmbench.report.formats import plain
from itmbench.report.page import page as html_page
from itmbench.report.tables import Table, tables


class Page(HTMLParser):
    """Attributes and text of a page; every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def write_html(shown: list[Table], path: Path) -> Path:
    path.write_text(html_page(shown, path.parent), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def path(frame: pd.DataFrame, results: Path) -> Path:
    return write_html(tables(frame), results / "mini" / "index.html")


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_it_is_well_formed_reproducible_and_needs_nothing_from_elsewhere(
    path: Path, page: Page, frame: pd.DataFrame
) -> None:
    text = path.read_text(encoding="utf-8")
    ids = [value for tag, name, value in page.attributes if name == "id" and tag != "path"]
    assert page.open == [] and len(ids) == len(set(ids))
    assert not [part for part in ("://", "@import", "fetch(", "import(") if part in text]
    assert not [(tag, name) for tag, name, _ in page.attributes if tag == "link" or name == "src"]
    assert write_html(tables(frame), path).read_text(encoding="utf-8") == text


def test_links_lead_to_the_files_of_every_cell(path: Path, page: Page, frame: pd.DataFrame) -> None:
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) == 2 * len(frame)
    assert not [link for link in files if Path(link).is_absolute()]
    assert all((path.parent / link).is_file() for link in files)
    assert {(path.parent / link).resolve().parent for link in files} == {Path(f).resolve() for f in frame["folder"]}
    anchors = {value for _, name, value in page.attributes if name == "id"}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_it_holds_every_cell_of_every_table(path: Path, page: Page, frame: pd.DataFrame) -> None:
    shown = tables(frame)
    titles = re.findall(r"<h2>[^<]*</h2>\s*<p[^>]*>([^<]*)</p>", path.read_text(encoding="utf-8"))[: len(shown)]
    bold = re.findall(r'<td class="best"[^>]*>([^<]*)', path.read_text(encoding="utf-8"))
    assert len(bold) == sum(int(table.best.to_numpy().sum()) for table in shown) > 10
    assert str(shown[0].cells.at["dual_infonce", "rSum"]).partition(" ±")[0] in bold
    assert all(table.title == f"{table.dataset}: {title}" for table, title in zip(shown, titles, strict=True))
    assert "5,990" in page.text and "6,000 ≠" in page.text  # a count that differs from the published one
    assert "1,200 ≠" not in page.text
    for text in (
        "0123456789ab",
        "A processor",
        "Ties lose",
        "Near-twin acc. is the percentage",
        "Bold: no other method is better",
    ):
        assert text in page.text


def test_a_plot_has_a_point_for_each_seed_and_follows_the_colour_of_the_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    plots = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', text, re.DOTALL)
    assert len(plots) == 4 and text.count("rSum against wall time</figcaption>") == 1
    for plot in plots:
        assert 'viewBox="' in plot and "currentColor" in plot and "#000000" not in plot and "dual_infonce" in plot
        assert len(re.findall(r"<use [^>]*fill: #", plot)) >= 4


def test_pairs_scored_a_second_are_shown_where_they_were_measured(path: Path, frame: pd.DataFrame) -> None:
    measured = frame.assign(scored_pairs_per_second=1.5e6, pair_flops=2048.0)
    text = write_html(tables(measured), path.with_name("measured.html")).read_text(encoding="utf-8")
    assert text.count('role="img"') == 6
    assert text.count("against pairs scored per second</figcaption>") == 2
    assert "1.5 M</td>" in text and "2.05 k</td>" in text
    assert "pairs scored" not in path.read_text(encoding="utf-8")


def test_curves_are_shown_where_labels_were_measured_at_several_k(path: Path, frame: pd.DataFrame) -> None:
    more = frame.assign(**{"i2t/P@5": 0.4, "i2t/P@r0.0": 0.9, "i2t/P@r0.1": 0.8})
    text = write_html(tables(more), path.with_name("curves.html")).read_text(encoding="utf-8")
    assert text.count('role="img"') == 6 and text.count("Precision and recall curves") == 1
    assert '<th scope="row">i2t P at recall 0.1</th>' in text  # more metrics are rows, methods columns
    assert "Precision and recall curves" not in path.read_text(encoding="utf-8")


def test_values_that_differ_between_runs_are_all_listed(
    frame: pd.DataFrame, more: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    other = more(method="other<b>", versions={"itmbench": "0.2.0"}, git={"commit": "f" * 40, "dirty": True})
    page = Page(write_html(tables(pd.concat([frame, other])), tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "0.1.0 · 0.2.0" in page.text
    assert "ffffffffffff with changes" in page.text
    assert "other<b>" in page.text  # as text, not as a tag
    assert "b" not in {tag for tag, *_ in page.attributes}


def test_page_terminal_and_csv_agree_to_the_last_digit(path: Path, frame: pd.DataFrame) -> None:
    text, shown = path.read_text(encoding="utf-8"), tables(frame)
    printed, csv = plain(shown, 10_000), pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    for table in shown:
        columns = find(map(str, table.rows))
        rows = csv[csv["dataset"] == table.dataset].groupby("method")
        for heading in table.main_columns:
            for method in table.cells.index:
                shown_text = str(table.cells.at[method, heading])
                assert shown_text in printed
                if heading in columns:
                    value = float(rows[columns[heading][0]].mean()[method])
                    assert f'data-value="{value}">{shown_text.partition(" ±")[0]}' in text, (heading, method)


def test_every_method_keeps_its_marker_and_every_run_shows_its_checks_environment_and_config(
    frame: pd.DataFrame, more: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    finding = {"passed": True, "found": 0.00025, "bound": 1e-3}
    page = Page(write_html(tables(more(method="one", seed=7, audit={"subset": finding})), tmp_path / "p").read_text())
    assert "one, seed 7" in page.text and "seed_everything: 7" in page.text and "A processor" in page.text
    assert "0.00025" in page.text and "scores depend on which other test items exist" in page.text
    shapes = re.findall(r'<svg class="mark".*?</svg>', write_html(tables(frame), tmp_path / "q").read_text())
    assert len(set(shapes)) == 2 and len(shapes) > 20


def test_it_begins_with_the_best_method_of_every_table(frame: pd.DataFrame, tmp_path: Path) -> None:
    shown = tables(frame)
    text = write_html(shown, tmp_path / "p").read_text()
    head = re.findall(r"<li><a href=\"#table(\d)\">([^<]*)</a>(.*?)</li>", text[: text.index("<main>")], re.DOTALL)
    assert [(number, name) for number, name, _ in head] == [("1", "flickr30k-mini"), ("2", "mirflickr-mini")]
    for (_, _, lead), table in zip(head, shown, strict=True):
        value = str(table.cells.at["dual_infonce", table.objective])
        assert "dual_infonce</span>" in lead and f"<span>{table.objective} {value}</span>" in lead
        [verdict] = table.differences[table.differences["metric"] == table.objective]["verdict"]
        assert verdict == "better" and "Better than every other method" in lead
    twice = write_html([shown[0], shown[0]], tmp_path / "q").read_text()
    assert "<h2>flickr30k-mini, table 2</h2>" in twice


def test_of_methods_that_are_alike_none_is_called_the_best(frame: pd.DataFrame) -> None:
    best = frame[frame["method"] == "dual_infonce"]
    text = html_page(tables(pd.concat([frame, best.assign(method="twin")], ignore_index=True)), Path())
    assert text.count("Level with twin; better than dual_triplet, at 5 %.") == 2
    assert "Level with" not in html_page(tables(frame), Path())
