"""The leak audit of whole methods: an honest one passes, and each leaky one fails at least its own checks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toy
import toy_leaks
import toy_oracles
import toy_statistics
import yaml
from own_features import write_features
from small_benchmark import write
from toy import ToyData, toy_encoders

from itmbench import store
from itmbench.cli.main import main
from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.leaks import Finding
from itmbench.evaluation.protocol import CaptionProtocol
from itmbench.logs import quiet
from itmbench.methods.base import Matcher
from itmbench.methods.cca import CCA
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.identity import Identity
from itmbench.runner import registry
from itmbench.runner.audit import audit, audit_few, quick_audit
from itmbench.runner.replay import by_fresh_instance
from itmbench.runner.watched import watched_test

CHECKS = ["alone", "pairs", "frozen", "protocol", "subset", "blind", "replay", "random", "constant", "blind fit"]
CAPTIONS, LABELS = False, True
NEED_LABELS = ("dcmh", "dscmr", "gnn4cmr", "mcr_dgn")
LEAKS: dict[str, tuple[bool, str]] = {
    "BatchMean": (CAPTIONS, "alone subset replay"),
    "TileMean": (CAPTIONS, "pairs"),
    "Counting": (CAPTIONS, "frozen"),
    "Forgetful": (CAPTIONS, "frozen"),
    "JoinedPairs": (CAPTIONS, "blind replay random"),
    "Numbered": (CAPTIONS, "blind constant"),
    "TiesWin": (CAPTIONS, "protocol constant"),
    "SharedLabels": (LABELS, "blind replay random constant"),
    "RowOracle": (CAPTIONS, "blind replay random constant"),
    "FileNameOracle": (CAPTIONS, "blind replay random"),
    "FileSizeOracle": (CAPTIONS, "blind replay random"),
    "IdOracle": (CAPTIONS, "blind replay random constant"),
    "LoaderOrder": (CAPTIONS, "blind replay random constant"),
    "TrueTies": (CAPTIONS, "blind replay random"),
    "GalleryLabels": (LABELS, "blind replay random constant"),
    "CachedCentring": (CAPTIONS, "subset replay"),
    "QueryBank": (CAPTIONS, "subset replay"),
    "DualSoftmax": (CAPTIONS, "subset replay"),
    "Whitened": (CAPTIONS, "subset replay"),
    "BatchNormAtTest": (CAPTIONS, "alone frozen subset replay"),
    "AdaptsAtTest": (CAPTIONS, "subset replay"),
    "TextsSoFar": (CAPTIONS, "alone frozen subset blind replay"),
    "LabelBank": (LABELS, "blind-fit"),
    "CentredByAll": (CAPTIONS, "blind-fit"),
    "EditsMetrics": (CAPTIONS, "protocol"),
    "EditsLater": (CAPTIONS, "protocol random"),
    "OwnTruth": (CAPTIONS, "protocol subset blind replay"),
    "LoudOracle": (CAPTIONS, "blind replay random constant"),
    "LoudCentring": (CAPTIONS, "subset replay"),
    "SavedCentring": (CAPTIONS, "replay"),
    "AddsMetrics": (CAPTIONS, "protocol"),
    "EditsInTheNextPass": (CAPTIONS, ""),
    "KeptByTheClass": (CAPTIONS, ""),
}
"""A leaky method: whether the data have labels, and the checks that it must fail."""
METHODS = {**vars(toy_leaks), **vars(toy_oracles), **vars(toy_statistics)}
MAY_FAIL = {"subset", "blind", "replay", "random", "constant"}
"""Checks that compare scores of whole test passes, which some leaks fail by their side effects."""


def audited(
    folder: Path,
    method: Callable[..., Matcher],
    labels: bool = False,
    ckpt_path: str | None = None,
    **trainer: object,
) -> dict[str, Finding]:
    torch.manual_seed(0)
    with quiet():
        runs = toy.trainer(folder, **trainer)
        data = ToyData(str(folder), labels=labels, copies=1)
        model = method(dim=32, **toy_encoders())
        protocol = model.protocol
        findings = audit(runs, model, data, ckpt_path)
    assert model.protocol is protocol and not [call for call in runs.callbacks if "Watch" in str(call)]  # type: ignore[attr-defined]
    return {finding.name: finding for finding in findings}


def failed(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if not finding.passed}


@pytest.mark.parametrize("labels", [CAPTIONS, LABELS])
def test_an_honest_method_passes(tmp_path: Path, labels: bool) -> None:
    findings = audited(tmp_path, DualEncoder, labels)
    assert list(findings) == CHECKS
    assert all(finding.passed for finding in findings.values())
    assert findings["alone"].found < 1e-6 > findings["pairs"].found
    assert findings["frozen"].found == findings["subset"].found == findings["replay"].found == 0
    assert findings["constant"].found == findings["constant"].bound
    assert (findings["constant"].found == 0) != labels


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", sorted({e.name for e in registry.entries("methods")} - {"identity", "cca"}))
def test_every_method_here_passes(tmp_path: Path, name: str, precision: str) -> None:
    method = registry.find("methods", name).load()
    # CLIP has towers of its own; the smallest are its defaults.
    labels = name in NEED_LABELS
    findings = audited(tmp_path, (lambda **_: method()) if name == "clip" else method, labels, precision=precision)
    assert not failed(findings)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("labels", [CAPTIONS, LABELS])
@pytest.mark.parametrize("method", [CCA, Identity])
def test_methods_on_ready_made_features_pass(tmp_path: Path, method: Any, labels: bool, precision: str) -> None:
    data = FeatureFolder(str(write_features(tmp_path / "set", labels=labels, captions=2, dims=(6, 6))))
    model, options = method(), {"precision": precision, "num_sanity_val_steps": 0, "max_epochs": int(method is CCA)}
    with quiet():
        trainer = toy.trainer(tmp_path, **options)
        trainer.fit(model, data)
        findings = audit(trainer, model, data)
    assert [finding.name for finding in findings if not finding.passed] == []


@pytest.mark.parametrize("protocol", [CaptionProtocol(shortlist=10), CaptionProtocol(ks=(2,), ties="optimistic")])
def test_a_protocol_is_no_leak(tmp_path: Path, protocol: CaptionProtocol) -> None:
    class Asking(DualEncoder):
        def __init__(self, **options: Any) -> None:
            super().__init__(protocol=protocol, **options)

        def score(self, image: Embeddings, text: Embeddings) -> torch.Tensor:
            return 2 * super().score(image, text)

    assert not failed(audited(tmp_path, Asking))


@pytest.mark.parametrize("name", LEAKS)
def test_a_leaky_method_fails_its_checks(tmp_path: Path, name: str) -> None:
    labels, checks = LEAKS[name]
    expected = {check.replace("-", " ") for check in checks.split()}
    found = failed(audited(tmp_path, METHODS[name], labels))
    assert expected <= found <= expected | MAY_FAIL


IN_A_CELL = {"alone", "pairs", "frozen", "protocol", "subset", "blind", "replay"}
SEEN_IN_ANOTHER_TEST = ("Forgetful", "TextsSoFar")
"""Only `itmbench audit` repeats the test, which ``frozen`` needs to find these."""


@pytest.mark.parametrize("name", LEAKS)
def test_a_cell_catches_a_leaky_method_too(tmp_path: Path, name: str) -> None:
    labels, checks = LEAKS[name]
    torch.manual_seed(0)
    with quiet():
        trainer, data = toy.trainer(tmp_path), ToyData(str(tmp_path), labels=labels, copies=1)
        model, checkpoint = METHODS[name](dim=32, **toy_encoders()), tmp_path / "best.ckpt"
        test = watched_test(trainer, model, data, checkpoint=checkpoint)
        fresh = by_fresh_instance(lambda: METHODS[name](dim=32, **toy_encoders()))
        findings = {finding.name: finding for finding in quick_audit(trainer, model, data, test, checkpoint, fresh)}
    assert set(findings) == IN_A_CELL
    expected = IN_A_CELL & set(checks.split()) - ({"frozen"} if name in SEEN_IN_ANOTHER_TEST else set())
    assert expected <= failed(findings) and (failed(findings) or not IN_A_CELL & set(checks.split()))
    if name == "EditsInTheNextPass":
        assert test.reported.metrics["rSum"] < 600


def test_every_leaky_method_is_in_the_table() -> None:
    methods = [each for each in METHODS.values() if isinstance(each, type) and issubclass(each, DualEncoder)]
    assert {each.__name__ for each in methods} - set(LEAKS) == {"DualEncoder", "Oracle", "Caching"}


def test_an_error_in_a_check_fails_the_check_and_ends_nothing(tmp_path: Path) -> None:
    class Stopping(DualEncoder):
        def on_test_start(self) -> None:
            if len(self.data.stage("test").images) < 16:
                raise RuntimeError("too few items")

    findings = audited(tmp_path, Stopping)
    assert failed(findings) == {"subset", "blind"} and "(RuntimeError: too few items)" in findings["subset"].what


def test_the_weights_of_the_checkpoint_are_audited(tmp_path: Path) -> None:
    class TileMeanWhereTrained(DualEncoder):
        project: Any

        def score(self, image: Embeddings, text: Embeddings) -> torch.Tensor:
            scores = super().score(image, text)
            return scores - 0.1 * (self.project["text"].bias[0] == 5) * scores.mean(1, keepdim=True)

    trained = TileMeanWhereTrained(dim=32, **toy_encoders())  # type: ignore[arg-type]
    torch.nn.init.constant_(trained.project["text"].bias, 5.0)
    path = tmp_path / "trained.ckpt"
    with quiet():
        saving = toy.trainer(tmp_path)
        saving.test(trained, ToyData(str(tmp_path), copies=1), verbose=False)
        saving.save_checkpoint(path)
    assert not audited(tmp_path, TileMeanWhereTrained, ckpt_path=str(path))["pairs"].passed
    assert audited(tmp_path, TileMeanWhereTrained)["pairs"].passed


def test_nothing_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"leave trainer\.fast_dev_run unset"):
        audited(tmp_path, DualEncoder, fast_dev_run=True)


def test_half_precision_is_no_leak(tmp_path: Path) -> None:
    class Remembering(DualEncoder):
        seen: ClassVar[list[torch.dtype]] = []
        project: Any

        def predict_step(self, *arguments: Any) -> tuple[torch.Tensor, Embeddings]:
            self.seen.append(self.project["text"].weight.dtype)
            return super().predict_step(*arguments)

    model, data = Remembering(dim=32, **toy_encoders()), ToyData(str(tmp_path), copies=1)  # type: ignore[arg-type]
    with quiet():
        runs = toy.trainer(tmp_path, precision="bf16-true")
        runs.test(model, data, verbose=False)
    assert set(model.seen) == {torch.bfloat16}
    model.seen.clear()
    assert all(finding.passed for finding in audit_few(model, data))
    assert set(model.seen) == {torch.float32} and model.dtype == model.project["text"].weight.dtype == torch.bfloat16


def test_tokens_that_wait_in_half_precision_are_recorded_and_no_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write(tmp_path, "m", epochs=1)
    config = yaml.safe_load((tmp_path / "m.yaml").read_text())
    config["model"]["class_path"] = "SEDRA"
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(config))
    for name in ("full", "half"):
        if name == "half":  # as on a GPU
            monkeypatch.setattr(Embeddings, "compact", lambda items: replace(items, tokens=items.tokens.half()))
        assert main(["bench", str(spec), "--results", str(tmp_path / name)]) == 0
        [(_, result)] = store.results(tmp_path / name)
        assert result.hardware.get("half_tokens", False) == (name == "half")
        assert all(finding["passed"] for finding in result.audit.values())
