"""What README and docs show works: Python blocks run, command lines parse, links resolve, the graph is current."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
import yaml
from PIL import Image
from toy import COLOURS, TOY_MODEL, ToyData, toy_encoders

from itmbench.cli.main import main
from itmbench.methods.sedra import SEDRA

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LIGHTNING = {"fit", "validate", "test", "predict", "audit", "explain"}


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text()) if name == language]


def command_lines() -> dict[str, list[str]]:
    """Arguments of every `itmbench` command in a block or in inline code, by its text."""
    found = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        lines = [
            line for body in blocks(page, "") + blocks(page, "bash") for line in body.replace("\\\n", " ").splitlines()
        ]
        for line in lines + re.findall(r"`(itmbench [^`]+)`", text):
            words = line.split("#")[0].split()
            if words[:1] == ["itmbench"] and len(words) > 1 and not words[1].endswith(":"):
                found[" ".join(words)] = words[1:]
    return found


COMMANDS = command_lines()


def is_placeholder(word: str) -> bool:
    """`…`, `[--option]`, `DIR`, `RUN/config.yaml`, `a|b`: shown to be replaced."""
    names = "A|B|CELL|DIR|FILE|IDS|KEY|N|NAME|OTHER|OUT|PATH|RUN|SPEC"
    return bool(re.search(rf"…|[\[\]|]|/<|^({names})(\.\w+)?($|/)", word.split("=")[-1]))


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "itmbench", *command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Help of every command that the pages use, subcommands of `results` and `data` included."""
    names = {words[0] for words in COMMANDS.values() if not is_placeholder(words[0])}
    return {name: help_of(name) for name in sorted(names)}


def test_pages_show_commands() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("line", sorted(line for line, words in COMMANDS.items() if not is_placeholder(words[0])))
def test_command_and_options_exist(line: str, helps: dict[str, str]) -> None:
    name, *rest = COMMANDS[line]
    for word in rest:
        option = re.match(r"\[?(--[\w-]+)", word)
        if option and name not in ("data", "results"):  # whose options are those of their own subcommands
            assert option[1] in helps[name] or option[1] == "--help", word
        path = word.removeprefix("--config=")
        if path.startswith("benchmarks/") or (name == "bench" and word is rest[0] and not word.startswith("-")):
            candidates = [ROOT / path, ROOT / "benchmarks" / f"{path}.yaml"]
            assert is_placeholder(word) or path.startswith("my") or any(each.is_file() for each in candidates), word


def of_datasets(words: list[str]) -> bool:
    return words[0] == "data" and len(words) > 2 and not any(map(is_placeholder, words[:3]))


@pytest.mark.parametrize("line", sorted(line for line, words in COMMANDS.items() if of_datasets(words)))
def test_options_of_a_dataset_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, action, name, *rest = COMMANDS[line]
    with pytest.raises(SystemExit) as ended:
        main(["data", action, name, "--help"])
    assert ended.value.code == 0
    options = capsys.readouterr().out
    assert not [word for word in rest if word.startswith("--") and word != "--help" and f"{word} " not in options]


def complete(words: list[str]) -> bool:
    named = "--model" in words or words.count("--config") > 1
    return words[0] == "fit" and named and not any(map(is_placeholder, words)) and "my_" not in " ".join(words)


