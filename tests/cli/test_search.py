"""`itmbench search` as its users meet it: a folder of photographs, a checkpoint, a sentence."""

import os
import re
import shutil
import socket
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from own_features import write_features
from PIL import Image
from toy import ToyData, evaluation_of, toy_encoders

import itmbench
from itmbench.cli.main import main
from itmbench.cli.serve import server
from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import Embeddings, FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods import trained as methods_trained
from itmbench.methods.base import Matcher
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.evaluated import EvaluationCallback
from itmbench.report.sheet import Row
from itmbench.runner import registry
from itmbench.store import index as store_index
from itmbench.store.index import load_with_index


class Encoded(EvaluationCallback):
    """Keeps the embeddings of the test."""

    def on_encoded(self, model: Any, stage: str, images: Embeddings, texts: Embeddings) -> None:
        self.images, self.texts = images, texts


def trained(folder: Path, method: Any = DualEncoder, steps: int = 2, **options: Any) -> tuple[Path, ToyData]:
    """A checkpoint, and its data."""
    torch.manual_seed(0)
    data = ToyData(str(folder / "toy"), copies=2, **options)
    return toy.trained(folder, method(dim=8, lr=3e-3, **toy_encoders()), data, steps), data


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of five photographs, one of them in a subfolder, and an empty cache."""
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    (folder / "2024").mkdir(parents=True)
    for number, colour in enumerate(("red", "lime", "blue", "yellow")):
        Image.new("RGB", (40, 30), colour).save(folder / f"{number}.png")
    Image.new("RGB", (40, 30), "black").save(folder / "2024" / "night.JPG", "JPEG")
    (folder / "notes.txt").write_text("no photograph")
    Image.new("RGB", (40, 30)).save(folder / ".hidden.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("dual"))[0]


@pytest.mark.parametrize("name", ["dual_encoder", "sedra", "scan", "mcr_dgn"])
def test_scores_and_ranks_are_those_of_the_test(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs of the test split, found by its captions, give the recalls that the test prints."""
    monkeypatch.setattr(methods_trained, "BLOCK", 5)
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "cache"))
    file, data = trained(tmp_path, registry.find("methods", name).load(), 20, labels=name == "mcr_dgn")
    corpus, rows = data.corpus, data.corpus.stages["test"].queries
    photos = tmp_path / "photos"
    photos.mkdir()
    for row in rows:
        shutil.copy(corpus.images.root / corpus.image_ids[row], photos)  # type: ignore[union-attr]
    model = itmbench.load(file)
    trainer, encoded = toy.trainer(tmp_path), Encoded()
    trainer.callbacks.append(encoded)  # type: ignore[attr-defined]
    metrics = evaluation_of(trainer, model, data).metrics
    model.eval()

    texts = [corpus.texts[text] for text in corpus.texts_of(rows)]
    searched, index = load_with_index(file, photos)
    ranking = searched.rank(searched.encode_texts(texts), index.images)
    places = [corpus.stages["test"].images.tolist().index(corpus.image_ids.index(name)) for name in index.names]
    of_texts = np.flatnonzero(np.isin(corpus.text_to_image[corpus.texts_of(corpus.stages["test"].images)], rows))
    with torch.no_grad():
        expected = model.score(encoded.images[torch.tensor(places)], encoded.texts[torch.from_numpy(of_texts)]).T
    torch.testing.assert_close(ranking.scores, expected.gather(1, ranking.order), rtol=1e-5, atol=1e-5)
    assert len({*expected.flatten().tolist()}) > 10  # it has learned something
    if name != "mcr_dgn":
        own = [index.names.index(corpus.image_ids[corpus.text_to_image[text]]) for text in corpus.texts_of(rows)]
        rank = (ranking.order == torch.tensor(own).unsqueeze(1)).int().argmax(1)
        for k in (1, 5):
            assert metrics[f"t2i/R@{k}"] == pytest.approx(float((rank < k).double().mean()), abs=1e-12)


