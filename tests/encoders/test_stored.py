"""What a frozen encoder gives is computed once, kept on disk, and the same as if it were computed each time."""

import errno
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pretrained import minilm
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from itmbench.data.corpus import Features, ImageFiles, Strings
from itmbench.encoders import Encoder, PretrainedTextEncoder, TimmImageEncoder, base, entries
from itmbench.encoders import stored as frozen
from itmbench.encoders.base import tensor_digest
from itmbench.encoders.stored import StoredProcessor
from itmbench.errors import InputError, is_full
from itmbench.options import IRRELEVANT

TINY = {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
TEXTS = [
    "a dog runs on the beach",
    "two children",
    "a dog sleeps",
    "children run and run and run",
    "café",
    "two children",
]
ALL = np.arange(8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> ImageFiles:
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in ALL:
        picture = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / f"{number}.png")
    names = [f"{number}.png" for number in ALL]
    return ImageFiles(
        tmp_path / "images", names, np.array([(tmp_path / "images" / name).stat().st_size for name in names])
    )


def vision(tmp_path: Path, seed: int = 0, **options: Any) -> TimmImageEncoder:
    torch.manual_seed(seed)
    path = tmp_path / f"vit{seed}.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", img_size=48, num_classes=0, **TINY).state_dict(), path)
    return TimmImageEncoder(checkpoint=str(path), model_args=TINY, freeze=True, **{"image_size": 48, **options})


class Counted:
    """Counts the items that an encoder embeds."""

    def __init__(self, encoder: Encoder) -> None:
        self.items, self.embed = 0, encoder.embed
        encoder.embed = self  # type: ignore[method-assign]

    def __call__(self, inputs: Any) -> Any:
        self.items += len(next(iter(inputs.values())))
        return self.embed(inputs)


def encode(encoder: Encoder, source: Any, rows: Any) -> Any:
    items = frozen.encode_once(encoder, source, np.asarray(rows))
    return encoder(StoredProcessor()(items.select(np.asarray(rows)), True))


def test_pooled_vectors_come_without_tokens(tmp_path: Path, images: ImageFiles) -> None:
    encoder = vision(tmp_path)
    items = frozen.encode_once(encoder, images, ALL)
    some = items.select(np.array([3, 1]))
    batch = frozen.processor_of(encoder, items, tokens=False)(some, True)
    assert list(batch) == ["pooled"]
    assert encoder(batch).tokens is None
    assert torch.equal(encoder(batch).pooled, encoder(frozen.processor_of(encoder, items)(some, True)).pooled)


def test_feature_dropout_acts_in_training_only_frozen_or_not(tmp_path: Path, images: ImageFiles) -> None:
    plain, dropping = vision(tmp_path), vision(tmp_path, feature_dropout=0.5)
    assert "feature_dropout" in IRRELEVANT
    items = frozen.encode_once(dropping, images, ALL)
    inputs = {
        "stored": StoredProcessor()(items.select(ALL), True),
        "encoded": dropping.processor()([images[int(row)] for row in ALL], False),
    }
    for batch in inputs.values():
        expected = plain(batch)
        torch.manual_seed(0)
        found = dropping.train()(batch)
        for part, whole in ((found.pooled, expected.pooled), (found.tokens, expected.tokens)):
            kept = part != 0
            assert 0.3 < float(kept.float().mean()) < 0.7
            torch.testing.assert_close(part[kept], 2 * whole[kept])
        torch.testing.assert_close(dropping.eval()(batch).pooled, expected.pooled)
        frozen_model: Any = dropping.train().model
        assert not any(layer.training for layer in frozen_model.modules())
    with pytest.raises(InputError, match="feature_dropout is 1"):
        vision(tmp_path, feature_dropout=1.0)


@pytest.mark.parametrize("shape", [(3, 7), (5, 37, 211)])
def test_dropout_draws_one_double_for_each_number(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, requires_grad=True)
    torch.manual_seed(0)
    kept = torch.rand(shape, dtype=torch.float64) < 0.7
    after = torch.get_rng_state()
    torch.manual_seed(0)
    dropped = base.drop(values, 0.3)
    assert torch.equal(dropped, values * (kept.float() / 0.7)) and torch.equal(torch.get_rng_state(), after)
    dropped.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, kept.float() / 0.7)


def shards(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "cache" / "frozen").rglob("names.npy"))


def test_images_are_what_the_encoder_gives_without_a_crop(tmp_path: Path, images: ImageFiles) -> None:
    encoder = vision(tmp_path, train_crop=0.5)
    found = encode(encoder, images, [5, 2])
    expected = encoder(encoder.processor()([images[5], images[2]], False))
    torch.testing.assert_close(found.pooled, expected.pooled, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=2e-3, rtol=1e-3)
    assert torch.equal(found.mask, expected.mask) and found.pooled.dtype == torch.float32


