"""A trained method by itself: rebuilt from a checkpoint, and used on the user's own photographs and texts."""

import logging
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal, NamedTuple, Self

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from torch import Tensor

from itmbench.checkpoint import read_checkpoint
from itmbench.data.pictures import read_picture, to_rgb
from itmbench.data.reading import is_unicode
from itmbench.encoders import Embeddings, Encoder, FeatureEncoder, TextEncoder
from itmbench.encoders.base import Inputs
from itmbench.encoders.embeddings import ImageEmbeddings, TextEmbeddings, require_embeddings
from itmbench.encoders.stored import as_stored
from itmbench.errors import InputError
from itmbench.options import IRRELEVANT, Recorded, build, differences, restoring

logger = logging.getLogger(__name__)

HYPER_PARAMETERS = "hyper_parameters"
"""Where Lightning looks in a checkpoint for the arguments of ``load_from_checkpoint``."""
TRAINED_ON = "trained_on"
"""Where a checkpoint names its dataset; older ones do not."""

Modality = Literal["image", "text"]
BLOCK = 1024
"""Images ranked at a time, as a large gallery may lie on disk, and texts checked at a time."""
SHOWN = 5
"""Texts that a warning names, at most."""


class Ranking(NamedTuple):
    """A gallery ranked for every query."""

    order: Tensor  # rows of the gallery, best first, int64 `[Q, N]`
    scores: Tensor  # float32 `[Q, N]`, in the same order

    def best(self, count: int) -> list[list[tuple[int, float]]]:
        """Row and score of the best items of the gallery for each query.

        Raises:
            InputError: the count is less than 1.
        """
        if count < 1:
            raise InputError(f"best: {count} items of the gallery; give 1 or more")
        pairs = zip(self.order[:, :count].tolist(), self.scores[:, :count].tolist(), strict=True)
        return [list(zip(*pair, strict=True)) for pair in pairs]


