"""What attaching a test item to the bank costs beside encoding it, at the size of ViT-B/16 and BERT-base.

    python scripts/perf/anchor_encoding.py [--items 4] [--words 16] [--bank-size 16384] [--repeats 3]

Floating-point operations are counted with torch's FlopCounterMode, which knows products of matrices and nothing else:
the search for the largest cosines shows in the seconds alone, which of a few texts are mostly fixed costs. Weights are
random; the bank is full, and near the items, so that these have as many edges as k allows.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from timing import best_of
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from itmbench.encoders import Embeddings, ScratchTextEncoder, TimmImageEncoder
from itmbench.encoders.base import Inputs
from itmbench.methods.mcr_dgn.module import MCRDGN, Inference


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    model = MCRDGN(
        image=TimmImageEncoder("vit_base_patch16_224", image_size=224),
        text=ScratchTextEncoder(width=768, depth=12, heads=12, vocab_size=30_522),
        bank_size=options.bank_size,
    ).eval()
    pixels = torch.randint(0, 256, (options.items, 3, 224, 224), dtype=torch.uint8)
    words = torch.randint(0, 30_522, (options.items, options.words))
    batches = {
        "image": {"pixels": pixels},
        "text": {"input_ids": words, "attention_mask": torch.ones_like(words)},
    }
    with torch.no_grad():
        fill(model, batches)
        print(f"{len(model.bank)} pairs in the bank, {options.items} items, {torch.get_num_threads()} threads")
        for modality, inputs in batches.items():
            calls = [partial(encoded, model, inference, modality, inputs) for inference in ("encoder", "anchor")]
            flops = [counted(call) / options.items for call in calls]
            seconds = best_of(options.repeats, *calls)
            share, timed = flops[0] / flops[1], seconds[0] / seconds[1]
            print(
                f"{modality:<5} plain {flops[0] / 1e9:.2f} GFLOP, with anchors {flops[1] / 1e9:.2f}: "
                f"{share:.1%} of the plain encoder's throughput by FLOPs, {timed:.1%} by the clock; at least 80 %"
            )


def encoded(model: MCRDGN, inference: Inference, modality: str, inputs: Inputs) -> Embeddings:
    model.inference = inference
    return model.encode_image(inputs) if modality == "image" else model.encode_text(inputs)


def counted(call: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def fill(model: MCRDGN, batches: dict[str, Inputs]) -> None:
    """A full bank of nodes around those of the items."""
    image, _ = model.item_nodes["image"](model.image(batches["image"]))
    text, _ = model.item_nodes["text"](model.text(batches["text"]))
    pairs = len(model.bank.item)
    model.bank.fill(torch.arange(pairs), around(image, pairs), around(text, pairs))
    model.bank.context(model.k, model.blocks)  # its own neighbours are found once, not for every batch


def around(nodes: Tensor, count: int) -> Tensor:
    """Nodes `[count, R, D]` near the given ones `[B, R, D]`."""
    chosen = nodes[torch.arange(count) % len(nodes)]
    return normalize(chosen + 0.5 * torch.randn_like(chosen) / chosen.shape[2] ** 0.5, dim=2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"items": 4, "words": 16, "bank-size": 16384, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