def test_texts_of_any_length_keep_their_mask() -> None:
    encoder = PretrainedTextEncoder(minilm(), freeze=True)
    found = encode(encoder, Strings(TEXTS), [3, 1, 4])
    expected = encoder(encoder.processor()([TEXTS[3], TEXTS[1], TEXTS[4]], False))
    assert torch.equal(found.mask, expected.mask) and 1 < int(found.mask[1].sum()) < found.mask.shape[1]
    torch.testing.assert_close(found.pooled, expected.pooled, atol=2e-3, rtol=1e-3)
    real = found.mask
    torch.testing.assert_close(found.tokens[real], expected.tokens[real], atol=4e-3, rtol=1e-3)
    assert not found.tokens[~real].any()
    assert torch.equal(found.words, expected.words)


def test_words_are_rows_of_the_vocabulary_and_marks_are_none() -> None:
    encoder = PretrainedTextEncoder(minilm(), freeze=True)
    found = encode(encoder, Strings(TEXTS), [2, 3])
    for row, text in enumerate((TEXTS[2], TEXTS[3])):
        words = found.words[row][found.words[row] >= 0].tolist()
        assert encoder.tokenizer.convert_ids_to_tokens(words) == text.split()
        assert found.words[row, 0] == -1 and found.mask[row, 0]  # [CLS]
    assert encoder.word_embedding.num_embeddings > int(found.words.max())
    masked = encoder.words(encoder.processor()(["[MASK] dog"], False))
    assert masked[0].tolist().count(-1) == 3


def test_centred_items_have_the_mean_of_the_training_items_taken_away(tmp_path: Path, images: ImageFiles) -> None:
    plain, centred = vision(tmp_path), vision(tmp_path, centre=True)
    train = np.array([0, 2, 5])
    frozen.centre(centred, frozen.encode_once(centred, images, ALL), train)
    assert centred.weights_digest() == plain.weights_digest()  # what is stored does not depend on it
    before, after = (encode(encoder, images, ALL) for encoder in (plain, centred))
    torch.testing.assert_close(after.pooled, before.pooled - before.pooled[train].mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.tokens, before.tokens - before.tokens[train].mean((0, 1)), atol=1e-4, rtol=0)
    alone = centred(centred.processor()([images[int(row)] for row in ALL], False))
    torch.testing.assert_close(alone.pooled, after.pooled, atol=4e-3, rtol=1e-3)
    restored = vision(tmp_path, centre=True)
    restored.load_state_dict(centred.state_dict())
    assert torch.equal(encode(restored, images, [1]).pooled, encode(centred, images, [1]).pooled)
    with pytest.raises(InputError, match="centre is for frozen encoders"):
        TimmImageEncoder(centre=True)


def test_every_item_is_encoded_once(tmp_path: Path, images: ImageFiles) -> None:
    first = vision(tmp_path)
    counted = Counted(first)
    whole = encode(first, images, [0, 1, 2, 3, 4])
    assert counted.items == 5 + 1  # and one to count its operations
    again = vision(tmp_path)
    counted = Counted(again)
    torch.testing.assert_close(encode(again, images, [3, 1]).tokens, whole.tokens[[3, 1]], atol=0, rtol=0)
    assert counted.items == 0
    encode(again, images, [4, 5])
    assert counted.items == 1 + 1
    moved = ImageFiles(images.root, [images.names[row] for row in ALL[::-1]], images.sizes[::-1])
    torch.testing.assert_close(encode(again, moved, [7, 6]).pooled, whole.pooled[:2], atol=0, rtol=0)
    assert counted.items == 2


