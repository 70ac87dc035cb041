"""Weights from a file into a model of timm, all of them or none: a wrong file must not leave random weights behind."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from itmbench.errors import InputError

WRAPPERS = ("state_dict", "teacher", "model")
"""Keys under which training scripts keep the weights: Lightning's, DINO's (its teacher is the one to use), others'."""


def reason(error: Exception) -> str:
    """The first sentence of an error's message, cut after a word where it is long.

    >>> reason(OSError("No such file. Please check your connection."))
    'No such file'
    """
    sentence = re.split(r"\.\s+(?=[A-Z])", str(error).strip())[0].removesuffix(".")
    return shorten(sentence, 200, placeholder=" …") or type(error).__name__


def load_weights(model: nn.Module, path: str, purpose: str) -> None:
    """Load a timm model's weights from ``.safetensors`` or a PyTorch file.

    Wrappers are opened, and prefixes such as ``backbone.`` or ``image.model.`` are stripped. Classifiers and other
    heads that the model lacks are skipped. timm resamples position embeddings. ``purpose`` says in messages what the
    weights are for.

    Raises:
        InputError: there is no such file, it holds no weights, or these do not fit the model.
    """
    from timm.models import load_state_dict  # it takes long to import, and only encoders with a checkpoint need it

    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint file for {purpose}")
    try:
        found = load_state_dict(path)
        while wrapper := next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None):
            found = dict(found[wrapper])
    except Exception as error:  # pickle, safetensors and torch each raise their own
        raise InputError(f"{path}: cannot be read as weights ({reason(error)}); give .safetensors or .pth") from error
    found = _without_prefix(found, model)
    classifiers = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ((classifiers,) if isinstance(classifiers, str) else classifiers))
    found = {name: value for name, value in found.items() if not name.startswith(heads or ("\0",))}
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        missing, unexpected = model.load_state_dict(convert(found, model) if convert else found, strict=False)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        details = " ".join(str(error).split())[-200:]
        raise InputError(f"{path}: does not fit {purpose} ({details}); give weights of this model") from error
    parts = {name.partition(".")[0] for name in model.state_dict()}
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    surplus = [name for name in unexpected if name.partition(".")[0] in parts]
    if missing or surplus:
        examples = [f" ({names[0]}, ...)" if names else "" for names in (missing, surplus)]
        raise InputError(
            f"{path}: does not fit {purpose}: {len(missing)} of its {len(model.state_dict())} weights are missing"
            f"{examples[0]}, and {len(surplus)} are left over{examples[1]}; give weights of this model"
        )


def _without_prefix(found: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The weights whose names end like the model's, without what comes before; all of them if none needs that."""
    wanted = list(model.state_dict())
    if any(name in found for name in wanted):
        return dict(found)
    prefixes = {name.removesuffix(last) for name in found for last in wanted if name.endswith("." + last)}
    by_prefix = [{name.removeprefix(p): v for name, v in found.items() if name.startswith(p)} for p in sorted(prefixes)]
    return max(by_prefix, key=lambda weights: sum(name in weights for name in wanted), default=dict(found))
