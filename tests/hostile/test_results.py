"""Results that are damaged, misshapen or hostile: refused in one line by whatever reads them, and never obeyed."""

import copy
import html
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from refusal import refusal
from results_store import write_store

from itmbench import store
from itmbench.cli.main import main
from itmbench.errors import InputError
from itmbench.report.cells import read_queries
from itmbench.report.tables import load, tables

CELL = "mini/flickr30k-mini/dual_infonce/seed0"
Damage = Callable[[Path], Any]


@pytest.fixture
def own(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "results"))


def changed(**fields: Any) -> Damage:
    """Change fields of one result, or keys of a mapping in it."""

    def damage(cell: Path) -> None:
        content = json.loads((cell / store.RESULT).read_text())
        for name, value in fields.items():
            content[name] = content[name] | value if isinstance(content.get(name), dict) and value else value
        (cell / store.RESULT).write_text(json.dumps(content))

    return damage


def dropped(metric: str) -> Damage:
    """Remove a metric of one result."""

    def damage(cell: Path) -> None:
        content = json.loads((cell / store.RESULT).read_text())
        del content["metrics"][metric]
        (cell / store.RESULT).write_text(json.dumps(content))

    return damage


def written(name: str, content: bytes) -> Damage:
    return lambda cell: (cell / name).write_bytes(content)


