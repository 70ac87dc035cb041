"""An epoch of training on frozen ViT-B/16 and BERT-base: from what is on disk, and encoding every batch anew.

    python scripts/perf/frozen_backbone.py [--images 64] [--batch-size 32] [--repeats 3] [--dim 512]

Weights, photographs (500 x 375 pixels, JPEG) and captions (a dozen words) are random. Both ways load, encode, score,
and take a step of the optimiser; times are those of a whole epoch, the fastest of ``--repeats`` where it is short.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator

import lightning as L
import numpy as np
import torch
from random_photographs import RandomPhotographs
from timing import best_of, clock

from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule, Sources
from itmbench.encoders import Encoder, ScratchTextEncoder, TimmImageEncoder
from itmbench.encoders.stored import StoredProcessor, encode_corpus
from itmbench.methods.base import Matcher
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.sedra.module import SEDRA


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ITMBENCH_CACHE"] = folder
        data = RandomPhotographs(folder, options.images, batch_size=options.batch_size)
        image, text = encoders(data.corpus)
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        raw, stored = (
            [method(image=image, text=text, dim=options.dim) for method in (DualEncoder, SEDRA)] for _ in range(2)
        )
        for model in (*raw, *stored):
            model.trainer = trainer
        data.attach(Sources(data.corpus, image.processor(), text.processor()))
        without = [next(epochs(model, data)) for model in raw]
        start = clock()
        rows = np.arange(len(data.corpus.image_ids)), np.arange(len(data.corpus.text_ids))
        data.attach(Sources(encode_corpus(data.corpus, (image, text), rows), StoredProcessor(), StoredProcessor()))
        loops = [epochs(model, data) for model in stored]
        for loop in loops:
            next(loop)
        print(f"{options.images} pairs in batches of {options.batch_size}, {torch.get_num_threads()} threads")
        print(f"encoding once, and a first epoch of both methods: {clock() - start:.1f} s")
        fast = best_of(options.repeats, *(lambda loop=loop: next(loop) for loop in loops))
        for model, slow, quick in zip(raw, without, fast, strict=True):
            print(
                f"{type(model).__name__:<12} an epoch encoding anew {slow:.1f} s, from the disk {quick:.2f} s: "
                f"{slow / quick:.0f} times as fast; at least 20"
            )


def encoders(corpus: Corpus) -> tuple[Encoder, Encoder]:
    """Frozen encoders of the base size that count as pretrained."""
    image = TimmImageEncoder("vit_base_patch16_224", image_size=224, freeze=True)
    text = ScratchTextEncoder(width=768, depth=12, heads=12, vocab_size=30_522)
    text.fit(corpus.texts, corpus.train)
    text.freeze = True
    text.freeze_if_asked()
    image.pretraining = text.pretraining = "unimodal"
    return image, text


def epochs(model: Matcher, data: CorpusDataModule) -> Iterator[float]:
    """Seconds of each epoch of training."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    loader = data.train_dataloader()
    while True:
        start = clock()
        for batch in loader:
            loss = model.training_loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield clock() - start


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"images": 64, "batch-size": 32, "repeats": 3, "dim": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