SPOILT: dict[str, Callable[[Path], Any]] = {
    "names cut short": lambda shard: os.truncate(shard / "names.npy", 40),
    "no names": lambda shard: (shard / "names.npy").unlink(),
    "vectors cut short": lambda shard: os.truncate(shard / "pooled.npy", 200),
    "a row too few": lambda shard: np.save(shard / "pooled.npy", np.load(shard / "pooled.npy")[1:]),
    "tokens of bytes": lambda shard: (shard / "tokens.npy").write_bytes(bytes(range(256))),
    "tokens of another type": lambda shard: np.save(shard / "tokens.npy", np.load(shard / "tokens.npy").astype(int)),
    "ends that go back": lambda shard: np.save(shard / "ends.npy", np.load(shard / "ends.npy")[::-1]),
    "ends beyond the tokens": lambda shard: np.save(shard / "ends.npy", np.load(shard / "ends.npy") + 9),
    "ends that are texts": lambda shard: np.save(shard / "ends.npy", np.load(shard / "ends.npy").astype(str)),
    "a pickle": lambda shard: np.save(shard / "names.npy", np.array([{}], dtype=object), allow_pickle=True),
    "no cost": lambda shard: (shard / "cost.json").write_text("5"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_damaged_shard_is_encoded_again(case: str, tmp_path: Path, images: ImageFiles) -> None:
    whole = encode(vision(tmp_path), images, ALL)
    (shard,) = (tmp_path / "cache" / "frozen").glob("*/[!.]*/")
    SPOILT[case](shard)
    again = vision(tmp_path)
    counted = Counted(again)
    torch.testing.assert_close(encode(again, images, ALL).tokens, whole.tokens, atol=0, rtol=0)
    assert counted.items == len(ALL) + 1 and not shard.exists()


def test_equal_texts_are_stored_once() -> None:
    encoder = PretrainedTextEncoder(minilm(), freeze=True)
    counted = Counted(encoder)
    found = encode(encoder, Strings(TEXTS), range(6))
    assert counted.items == 5 + 1 and torch.equal(found.pooled[1], found.pooled[5])


def test_a_batch_is_its_items_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BATCH", 2)
    monkeypatch.setattr(entries, "SHARD", 1)
    items = frozen.encode_once(PretrainedTextEncoder(minilm(), freeze=True), Strings(TEXTS), np.arange(6))
    assert len(items.shards) == 3
    rows = np.array([3, 1, 1, 4, 0])
    batch = StoredProcessor()(items.select(rows), True)
    assert batch["tokens"].dtype == batch["pooled"].dtype == torch.float16
    for at, row in enumerate(rows):
        alone = StoredProcessor()(items.select(np.array([row])), True)
        length = alone["tokens"].shape[1]
        assert torch.equal(batch["tokens"][at, :length], alone["tokens"][0]) and not batch["tokens"][at, length:].any()
        assert batch["mask"][at].tolist() == [place < length for place in range(batch["mask"].shape[1])]
        assert torch.equal(batch["pooled"][at], alone["pooled"][0])


@pytest.mark.parametrize("options", [{"seed": 1}, {"image_size": 32}])
def test_another_encoder_has_items_of_its_own(tmp_path: Path, images: ImageFiles, options: dict[str, int]) -> None:
    encode(vision(tmp_path), images, [0])
    other = vision(tmp_path, **options)
    counted = Counted(other)
    encode(other, images, [0])
    assert counted.items == 2 and len({path.parent for path in shards(tmp_path)}) == 2


def test_another_number_of_heads_with_the_same_weights_is_another_encoder(tmp_path: Path, images: ImageFiles) -> None:
    encoder = vision(tmp_path)
    other = TimmImageEncoder(
        checkpoint=str(tmp_path / "vit0.safetensors"), image_size=48, model_args=TINY | {"num_heads": 4}, freeze=True
    )
    assert encoder.weights_digest() == other.weights_digest()
    assert not torch.allclose(encode(encoder, images, [0]).pooled, encode(other, images, [0]).pooled, atol=1e-3)


def test_weights_are_hashed_again_only_after_they_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, other = vision(tmp_path), vision(tmp_path, seed=1)
    first = encoder.weights_digest()
    hashed: list[Tensor] = []

    def counted(value: Tensor) -> str:
        hashed.append(value)
        return tensor_digest(value)

    monkeypatch.setattr(base, "tensor_digest", counted)
    assert encoder.weights_digest() == first and not hashed
    encoder.load_state_dict(other.state_dict())
    assert encoder.weights_digest() == other.weights_digest() != first and hashed
    assert encoder.half().weights_digest() != other.weights_digest()


def test_goes_on_where_it_was_interrupted(tmp_path: Path, images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BATCH", 2)
    monkeypatch.setattr(entries, "SHARD", 1)
    encoder = vision(tmp_path)
    whole, embed = Counted(encoder), encoder.embed

    def interrupted(inputs: Any) -> Any:
        if whole.items >= 5:
            raise KeyboardInterrupt
        return embed(inputs)

    encoder.embed = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, images, range(8))
    assert len(shards(tmp_path)) == 2
    encoder.embed, whole.items = whole, 0  # type: ignore[method-assign]
    found = encode(encoder, images, range(8))
    assert whole.items == 4 + 1 and len(shards(tmp_path)) == 4
    expected = encoder(encoder.processor()([images[row] for row in range(8)], False)).pooled
    torch.testing.assert_close(found.pooled, expected, atol=2e-3, rtol=1e-3)
    assert not list((tmp_path / "cache" / "frozen").rglob(".writing-*"))


def test_says_how_far_it_is(
    tmp_path: Path, images: ImageFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(entries, "BATCH", 4)
    monkeypatch.setattr(entries, "REPORT_EVERY", 0.0)
    encode(vision(tmp_path), images, range(8))
    printed = caplog.text
    assert (
        "encoding 8 images once with the frozen TimmImageEncoder" in printed
        and "images: 4 of 8 (50%), about" in printed
    )


def test_too_little_room_is_one_line(tmp_path: Path, images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = entries.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda path: usage._replace(free=8 * 9 * 32 * 2 - 1))
    with pytest.raises(OSError, match="set ITMBENCH_CACHE to a folder with more room") as error:
        encode(vision(tmp_path), images, range(8))
    assert is_full(error.value) and "\n" not in str(error.value) and not shards(tmp_path)
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda path: usage._replace(free=8 * 9 * 32 * 2))
    encode(vision(tmp_path), images, range(8))


def test_a_full_disk_is_no_wrong_input(tmp_path: Path, images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(entries.np, "save", full)
    with pytest.raises(OSError, match="No space left") as error:
        encode(vision(tmp_path), images, range(8))
    assert is_full(error.value)


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, images: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written"):
        encode(vision(tmp_path), images, [0])


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, images: ImageFiles) -> None:
    encoder = vision(tmp_path)
    with torch.no_grad():
        encoder.model.norm.weight.fill_(1e6)
    with pytest.raises(InputError, match="above 65,504"):
        encode(encoder, images, [0])
    assert not shards(tmp_path)


def test_what_is_not_frozen_or_not_pretrained_or_ready_made_is_not_stored(tmp_path: Path, images: ImageFiles) -> None:
    free = vision(tmp_path)
    free.freeze = False
    random = TimmImageEncoder(image_size=48, model_args=TINY, freeze=True)
    features = Features(np.zeros((3, 4), np.float32))
    cases: list[tuple[Encoder, Any]] = [(free, images), (random, images), (vision(tmp_path), features)]
    for encoder, source in cases:
        assert not frozen.is_encoded_once(encoder, source)
        assert type(frozen.processor_of(encoder, source)) is type(encoder.processor())


def test_travels_to_other_processes(tmp_path: Path, images: ImageFiles) -> None:
    items = frozen.encode_once(vision(tmp_path), images, ALL)
    copies = pickle.loads(pickle.dumps(items)).select(ALL[3:])
    for item, copy in zip(items.select(ALL[3:]), copies, strict=True):
        np.testing.assert_array_equal(item.tokens, copy.tokens)
    assert len(pickle.dumps(items)) < 5000
    part = frozen.encode_once(vision(tmp_path), images, np.array([3]))
    with pytest.raises(IndexError, match="row 2"):
        part.select(np.array([3, 2]))


def _prepare(tmp_path: Path, images: ImageFiles) -> None:
    vision_of = TimmImageEncoder(
        checkpoint=str(tmp_path / "vit0.safetensors"), image_size=48, model_args=TINY, freeze=True
    )
    frozen.encode_once(vision_of, images, ALL)


def test_of_two_processes_one_encodes(tmp_path: Path, images: ImageFiles) -> None:
    vision(tmp_path)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_prepare, args=(tmp_path, images)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert sum(len(np.load(path / "names.npy")) for path in shards(tmp_path)) == 8


def test_tells_what_an_item_cost(tmp_path: Path, images: ImageFiles) -> None:
    items = frozen.encode_once(vision(tmp_path), images, ALL)
    tokens, width = 10, 32  # nine patches and a class token
    linear = 2 * tokens * width * width * (4 + 8) + 2 * 9 * 3 * 16 * 16 * width
    assert linear <= items.cost["flops"] <= 1.5 * linear
    assert 0 < items.cost["seconds"] < 5


def test_nothing_is_forked_beside_gloo(tmp_path: Path, images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def watched(*arguments: Any, **options: Any) -> DataLoader[Any]:
        started.append(options["num_workers"])
        return DataLoader(*arguments, **options | {"num_workers": 0})

    monkeypatch.setattr(entries, "DataLoader", watched)
    monkeypatch.setattr(entries, "loaders", lambda: 3)
    frozen.encode_once(vision(tmp_path), images, ALL[:2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        frozen.encode_once(vision(tmp_path), images, ALL)
    finally:
        torch.distributed.destroy_process_group()
    assert started == [3, 0]
