"""The leak audit of whole methods: an honest one passes, and each leaky one fails its own check and no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from toy import ToyData, toy_encoders
from toy_leaks import BatchMean, Counting, Forgetful, JoinedPairs, Numbered, SharedLabels, TiesWin, TileMean

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.leaks import Finding
from itmbench.evaluation.protocol import CaptionProtocol
from itmbench.logs import quiet
from itmbench.methods.base import Matcher
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.runner import registry
from itmbench.runner.audit import audit, audit_few

CHECKS = ["alone", "pairs", "frozen", "random", "constant"]
LEAKS = [
    (BatchMean, False, ["alone"]),
    (TileMean, False, ["pairs"]),
    (Counting, False, ["frozen"]),
    (Forgetful, False, ["frozen"]),
    (JoinedPairs, False, ["random"]),
    (JoinedPairs, True, ["random"]),
    (Numbered, False, ["constant"]),
    (TiesWin, False, ["constant"]),
    (SharedLabels, True, ["random", "constant"]),
]
"""A method, whether the data have labels, and the checks that it fails."""


def make_trainer(folder: Path, **options: Any) -> L.Trainer:
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return L.Trainer(default_root_dir=folder, accelerator="cpu", **(off | options))


def audited(
    folder: Path,
    method: Callable[..., Matcher],
    labels: bool = False,
    ckpt_path: str | None = None,
    **trainer: object,
) -> dict[str, Finding]:
    torch.manual_seed(0)
    with quiet():
        runs = make_trainer(folder, **trainer)
        data = ToyData(str(folder), labels=labels, copies=1)
        model = method(dim=32, **toy_encoders())
        protocol = model.protocol
        findings = audit(runs, model, data, ckpt_path)
    assert model.protocol is protocol and not [call for call in runs.callbacks if "Watch" in str(call)]  # type: ignore[attr-defined]
    return {finding.name: finding for finding in findings}


@pytest.mark.parametrize("labels", [False, True])
def test_an_honest_method_passes(tmp_path: Path, labels: bool) -> None:
    findings = audited(tmp_path, DualEncoder, labels)
    assert list(findings) == CHECKS
    assert all(finding.passed for finding in findings.values())
    assert findings["alone"].found < 1e-6 > findings["pairs"].found
    assert findings["frozen"].found == 0
    assert findings["constant"].found == findings["constant"].bound
    assert (findings["constant"].found == 0) != labels


@pytest.mark.parametrize("name", sorted({e.name for e in registry.entries("methods")} - {"dual_encoder", "identity"}))
def test_every_method_here_passes(tmp_path: Path, name: str) -> None:
    method = registry.find("methods", name).load()
    # CLIP has towers of its own; the smallest are its defaults.
    labels = name in ("dcmh", "dscmr", "gnn4cmr")  # undefined without
    findings = audited(tmp_path, (lambda **_: method()) if name == "clip" else method, labels)
    assert [finding.name for finding in findings.values() if not finding.passed] == []


@pytest.mark.parametrize("protocol", [CaptionProtocol(shortlist=10), CaptionProtocol(ks=(2,), ties="optimistic")])
def test_a_protocol_is_no_leak(tmp_path: Path, protocol: CaptionProtocol) -> None:
    class Asking(DualEncoder):
        def __init__(self, **options: Any) -> None:
            super().__init__(protocol=protocol, **options)

        def score(self, image: Embeddings, text: Embeddings) -> torch.Tensor:
            return 2 * super().score(image, text)

    assert all(finding.passed for finding in audited(tmp_path, Asking).values())


@pytest.mark.parametrize(("method", "labels", "checks"), LEAKS)
def test_a_leaky_method_fails_its_checks_and_no_other(
    tmp_path: Path, method: type[DualEncoder], labels: bool, checks: list[str]
) -> None:
    findings = audited(tmp_path, method, labels)
    assert [name for name, finding in findings.items() if not finding.passed] == checks
    assert labels or findings[checks[0]].found > 1.2 * findings[checks[0]].bound


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
        saving = make_trainer(tmp_path)
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
        runs = make_trainer(tmp_path, precision="bf16-true")
        runs.test(model, data, verbose=False)
    assert set(model.seen) == {torch.bfloat16}
    model.seen.clear()
    assert all(finding.passed for finding in audit_few(model, data))
    assert set(model.seen) == {torch.float32} and model.dtype == model.project["text"].weight.dtype == torch.bfloat16
