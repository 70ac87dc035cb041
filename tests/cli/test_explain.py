"""`itmbench explain` as its users meet it: train, ask what items look at, read one number; errors of one line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from layouts import karpathy_entries, write_karpathy
from PIL import Image
from toy import ToyData, printed_metrics, toy_arguments

import itmbench
from itmbench.cli.main import main


def options(folder: Path, method: str = "MCRDGN", *more: str) -> list[str]:
    labels = ["--data.labels=true", "--data.copies=2", "--model.dim=16"]
    return toy_arguments(folder, *labels, "--trainer.max_epochs=2", "--trainer.logger=false", *more, model=method)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with ``best.ckpt`` of a small model, and the options that it was trained with."""
    folder = tmp_path_factory.mktemp("explain")
    command = options(folder, "MCRDGN", "--model.lr=0.003", "--model.k=4")
    assert main(["fit", *command, f"--best.dirpath={folder}"]) == 0
    return folder, [*command, f"--ckpt_path={folder / 'best.ckpt'}"]


def explained(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[str, dict[str, Any]]:
    """What is printed and what is written."""
    capsys.readouterr()
    assert main(["explain", *command, f"--out={folder / 'explained.json'}", *more]) == 0
    return capsys.readouterr().out, json.loads((folder / "explained.json").read_text())


def test_items_are_explained_and_the_gap_is_one_number(
    trained: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, command = trained
    monkeypatch.chdir(tmp_path)
    said, found = explained(command, tmp_path, capsys, "--items=50.png,t99,t3", "--top=2", "--draws=2")
    assert [path.name for path in tmp_path.iterdir()] == ["explained.json"]
    *lines, written = said.splitlines()
    assert written == f"Written: {tmp_path / 'explained.json'}"
    assert lines[0] == "toy, test: what items attach to among 32 training pairs"
    assert lines[1].startswith("this checkpoint is tested without its graph") != found["graph_at_test"]
    assert [(item["modality"], item["id"]) for item in found["items"]] == [
        ("image", "50.png"),
        ("text", "t99"),
        ("text", "t3"),
    ]
    corpus = ToyData(str(folder / "toy"), labels=True, copies=2).corpus
    text_of = dict(zip(corpus.text_ids, corpus.texts.strings, strict=True))  # type: ignore[union-attr]
    training = {"image": {corpus.image_ids[row] for row in corpus.train}}
    training["text"] = {corpus.text_ids[row] for row in corpus.texts_of(corpus.train)}
    assert found["items"][1]["text"] == text_of["t99"]
    assert all(0 < len(item["sees"]) <= 2 for item in found["items"])
    for item in found["items"]:
        for each in [*item["sees"], *(each for label in item["labels"] for each in label["sees"])]:
            assert each["id"] in training[item["modality"]] and 0 < each["weight"] <= 1
            own = each["id"] if item["modality"] == "text" else f"t{2 * int(each['id'].removesuffix('.png'))}"
            assert each["text"] in {text_of[own], text_of[f"t{int(own[1:]) + 1}"]}
            assert any(line.split()[:2] == [f"{each['weight']:.3f}", each["id"]] for line in lines)
        assert len(item["labels"]) == 3 and {each["label"] for each in item["labels"]} <= {*corpus.label_names}
        for label in item["labels"]:
            assert 0 < len(label["parts"]) <= 2 and 0 <= label["received"] <= 1
            if item["modality"] == "text":
                words = {word.strip(",.") for word in item["text"].split()}
                assert {part["part"] for part in label["parts"]} <= words
            else:
                places = [
                    (f"row {at // 2 + 1} column {at % 2 + 1}", weight)
                    for at, weight in map(dict.values, label["parts"])
                ]
                assert f"    regions: {', '.join(f'{name} {weight:.2f}' for name, weight in places)}" in lines
    gap = next(line.split() for line in lines if line.startswith("deletion gap"))
    assert gap[2:4] == [f"{found['deletion']['gap']:+.4f}", "mAP"]
    table = {line[:17].strip(): line[17:].split() for line in lines[-3:]}
    assert table["edges removed"] == ["0%", "25%", "50%", "75%", "100%"]
    assert table["most attention"][1:-1] == [f"{value:.4f}" for value in found["deletion"]["strongest"]]


def test_what_is_measured_is_what_the_test_measures(
    trained: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command = trained
    said, found = explained(command, tmp_path, capsys, "--draws=1")
    assert len(found["deletion"]["random"]) == 1 and found["deletion"]["spread"] == 0
    assert [(item["modality"], item["id"]) for item in found["items"]] == [
        *(("image", f"{row}.png") for row in (48, 49, 50)),
        *(("text", f"t{row}") for row in (96, 98, 100)),
    ]
    assert ("tested without its graph" in said) != found["graph_at_test"]
    assert main(["test", *command]) == 0
    tested = printed_metrics(capsys.readouterr().out)["mAP"]
    assert tested == pytest.approx(found["deletion"]["whole"], abs=1e-4)


WRONG = {
    "another format": (["--out=why.pdf"], "--out why.pdf: give a name that ends in .json, .html, .png"),
    "no checkpoint": (["--ckpt_path=null"], "explain: give the folder of a trained model"),
    "both": (
        ["--items=t3", "--text", "red"],
        "explain: give --items of the dataset, or --image and --text of your own",
    ),
    "no photograph": (["--image", "none.jpg"], "none.jpg: no such image"),
    "an id": (
        ["--items=50.png,nobody"],
        "--items nobody: no test image or text of toy has this id (image ids: 0.png, 1.png, …; ",
    ),
    "several devices": (["--trainer.devices=2"], "one device; add --trainer.devices 1"),
    "other data": (["--data.copies=3"], "the checkpoint was not trained on this toy; give its training data"),
    "other options": (
        ["--model.dim=8"],
        "MCRDGN: the checkpoint was trained with dim 16, not 8; use it",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_line(
    kind: str, trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    more, message = WRONG[kind]
    assert main(["explain", *trained[1], *more]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("itmbench: ")]
    assert len(lines) == 1 and message in lines[0]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a small SEDRA, with its checkpoint."""
    folder = tmp_path_factory.mktemp("pairs")
    command = toy_arguments(folder, "--trainer.max_epochs=1", "--trainer.logger=false", model="SEDRA")
    assert main(["fit", *command, f"--best.dirpath={folder}"]) == 0
    return [*command, f"--ckpt_path={folder / 'best.ckpt'}"]


def test_pairs_are_explained_by_sedra(pairs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids name images, explained with their first text, and texts, with their image; scores are the method's own."""
    said, content = explained(pairs, tmp_path, capsys, "--items=112.png,t225,t224", "--top=1")
    found = [(pair["image"], pair["text_id"]) for pair in content["pairs"]]
    assert found == [("112.png", "t224"), ("112.png", "t225")]
    model = itmbench.load(pairs[-1].removeprefix("--ckpt_path="))
    corpus = ToyData(str(Path(pairs[-1].removeprefix("--ckpt_path=")).parent / "toy")).corpus
    image = model.encode_images([corpus.images.root / "112.png"])  # type: ignore[union-attr]
    scores = model.rank(image, model.encode_texts([pair["text"] for pair in content["pairs"]]))
    expected = scores.scores[0][scores.order[0].argsort()].tolist()
    assert [pair["score"] for pair in content["pairs"]] == pytest.approx(expected, abs=1e-4)
    words = content["pairs"][0]["words"]
    assert content["pairs"][0]["grid"] == 2
    assert [word["word"] for word in words] == str(corpus.texts[224]).split()
    legend, regions, *lines, _ = said.splitlines()
    assert legend.startswith("words: share of the text, ") and regions.startswith("regions by row and column of ")
    assert lines[1].startswith(f"  score {expected[0]:.2f} = global ") and len(lines) == 4 + sum(
        len(pair["words"]) for pair in content["pairs"]
    )
    for word in words:
        places = [word["whole"], *word["regions"]]
        assert sum(places) == pytest.approx(1, abs=1e-5)
        named = ["whole image", *(f"row {at // 2 + 1} column {at % 2 + 1}" for at in range(4))]
        best = places.index(max(places))
        assert any(line.endswith(f"{word['found']:.2f}: {named[best]} {places[best]:.2f}") for line in lines)


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_photographs_and_texts_of_ones_own(suffix: str, pairs: list[str], trained: Any, tmp_path: Path) -> None:
    photo, out = tmp_path / "own.jpg", tmp_path / f"why.{suffix}"
    Image.new("RGB", (60, 40), "red").save(photo)
    own = ["--image", str(photo), "--text", "a red square", "pink behind", f"--out={out}"]
    assert main(["explain", *pairs, *own]) == 0
    if suffix == "png":
        assert Image.open(out).size[1] > 400
    else:
        method, found, pictures = shown(out)
        assert method["name"] == "SEDRA" and [query["title"] for query in method["queries"]] == [
            "a red square",
            "pink behind",
        ]
        assert (
            all(found[kind] == {str(photo): at} for at, kind in enumerate(("pictures", "large"))) and len(pictures) == 2
        )
    assert main(["explain", *trained[1], *own]) == 0
    if suffix == "html":
        method, _, _ = shown(out)
        assert [query["title"] for query in method["queries"]] == [str(photo), "a red square", "pink behind"]
        assert all(len(query["panels"][0]["item"]["labels"]) == 3 for query in method["queries"])
    elif suffix == "png":
        assert Image.open(out).size[1] > 800


def test_what_is_read_is_not_replaced(pairs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_karpathy(tmp_path / "root", karpathy_entries())
    (config := tmp_path / "config.json").write_text('{"seed_everything": 1}')
    checkpoint = Path(shutil.copy(pairs[-1].removeprefix("--ckpt_path="), tmp_path / "checkpoint.json"))
    options = ["--data=KarpathyCaptions", f"--data.root={root}", f"--config={config}", f"--ckpt_path={checkpoint}"]
    for file in (root / "dataset_small.json", config, checkpoint):
        before = file.read_bytes()
        assert main(["explain", *pairs[:-1], *options, f"--out={file}"]) == 2
        assert f"{file}: is read here, so it was not replaced" in capsys.readouterr().err.splitlines()[-1]
        assert file.read_bytes() == before


def shown(page: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The method of a page, its content and its pictures."""
    content, pictures = re.findall(r"<script type=\"application/json\"[^>]*>(.*?)</script>", page.read_text())
    found = json.loads(content)
    return found["methods"][0], found, json.loads(pictures)


def test_as_many_images_as_asked_for(trained: tuple[Path, list[str]], tmp_path: Path, capsys: Any) -> None:
    assert len(explained(trained[1], tmp_path, capsys, "--count=2")[1]["items"]) == 4


def test_a_method_without_a_graph_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *options(tmp_path, "DualEncoder")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "itmbench: explain: DualEncoder has nothing to show; give a method such as SEDRA, SCAN, SGRAF or MCRDGN"
    )


def test_the_deletion_gap_is_measured_on_request_only(
    trained: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, content = explained(trained[1], tmp_path, capsys)
    assert "deletion gap" not in output and content["deletion"] is None and len(content["items"]) == 6