def search(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[list[str], str]:
    """Lines of the output, and what stands on stderr."""
    capsys.readouterr()
    assert main(["search", *map(str, arguments)]) == 0
    said = capsys.readouterr()
    return said.out.splitlines(), said.err


def test_paths_are_printed_best_first(checkpoint: Path, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = search(capsys, "--model", checkpoint, "--gallery", gallery, "a red square", "pink behind", "--top", 3)
    assert [line for line in lines if line.startswith('"')] == ['"a red square"', '"pink behind"'] and len(lines) == 8
    model = itmbench.load(checkpoint)
    paths = sorted([*gallery.glob("[0-9].png"), gallery / "2024" / "night.JPG"])
    ranking = model.rank(model.encode_texts(["a red square"]), model.encode_images(paths))
    expected = [(paths[row], score) for row, score in ranking.best(3)[0]]
    assert [line.split() for line in lines[1:4]] == [
        [str(place), f"{score:.4f}", str(path)] for place, (path, score) in enumerate(expected, 1)
    ]
    lines, error = search(capsys, "--model", checkpoint, "--gallery", gallery, "A Zebra, red? \u2603", "--top", 1)
    note = "'A Zebra, red? \u2603': not in the vocabulary of this model, so may match poorly: zebra, \u2603"
    assert len(lines) == 2 and [line for line in error.splitlines() if "vocabulary" in line] == [note]


def test_what_changed_is_encoded_and_nothing_else(
    checkpoint: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    real = Matcher.encode_images

    def counted(model: Matcher, images: Any, *more: Any) -> Any:
        encoded.append(len(images))
        return real(model, images, *more)

    monkeypatch.setattr(Matcher, "encode_images", counted)

    def names() -> list[str]:
        model, index = load_with_index(checkpoint, gallery)
        whole = real(model, [gallery / name for name in index.names])
        torch.testing.assert_close(index.images.pooled, whole.pooled)
        assert len(list((gallery.parent / "cache" / "search").glob("*/*.pt"))) == 1
        return list(index.names)

    first = ["0.png", "1.png", "2.png", "2024/night.JPG", "3.png"]
    assert names() == first and encoded == [5]
    assert names() == first and encoded == [5]
    for number, colour in enumerate(("white", "red"), 1):
        Image.new("RGB", (40, 30), colour).save(gallery / "1.png")
        os.truncate(gallery / "1.png", 1000)
        os.utime(gallery / "1.png", ns=(0, 1))  # as a copy that keeps the time leaves it
        assert names() == first and encoded == [5] + [1] * number
    del encoded[1:2]
    (gallery / "0.png").unlink()
    (gallery / "2024" / "night.JPG").rename(gallery / "a.jpg")
    assert names() == ["1.png", "2.png", "3.png", "a.jpg"] and encoded == [5, 1, 1]
    (gallery / "3.png").unlink()
    assert names() == ["1.png", "2.png", "a.jpg"] and encoded == [5, 1, 1]
    [file] = (gallery.parent / "cache" / "search").glob("*/*.pt")
    file.write_bytes(file.read_bytes()[:100])
    assert names() == ["1.png", "2.png", "a.jpg"] and encoded == [5, 1, 1, 3]


def test_an_index_belongs_to_a_checkpoint(checkpoint: Path, gallery: Path, tmp_path: Path) -> None:
    other, _ = trained(tmp_path, steps=4)
    for file in (checkpoint, other, checkpoint):
        model, index = load_with_index(file, gallery)
        whole = model.encode_images([gallery / name for name in index.names])
        torch.testing.assert_close(index.images.pooled, whole.pooled)


def test_an_interrupted_index_resumes(
    checkpoint: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store_index, "BATCH", 2)
    monkeypatch.setattr(store_index, "SAVE_EVERY", 0.0)
    real, batches = Matcher.encode_images, []

    def interrupted(model: Matcher, images: Any, *more: Any) -> Any:
        batches.append(len(images))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return real(model, images, *more)

    monkeypatch.setattr(Matcher, "encode_images", interrupted)
    command = ["search", "--model", str(checkpoint), "--gallery", str(gallery), "a red square"]
    assert main(command) == 1
    assert capsys.readouterr().err.endswith("itmbench: interrupted; the same command resumes\n")
    assert main(command) == 0 and batches == [2, 2, 2, 1]
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_broken_photographs_are_named_and_skipped(
    checkpoint: Path, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (gallery / "1.png").write_bytes(b"\x89PNG but not really")
    (gallery / "empty.jpg").touch()
    for _ in range(2):
        lines, said = search(capsys, "--model", checkpoint, "--gallery", gallery, "a red square")
        assert len(lines) == 5
        for name in ("1.png", "empty.jpg"):
            assert re.search(rf"^{gallery / name}: skipped, not a readable image \(.*\)", said, re.MULTILINE)


def test_any_bytes_in_names_and_folders_that_cannot_be_listed(
    checkpoint: Path, gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = gallery / "2024" / "\udcff"
    strange.mkdir()
    (gallery / "0.png").rename(strange / "a\udcfe.png")
    (strange / "folder.png").mkdir()
    below = gallery / "2024"
    for _ in range(2):
        lines, _ = search(
            capsys, "--model", checkpoint, "--gallery", below, "a red square", "--out", gallery / "a.html"
        )
        assert {line.split()[2] for line in lines[1:-1]} == {f"{below}/night.JPG", f"{below}/\ufffd/a\ufffd.png"}
        assert lines[-1] == f"Written: {gallery / 'a.html'}"
    real = os.scandir

    def forbidden(path: Any) -> Any:
        if Path(path) == gallery / "2024":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    lines, said = search(capsys, "--model", checkpoint, "--gallery", gallery, "a red square")
    assert len(lines) == 4 and f"{gallery / '2024'}: skipped, Permission denied" in said


def test_a_page_on_this_machine_alone(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def rows(sentence: str) -> list[Row]:
        asked.append(sentence)
        if sentence == "\x1bgone":
            raise InputError("photo.jpg: no such image")
        return [Row(f"found {sentence}", [])]

    def page(path: str, host: str | None = None) -> tuple[int, str]:
        headers = {} if host is None else {"Host": host}
        request = urllib.request.Request(f"http://127.0.0.1:{serving.server_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    with server(rows, "Search", 0) as serving:
        assert serving.server_address[0] == "127.0.0.1"
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        status, empty = page("/")
        assert status == 200 and "<form>" in empty and "<h2>" not in empty and asked == []
        status, found = page("/?" + urllib.parse.urlencode({"q": ' <b>"two" dogs '}))
        assert status == 200 and asked == ['<b>"two" dogs'] and "<b>" not in found
        assert 'value="&lt;b&gt;&#34;two&#34; dogs"' in found and "<h2>found &lt;b&gt;" in found
        assert page("/etc/passwd")[0] == page("/../photo.jpg")[0] == 404
        assert page("/?q=x", host="elsewhere.example")[0] == 403 and len(asked) == 1
        assert page("/?q=%1bgone") == (500, "")
        with socket.create_connection(("127.0.0.1", serving.server_port)) as wrong:
            wrong.sendall(b"GET http://[::1 HTTP/1.0\r\n\r\n")
            assert wrong.recv(100).startswith(b"HTTP/1.0 400 ")
        with socket.create_connection(("127.0.0.1", serving.server_port)) as left:  # before the answer
            left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            left.sendall(b"GET /?q=x HTTP/1.0\r\nHost: localhost:1\r\n\r\n")
        with pytest.raises(
            InputError, match=f"--serve {serving.server_port}: Address already in use; give another port"
        ):
            server(rows, "Search", serving.server_port)
        serving.shutdown()
    assert caplog.messages == [r"'\x1bgone': photo.jpg: no such image"]
    assert "Traceback" not in capsys.readouterr().err


def test_the_page_finds_what_the_command_finds(
    checkpoint: Path, gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, _ = search(capsys, "--model", checkpoint, "--gallery", gallery, "a red square")
    pages: list[list[str]] = []

    def once(serving: Any) -> None:
        """Ask one thing, then Ctrl-C."""
        thread = threading.Thread(target=serving.handle_request)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{serving.server_port}/?q=a+red+square", timeout=30) as answer:
            pages.append(re.findall(r"</span> (.*?)</li>", answer.read().decode()))
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", once)
    shown, _ = search(capsys, "--model", checkpoint, "--gallery", gallery, "--serve", "0")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/  \(end with Ctrl-C\)", shown[0])
    assert pages == [[line.split()[2] for line in lines[1:]]]


WRONG = {
    "serve and ask": (["--gallery", "photos", "x", "--serve", "0"], "--serve: the page asks for sentences"),
    "no port": (["--gallery", "photos", "--serve", "99999"], "--serve 99999: "),
    "no folder": (["--gallery", "nowhere", "x"], "nowhere: no such folder"),
    "a loop of links": (["--gallery", "loop", "x"], "loop: no such folder"),
    "a loop of links to write": (
        ["--gallery", "photos", "x", "--out", "loop/a.png"],
        "loop/a.png: cannot be written (",
    ),
    "an empty folder": (["--gallery", "bare", "x"], "bare: no photographs (.avif, .bmp, "),
    "no sentence": (["--gallery", "photos"], "search: give a sentence to look for"),
    "an empty sentence": (["--gallery", "photos", " "], "search: give a sentence to look for"),
    "no gallery": (["x"], "search: give --gallery DIR and sentences, or --image FILE and --texts FILE"),
    "an image alone": (["--image", "photos/0.png"], "search: give --gallery DIR and sentences, or"),
    "no results": (["--gallery", "photos", "x", "--top", "0"], "--top 0: give 1 or more"),
    "another format": (["--gallery", "photos", "x", "--out", "a.pdf"], "--out a.pdf: give a name that ends in .html"),
    "a photograph to write": (["--gallery", "photos", "x", "--out", "photos/0.png"], "--out photos/0.png: would be a"),
    "an image to write": (
        ["--image", "photos/0.png", "--texts", "texts.html", "--out", "photos/../photos/0.png"],
        "photos/../photos/0.png: is read here, so it was not replaced; name another file",
    ),
    "texts to write": (
        ["--image", "photos/0.png", "--texts", "texts.html", "--out", "texts.html"],
        "texts.html: is read here",
    ),
    "no texts": (["--image", "photos/0.png", "--texts", "bare.txt"], "bare.txt: holds no text"),
    "no image": (["--image", "none.png", "--texts", "photos/notes.txt"], "none.png: no such image"),
    "all broken": (["--gallery", "broken", "x"], "broken: none of the 1 photographs can be read; the first is a.jpg ("),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_line(
    kind: str, checkpoint: Path, gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(gallery.parent)
    Path("bare").mkdir()
    Path("loop").symlink_to("loop")
    Path("bare.txt").write_text("\n \n")
    Path("texts.html").write_text("a red square")
    Path("broken").mkdir()
    Path("broken/a.jpg").write_bytes(b"x")
    more, message = WRONG[kind]
    assert main(["search", "--model", str(checkpoint), *more]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"itmbench: {message}") and sum(line.startswith("itmbench: ") for line in lines) == 1


def test_a_method_of_ready_made_features_is_refused(tmp_path: Path, gallery: Path) -> None:
    data = FeatureFolder(str(write_features(tmp_path / "features")))
    model = DualEncoder(dim=8, image=FeatureEncoder(width=16), text=FeatureEncoder(width=16))
    toy.trained(tmp_path, model, data)
    with pytest.raises(InputError, match=r"^DualEncoder: this checkpoint reads ready-made features, not photographs"):
        load_with_index(tmp_path, gallery)


def test_texts_of_a_photograph(checkpoint: Path, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = gallery.parent / "texts.txt"
    texts.write_text("a red square\n\npink behind, blue in front\na red square\n")
    lines, _ = search(capsys, "--model", checkpoint, "--image", gallery / "0.png", "--texts", texts)
    assert lines[0] == str(gallery / "0.png") and len(lines) == 3
    model = itmbench.load(checkpoint)
    strings = ["a red square", "pink behind, blue in front"]
    ranking = model.rank(model.encode_images([gallery / "0.png"]), model.encode_texts(strings))
    assert lines[1].split(maxsplit=2) == ["1", f"{ranking.scores[0, 0]:.4f}", f'"{strings[ranking.order[0, 0]]}"']


def test_frozen_encoders_are_read_in_half_precision_as_in_a_test(tmp_path: Path) -> None:
    model = DualEncoder(dim=8, **toy_encoders())  # type: ignore[arg-type]
    model.image.freeze, model.image.pretraining = True, "unimodal"
    whole = model.eval().image.embed(model.image.processor()([Image.new("RGB", (40, 30), "red")], False))
    found = model.encode_images([Image.new("RGB", (40, 30), "red")])
    with torch.no_grad():
        expected = model.embed(Embeddings(whole.pooled.half().float()), "image")
        assert not torch.equal(found.pooled, model.embed(whole, "image").pooled)
    torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=0)
