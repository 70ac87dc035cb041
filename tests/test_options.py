"""What an object was built with, as plain values, and the object again from these."""

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from itmbench.encoders import FeatureEncoder, ScratchTextEncoder
from itmbench.errors import InputError
from itmbench.evaluation import CaptionProtocol
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.sedra import SEDRA
from itmbench.methods.vse import VSE
from itmbench.options import build, differences


def test_options_are_plain_and_hold_defaults_of_all_constructors() -> None:
    model = VSE(8, image=FeatureEncoder(4, hidden=(5,)), protocol=CaptionProtocol(ks=(1, 5)), lr=0.5)
    options = json.loads(json.dumps(model.options))
    arguments = options["init_args"]
    assert options["class_path"] == "itmbench.methods.vse.VSE"
    assert (arguments["dim"], arguments["pooling"], arguments["lr"], arguments["warmup"]) == (8, "mean", 0.5, 0.1)
    assert arguments["image"]["init_args"] == {
        "input_dim": 4,
        "width": 1024,
        "hidden": [5],
        "dropout": 0.0,
        "lr_multiplier": 1.0,
        "pretraining": "unimodal",
    }
    # What stands for None is written out: a default that changes later does not change what a checkpoint holds.
    assert arguments["loss"]["class_path"].endswith("TripletLoss") and arguments["text"]["init_args"]["depth"] == 2
    assert arguments["protocol"]["init_args"]["ks"] == [1, 5, 10]


def test_an_object_is_built_again_from_its_options() -> None:
    model = SEDRA(16, intra_k=3, loss=InfoNCE(0.2), protocol=CaptionProtocol(ks=(1, 5)))
    again = build(json.loads(json.dumps(model.options)))
    assert type(again) is SEDRA and again.options == model.options and again.protocol == model.protocol
    assert {k: v.shape for k, v in again.state_dict().items() if hasattr(v, "shape")} == {
        k: v.shape for k, v in model.state_dict().items() if hasattr(v, "shape")
    }
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.loss))):
        assert other.options == (model if other.__class__ is SEDRA else model.loss).options


def test_differences_name_what_matters_and_nothing_else() -> None:
    one, other = SEDRA(16, lr=1.0), SEDRA(16, intra_k=2, lr=2.0, weight_decay=0, text=ScratchTextEncoder(depth=1))
    assert differences(one.options, other.options) == ["intra_k 8, not 2", "text.depth 2, not 1"]
    assert differences(VSE().options, SEDRA().options)[0].startswith("class itmbench.methods.vse.VSE, not ")
    assert differences(VSE(loss=InfoNCE(0.1)).options, VSE(loss=TripletLoss()).options)[0].startswith("loss itmbench")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_path": "evil.Method"}, "evil.Method: its module is not imported; import evil first"),
        ({"class_path": "os.system", "init_args": {"command": "true"}}, "os.system: not a method, encoder"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": "true"}}, "subprocess.Popen: not a method"),
        ({"class_path": "itmbench.methods.vse.Nope"}, "itmbench.methods.vse.Nope: no such class"),
        (
            {"class_path": "itmbench.methods.vse.VSE", "init_args": {"loss": {"class_path": "evil.L"}}},
            "evil.L: its m",
        ),
        ({"class_path": "itmbench.methods.vse.VSE", "init_args": {"depth": 1}}, "itmbench.methods.vse.VSE: .*depth"),
        ({}, "None: its module is not imported"),
    ],
)
def test_only_trusted_classes_are_built(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('code ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=f"^{message}"):
        build(options)
    assert "evil" not in sys.modules


def test_what_has_no_plain_form_is_named() -> None:
    class Foreign(nn.Linear):
        width, lr_multiplier, pretraining = 2, 1.0, "scratch"

    with pytest.raises(InputError, match=r"VSE: image: Foreign cannot be saved as plain values"):
        _ = VSE(image=Foreign(2, 2), text=FeatureEncoder(2, 2)).options