@pytest.mark.parametrize("command", ["report --format=csv", "results list", f"results show {CELL}"])
def test_results(command: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(method="a\x1b]0;b\x07")(own / CELL)
    line = refusal([*command.split(), f"--results={own}"], capsys, own)
    assert f"DIR/{CELL}/result.json: " in line and "control characters" in line


def fields(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a value of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*above, key)
        yield from fields(part, (*above, key))


WRONG = [None, "", "x", "x" * 3000, [], [1], {}, {"a": {"a": [1]}}, True, False, 0.5, -2, 10**17, 10**400]
WRONG += [float("nan"), float("inf"), 1e308, "missing"]
NUMBERS = {"metrics", "validation", "parameters", "flops", "throughput", "peak_memory", "seconds", "epochs", "steps"}
NUMBERS |= {"seed", "trials", "budget", "data"}
"""Fields of numbers that tables and pages show."""


def damaged(content: dict[str, Any], way: tuple[Any, ...], wrong: Any) -> dict[str, Any]:
    """A result in which one value is wrong, or missing."""
    content = copy.deepcopy(content)
    part: Any = content
    for key in way[:-1]:
        part = part[key]
    if wrong == "missing":
        del part[way[-1]]
    else:
        part[way[-1]] = wrong
    return content


def refused(results: Path) -> str:
    """Why results are not loaded; empty if they are."""
    try:
        store.load_results(results)
    except InputError as error:
        return str(error)
    return ""


def test_every_field_of_a_result_is_refused_or_shown(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own / "mini" / "mirflickr-mini")
    file = own / CELL / store.RESULT
    content = json.loads(file.read_text()) | {"choices": {"graph": 0.5}}
    content["audit"] = {"blind": {"passed": True, "found": 0.0, "bound": 1.0}}
    content["budget"] |= {"limit_train_batches": 1.0, "patience": 3}
    taken = []
    for way in fields(content):
        for wrong in WRONG:
            file.write_text(json.dumps(damaged(content, way, wrong)))
            if said := refused(own):
                assert said.startswith(f"{file}: ") and said.isprintable(), (way, wrong)
            else:
                taken.append((way, wrong))
    for way, wrong in taken:
        number = isinstance(wrong, float | int) and not isinstance(wrong, bool) and 0 <= wrong <= 1e308
        named = way[-1] in ("name", "what", "fingerprint") and isinstance(wrong, str)
        assert way[0] not in NUMBERS or wrong in ({}, [], "missing", None) or number or named, (way, wrong)
    for way, wrong in random.Random(0).sample(taken, 8):
        file.write_text(json.dumps(damaged(content, way, wrong)))
        for command in ("report --format=json", "report", "compare", "results list", f"results show {CELL}"):
            assert main([*command.split(), f"--results={own}"]) == 0, (way, wrong, capsys.readouterr().err)


def rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    """Change the outcomes of single queries of one cell."""
    return lambda cell: change(pd.read_parquet(cell / store.PER_QUERY)).to_parquet(cell / store.PER_QUERY)


QUERIES: dict[str, Damage] = {
    "without direction": rows(lambda frame: frame.drop(columns="direction")),
    "without query": rows(lambda frame: frame.drop(columns="query")),
    "without image": rows(lambda frame: frame.drop(columns="image")),
    "of no rows": rows(lambda frame: frame[:0]),
    "ranks that are texts": rows(lambda frame: frame.assign(rank="first")),
    "cut short": lambda cell: os.truncate(cell / store.PER_QUERY, 100),
    "of bytes": written(store.PER_QUERY, b"PAR1" * 9),
    "empty": written(store.PER_QUERY, b""),
}


@pytest.mark.parametrize("case", QUERIES)
def test_outcomes_of_queries(case: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for other in (own / "mini" / "mirflickr-mini", *(own / CELL).parent.parent.glob("*/seed[12]")):
        shutil.rmtree(other)
    QUERIES[case](own / CELL)
    assert "No marks: DIR/" in refusal(["compare", f"--results={own}"], capsys, own)
    for command in (["report"], ["report", "--format=html"]):
        assert main([*command, f"--results={own}"]) == 0
        said = html.unescape(capsys.readouterr().out)
        assert "o marks: " in said and f"{CELL}/per_query.parquet: " in said


COLUMNS: tuple[Any, ...] = (
    None,
    "x",
    b"x",
    [1],
    {"a": 1},
    True,
    -1,
    0.5,
    2.5,
    float("nan"),
    float("inf"),
    pd.Timestamp(0),
    pd.NA,
)
"""What every value of a column is in place of what it was."""


@pytest.mark.parametrize("name", ["direction", "query", "image", "group", "rank"])
def test_every_column_of_outcomes_of_queries(name: str, own: Path) -> None:
    path = own / CELL / store.PER_QUERY
    frame = pd.read_parquet(path).assign(group=0).reset_index(drop=True)
    for wrong in COLUMNS:
        column = pd.Series([wrong] * len(frame), dtype="Int64" if wrong is pd.NA else None)
        frame.assign(**{name: column}).to_parquet(path)
        if isinstance(wrong, str | int) and not isinstance(wrong, bool) and name not in ("direction", "rank"):
            continue  # names
        if wrong is pd.NA or (name, wrong) != ("rank", 2.5):  # said by `compare`
            with pytest.raises(InputError, match=f"{CELL}/per_query.parquet: .*; run that cell again"):
                read_queries(own / CELL)


def test_outcomes_of_queries_with_flipped_bits(own: Path) -> None:
    path, random_ = own / CELL / store.PER_QUERY, random.Random(0)
    whole = path.read_bytes()
    for _ in range(60):
        spoiled = bytearray(whole)
        for _ in range(3):
            spoiled[random_.randrange(len(whole))] ^= 1 << random_.randrange(8)
        path.write_bytes(spoiled)
        with suppress(InputError):
            read_queries(own / CELL)


ALTERED: dict[str, Damage] = {
    "outcomes of another cell": lambda cell: shutil.copy(
        cell.parents[1] / "dual_triplet" / "seed0" / store.PER_QUERY, cell / store.PER_QUERY
    ),
    "metrics that agree with each other": changed(
        metrics={f"{side}/R@{k}": 1.0 for side in ("i2t", "t2i") for k in (1, 5, 10)} | {"rSum": 600.0}
    ),
    "near twins": changed(metrics={"hard_negative_accuracy": 0.99}),
    "near twins that are missing": dropped("hard_negative_accuracy"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_metrics_that_are_not_those_of_the_queries(case: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own / "mini" / "mirflickr-mini")
    ALTERED[case](own / CELL)
    assert f"No marks: DIR/{CELL}: " in refusal(["compare", f"--results={own}"], capsys, own)
    assert main(["report", f"--results={own}"]) == 0
    assert "by the outcomes of its queries; run that cell again" in capsys.readouterr().out.replace("\n", " ")


def test_a_metric_that_one_seed_lacks_is_not_averaged_over_the_others(own: Path) -> None:
    dropped("truth/rSum")(own / CELL)
    [table, _] = tables(load(own))
    column = table.cells["rSum (complete truth)"]
    assert column["dual_infonce"] == "–" and column["dual_triplet"] != "–"


def test_an_unreadable_folder_hides_no_results(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("dual_infonce"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    status = main(["report", "--format=csv", f"--results={own}"])
    assert status == 2 and "dual_infonce: cannot be read (Permission denied)" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["rm", "show"])
def test_a_cell_that_cannot_be(action: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in ("x" * 5000, f"{CELL}/../../nothing", "../..", "/", f"{CELL}/result.json"):
        refusal(["results", action, cell, f"--results={own}"], capsys, own)


PLACES: dict[str, Damage] = {
    "a file": Path.touch,
    "below a file": lambda path: path.parent.touch(),
    "a loop of links": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("command", ["report", "compare", "results list", "results merge SELF", "results merge OTHER"])
@pytest.mark.parametrize("case", PLACES)
def test_folders_that_are_none(
    case: str, command: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "below" / "results"
    if case != "below a file":
        place.parent.mkdir()
    PLACES[case](place)
    words = [{"SELF": str(place), "OTHER": str(results)}.get(word, word) for word in command.split()]
    assert "DIR/below" in refusal([*words, f"--results={place}"], capsys, tmp_path)


def test_merges_where_cells_run(own: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / store.RUNNING).touch()
    assert "DIR: cannot be a results folder" in refusal(
        ["results", "merge", str(results), f"--results={own}"], capsys, own
    )


def elsewhere(own: Path, name: str) -> None:
    """Move a folder of the results away, and leave a link to it."""
    target = own.parent / "elsewhere" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    (own / name).rename(target)
    (own / name).symlink_to(target)


@pytest.mark.parametrize("name", [CELL, "mini/flickr30k-mini", "mini"])
def test_cells_behind_a_link_are_shown(name: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "list", f"--results={own}"]) == 0
    before = capsys.readouterr().out
    elsewhere(own, name)
    (own / "zz-again").symlink_to(own / "mini")
    (own / "up").symlink_to("..")
    for command in (["list"], ["show", CELL], ["list"]):
        assert main(["results", *command, f"--results={own}"]) == 0
    assert capsys.readouterr().out.count(before) == 2


def test_a_link_is_removed_or_replaced_but_not_its_folder(own: Path) -> None:
    elsewhere(own, CELL)
    target = own.parent / "elsewhere" / CELL
    for round_ in range(2):
        (own / ".running" / "new").mkdir(parents=True)
        store.commit(own / ".running" / "new", own / CELL)
        assert target.is_dir() and not (own / CELL).is_symlink() and not [*(own / ".running").iterdir()], round_
        (own / CELL).rmdir()
        (own / CELL).symlink_to(target)
    assert main(["results", "rm", CELL, f"--results={own}"]) == 0
    assert (target / store.RESULT).exists() and not (own / CELL).is_symlink()
    elsewhere(own, "mini/mirflickr-mini")
    other = CELL.replace("flickr30k", "mirflickr").replace("seed0", "seed1")
    assert main(["results", "rm", other, f"--results={own}"]) == 2 and (own / other / store.RESULT).exists()


def test_a_link_out_of_another_store_is_not_copied(own: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own, tmp_path / "other"))
    shutil.rmtree(own / CELL)
    elsewhere(other, CELL)
    [wrong] = store.merge(own, other).refused.values()
    assert wrong.startswith("seed0 is a link to nothing, or to a file outside") and not (own / CELL).exists()


NAMES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "$x^$",
    "=cmd|' /C calc'!A0",
    "@sum",
    "%s{}\\",
    "[bold]|x",
    "javascript:alert(1)",
    "\\input{/etc/passwd}",
    "é" * 40,
    "../../up",
    "'; drop table results; --",
]


def test_names_are_only_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = write_store(tmp_path / "javascript:alert(1)")
    for name, cell in zip(NAMES, sorted(top.glob("mini/*/*/*")), strict=True):
        changed(method=name, dataset=name, data={"name": name})(cell)
    shown = {}
    for kind in ("table", "csv", "markdown", "latex", "html"):
        assert main(["report", f"--format={kind}", f"--results={top}", f"--out={tmp_path / kind}"]) == 0
        shown[kind] = (tmp_path / kind).read_text()
    capsys.readouterr()
    assert main(["results", "list", f"--results={top}"]) == 0
    listed = capsys.readouterr().out
    notebook = "".join(table._repr_html_() for table in tables(load(top)))
    for name in NAMES:
        assert name in listed and name in shown["table"] and name in html.unescape(shown["html"])
        assert name in html.unescape(notebook)
    assert shown["html"].count("<script") == 1 and 'href="javascript:' not in shown["html"]
    for text in (shown["html"], shown["markdown"], notebook):
        assert "<script>alert" not in text and "<img src=x" not in text
    assert r"\input" not in shown["latex"]
    cells = pd.read_csv(tmp_path / "csv", dtype=str)
    values = [*cells, *cells.to_numpy().ravel()]
    assert not [value for value in values if str(value).startswith(("=", "+", "-", "@"))]