class Trained(Recorded, L.LightningModule):
    """What a `Matcher` offers once it is trained, without data and without a trainer.

    Checkpoints hold its options as plain values and are refused where these differ.
    """

    image: Encoder
    text: Encoder
    encode_image: Callable[[Inputs], Embeddings]
    encode_text: Callable[[Inputs], Embeddings]
    score: Callable[[Embeddings, Embeddings], Tensor]

    trained_on: str | None = None
    """The dataset of the checkpoint that its weights are from, where that says so."""
    switchable: ClassVar[frozenset[str]] = IRRELEVANT
    """Options that a trained model may be used with in another setting than it was trained with."""

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        """Make the layers that ``adapt`` would make, with the sizes of a checkpoint's ``state_dict``."""

    def encode_images(self, images: Sequence[Any], batch_size: int = 64) -> ImageEmbeddings:
        """Embeddings of photographs, or of ready-made features where the image encoder reads these.

        Args:
            images: paths, PIL images, or feature arrays `[D]` or `[T, D]`.
            batch_size: items encoded at once.

        Raises:
            InputError: there are none, or a file is missing or is not an image.
        """
        items = _items(images, self.image, _image_item, "encode_images")
        return ImageEmbeddings(**vars(self._encode_items(self.image, self.encode_image, items, batch_size)))

    def encode_texts(self, texts: Sequence[Any], batch_size: int = 64) -> TextEmbeddings:
        """Embeddings of strings, or of ready-made features where the text encoder reads these.

        Logs a warning if a string is longer than the encoder reads, or has words that it does not know.

        Args:
            texts: strings, or feature arrays `[D]` or `[T, D]`.
            batch_size: items encoded at once.

        Raises:
            InputError: there are none.
        """
        items = _items(texts, self.text, _text_item, "encode_texts")
        if isinstance(self.text, TextEncoder):
            self._warn_of_unread(self.text, items)
        return TextEmbeddings(**vars(self._encode_items(self.text, self.encode_text, items, batch_size)))

    @staticmethod
    def _warn_of_unread(encoder: TextEncoder, texts: Sequence[str]) -> None:
        parts = (texts[at : at + BLOCK] for at in range(0, len(texts), BLOCK))
        notes = [(text, note) for part in parts for text, note in zip(part, encoder.unread(part), strict=True) if note]
        for text, note in notes[:SHOWN]:
            logger.warning("%r: %s", textwrap.shorten(text, 60), note)
        if len(notes) > SHOWN:
            logger.warning("and %d more texts likewise", len(notes) - SHOWN)

    @torch.no_grad()
    def rank(self, queries: Embeddings, gallery: Embeddings) -> Ranking:
        """The gallery ranked for every query by the method's own score.

        Args:
            queries: of ``encode_images`` or ``encode_texts``.
            gallery: of the other of the two.

        Raises:
            InputError: not one of images and one of texts.
        """
        kinds = [isinstance(items, ImageEmbeddings) for items in (queries, gallery)]
        if kinds[0] == kinds[1] or not all(isinstance(x, ImageEmbeddings | TextEmbeddings) for x in (queries, gallery)):
            raise InputError("rank: give the result of encode_images and that of encode_texts, in either order")
        if queries.pooled.shape[1] != gallery.pooled.shape[1]:
            raise InputError("rank: embeddings of different widths; encode both with the same method")
        images, texts = (queries, gallery) if kinds[0] else (gallery, queries)
        texts = texts.to(self.device)
        blocks = (images[at : at + BLOCK].to(self.device) for at in range(0, len(images), BLOCK))
        scores = torch.cat([self.score(block, texts).float().cpu() for block in blocks])
        if not bool(scores.isfinite().all()):
            raise InputError("rank: a score is NaN or infinite; check the items and the checkpoint")
        ranked = (scores if kinds[0] else scores.T).sort(dim=1, descending=True, stable=True)
        return Ranking(ranked.indices, ranked.values)

    @torch.no_grad()
    def _encode_items(
        self, encoder: Encoder, encode: Callable[[Inputs], Embeddings], items: Sequence[Any], batch_size: int
    ) -> Embeddings:
        if not items:
            raise InputError(f"{type(self).__name__}: nothing to encode; give at least one item")
        if not batch_size >= 1:
            raise InputError(f"{type(self).__name__}: batch_size {batch_size}; give 1 or more")
        training = self.training
        self.eval()
        try:
            parts = (items[at : at + batch_size] for at in range(0, len(items), batch_size))
            encoded = (require_embeddings(encode(self._inputs(encoder, part)), self) for part in parts)
            return Embeddings.cat([part.to("cpu") for part in encoded])
        finally:
            self.train(training)

    @torch.no_grad()
    def inputs_of(self, modality: Modality, items: Sequence[Any]) -> Inputs:
        """A batch of photographs, texts or features, given as to ``encode_images`` and ``encode_texts``, for encoders.

        Raises:
            InputError: a file is missing or is not an image.
        """
        if modality == "image":
            return self._inputs(self.image, _items(items, self.image, _image_item, "encode_images"))
        return self._inputs(self.text, _items(items, self.text, _text_item, "encode_texts"))

    def _inputs(self, encoder: Encoder, items: Sequence[Any]) -> Inputs:
        inputs: Inputs = move_data_to_device(encoder.processor()(items, False), self.device)
        if encoder.freeze and encoder.pretraining != "scratch":  # a run reads its output from disk
            return as_stored(encoder.embed(inputs))
        return inputs

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: str | torch.device = "cpu", weights_only: bool = True
    ) -> Self:
        """The method that a checkpoint describes, with its weights; code in the file is never run.

        An encoder of transformers is built from its ``name`` again, so that its folder or hub cache must be there.

        Args:
            checkpoint_path: of ``itmbench fit`` or of a cell.
            map_location: device of the method.
            weights_only: always true; accepted because Lightning has it.

        Raises:
            InputError: it is not a checkpoint, does not say how it was built, or is of another class than this one and
                its subclasses.
        """
        content = read_checkpoint(checkpoint_path)
        if not content.get(HYPER_PARAMETERS):
            raise InputError(
                f"{checkpoint_path}: does not say how its method was built (an earlier version wrote it, or an option "
                "has no plain form); use it with its config and `itmbench test`"
            )
        with restoring():
            model = build(content[HYPER_PARAMETERS])
        if not isinstance(model, cls):
            raise InputError(
                f"{checkpoint_path}: holds a {type(model).__name__}, not a {cls.__name__}; use itmbench.load"
            )
        return model.restored(content).to(map_location)

    def restored(self, checkpoint: dict[str, Any]) -> Self:
        """This method with the weights of a checkpoint that has been read; errors as ``on_load_checkpoint``."""
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"])
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class and options as plain values, from which `itmbench.load` and ``load_from_checkpoint`` rebuild it."""
        try:
            checkpoint[HYPER_PARAMETERS] = self.options
        except InputError as error:  # an argument of a foreign class
            warnings.warn(f"the checkpoint cannot be loaded by itself, only with its config: {error}", stacklevel=2)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were trained with other options, and make room for them.

        Raises:
            InputError: the options differ; names them.
        """
        trained = checkpoint.get(HYPER_PARAMETERS)
        if trained and (wrong := differences(trained, self.options, self.switchable)):
            raise InputError(
                f"{type(self).__name__}: the checkpoint was trained with {'; '.join(wrong[:5])}; "
                "use it with its own options"
            )
        self.adapt_to_state(checkpoint["state_dict"])
        self.trained_on = checkpoint.get(TRAINED_ON)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights.

        Raises:
            InputError: the shapes differ (other options, or data with other labels or features), or weights are not
                numbers.
        """
        weights = {name for name, _ in self.named_parameters()}
        given = {name: state_dict[name] for name in weights & {*state_dict}}
        if whole := [name for name, weight in given.items() if not weight.is_floating_point()]:
            raise InputError(
                f"{type(self).__name__}: {len(whole)} weights of the checkpoint are {given[min(whole)].dtype} "
                f"({min(whole)}), not floating-point numbers; use a checkpoint of `itmbench fit`"
            )
        if wrong := [name for name, weight in given.items() if not bool(weight.isfinite().all())]:
            raise InputError(
                f"{type(self).__name__}: {len(wrong)} weights of the checkpoint hold NaN or infinite numbers "
                f"({min(wrong)}); its training has diverged, so use an earlier one"
            )
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            wrong = [line.strip() for line in str(error).splitlines()[1:]]
            raise InputError(
                f"{type(self).__name__}: the checkpoint does not fit ({textwrap.shorten('; '.join(wrong), 300)}); give "
                "the options that it was trained with, and data with as many labels and features"
            ) from error


def _items(given: Sequence[Any], encoder: Encoder, item: Callable[[Any], Any], name: str) -> list[Any]:
    """The caller's items as the encoder reads them: features, or ``item`` of each."""
    if isinstance(given, str | bytes | PurePath | Image.Image | Mapping) or not hasattr(given, "__iter__"):
        own = "paths or PIL images" if name == "encode_images" else "strings"
        what = "feature arrays" if isinstance(encoder, FeatureEncoder) else own
        raise InputError(f"{name}: give a list of {what}, not one {type(given).__name__}")
    if isinstance(encoder, FeatureEncoder):
        return _feature_items(given, encoder.feature_width, name)
    return [item(value) for value in given]