@pytest.mark.parametrize("line", sorted(line for line, words in COMMANDS.items() if complete(words)))
def test_fit_command_is_accepted(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole line is parsed, class paths and nested options included."""
    monkeypatch.chdir(ROOT)
    assert main([*COMMANDS[line], "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            linked = (page.parent / name).resolve() if name else page
            assert linked.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


# --- Python ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the blocks read: embeddings, a photograph, and results with one trained cell."""
    folder = tmp_path_factory.mktemp("docs")
    generator = np.random.default_rng(0)
    np.save(folder / "images.npy", generator.normal(size=(40, 8)))
    np.save(folder / "texts.npy", generator.normal(size=(80, 8)))
    np.save(folder / "text_to_image.npy", np.repeat(np.arange(40), 2))
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "photos/photo.jpg"):
        Image.new("RGB", (40, 30), COLOURS["red"]).save(folder / name)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    data = {"class_path": "toy.ToyData", "init_args": {"root": str(folder / "toy"), "copies": 1}}
    model = {"class_path": "SEDRA", "init_args": TOY_MODEL["init_args"]}
    spec = {
        "name": "mini",
        "datasets": {"flickr30k-mini": "data.yaml"},
        "methods": {"sedra": "sedra.yaml"},
        "seeds": [0],
        "config": {"trainer": quiet | {"max_epochs": 1}},
    }
    for name, content in (("data", {"data": data}), ("sedra", {"model": model}), ("mini", spec)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(["bench", str(folder / "mini.yaml"), "--results", str(folder / "results")]) == 0
    return folder


@pytest.mark.parametrize(
    ("page", "number"),
    [
        (page, number)
        for page in ("README.md", "docs/index.md", "docs/search.md")
        for number in range(len(blocks(ROOT / page, "python")))
    ],
)
def test_python_block_runs(
    page: str, number: int, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    exec(compile(blocks(ROOT / page, "python")[number], f"{page}, block {number}", "exec"), {})
    assert capsys.readouterr().out.strip()


def example(number: int, name: str) -> tuple[str, Any]:
    """The source and the named class of a Python block of docs/extending.md."""
    source = blocks(ROOT / "docs" / "extending.md", "python")[number]
    namespace: dict[str, Any] = {"__name__": name.lower()}
    exec(compile(source, f"docs/extending.md, block {number}", "exec"), namespace)
    return source, namespace[name]


def test_a_method_is_one_file_of_under_30_lines_that_trains(tmp_path: Path) -> None:
    source, method = example(0, "MyMatcher")
    assert len(source.splitlines()) < 30
    torch.manual_seed(0)
    model, data = method(dim=16, lr=3e-3, **toy_encoders()), ToyData(str(tmp_path), copies=2)
    trainer = toy.trainer(tmp_path, max_steps=2, limit_val_batches=0)
    before = model.heads["image"].weight.detach().clone()
    trainer.fit(model, data)
    assert not torch.equal(before, model.heads["image"].weight)
    assert 0 < trainer.test(model, data, verbose=False)[0]["test/rSum"] <= 600


def test_an_encoder_is_a_class_that_a_method_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = example(1, "MyEncoder")[1](width=16)
    model, data = SEDRA(dim=16, image=encoder, text=toy_encoders()["text"]), ToyData(str(tmp_path), copies=2)
    trainer = toy.trainer(tmp_path, max_steps=2, limit_val_batches=0)
    before = encoder.patches.weight.detach().clone()
    trainer.fit(model, data)
    assert not torch.equal(before, encoder.patches.weight)
    assert 0 < trainer.test(model, data, verbose=False)[0]["test/rSum"] <= 600


def test_a_dataset_is_a_class_with_one_method(tmp_path: Path) -> None:
    for row in range(40):
        Image.new("RGB", (32, 32), (6 * row, 100, 100)).save(tmp_path / f"{row}.png")
        (tmp_path / f"{row}.txt").write_text(f"number {row}")
    data = example(2, "MyData")[1](str(tmp_path), batch_size=8, num_workers=0)
    assert {len(stage.queries) for stage in data.corpus.stages.values()} == {4} and len(data.corpus.train) == 32
    method = example(0, "MyMatcher")[1](dim=16, **toy_encoders())
    trainer = toy.trainer(tmp_path, max_steps=2, limit_val_batches=0)
    trainer.fit(method, data)
    assert trainer.test(method, data, verbose=False)[0]["test/i2t/R@5"] == 1  # of four


# --- the import graph -----------------------------------------------------------------------------------------------


def test_the_import_graph_is_that_of_the_code() -> None:
    script = ROOT / "scripts" / "draw_imports.py"
    drawn = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert blocks(ROOT / "docs" / "architecture.md", "mermaid") == [drawn]