def _image_item(item: Any) -> Any:
    if isinstance(item, str | PurePath):
        return read_picture(Path(item))
    if isinstance(item, Image.Image):
        try:
            return to_rgb(item)
        except InputError as error:
            raise InputError(f"encode_images: a PIL image has {error}") from None
    kind = type(item).__name__
    raise InputError(f"encode_images: this method reads photographs; give paths or PIL images, not {kind}")


def _text_item(item: Any) -> Any:
    if isinstance(item, str):
        if not is_unicode(item):
            raise InputError(f"encode_texts: {item!r}: holds half of a surrogate pair; correct its encoding")
        return item
    raise InputError(f"encode_texts: this method reads words; give strings, not {type(item).__name__}")


def _feature_items(items: Sequence[Any], width: int | None, name: str) -> list[Any]:
    """Feature arrays as a corpus gives them, without masks."""
    arrays = []
    for number, item in enumerate(items):
        array = item.detach().cpu().numpy() if isinstance(item, Tensor) else item
        if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "buif":
            raise InputError(f"{name}: this method reads ready-made features; give arrays [D] or [T, D] of numbers")
        if width not in (None, array.shape[-1]) or array.shape != np.shape(items[0]):
            raise InputError(f"{name}: item {number} has shape {list(array.shape)}; all need one shape, {width} wide")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: item {number} holds NaN or infinite numbers")
        arrays.append((array.astype(np.float32), None))
    return arrays
