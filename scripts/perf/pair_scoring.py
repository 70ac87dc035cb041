"""How fast pairs are scored by their tokens, as ratios within one run.

    python scripts/perf/pair_scoring.py [--repeats 3]
        [--images 64] [--texts 512] [--regions 36] [--words 12] [--dim 1024]

The yardstick is the two bare matrix products that form every word's context in every image, words by regions and
weights by regions, caption by caption as published code does it; image by image they are faster, and are shown as
well. Methods score a tile on each core, as evaluation does. "Published loop" is the scoring of SCAN as its authors
wrote it down: caption by caption, all images at once, contexts formed; written again here.
"""

import argparse
from dataclasses import replace

import torch
from timing import best_of
from torch import Tensor
from torch.nn.functional import cosine_similarity, leaky_relu, normalize

from itmbench.encoders import Embeddings
from itmbench.evaluation.parallel import tile_map
from itmbench.methods.scan import SCAN
from itmbench.methods.sedra.module import SEDRA
from itmbench.methods.token_matcher import TokenMatcher


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    clustered = concepts(options)
    pairs = options.images * options.texts
    rows = []
    with torch.no_grad():
        scan, sedra = SCAN(dim=options.dim).eval(), SEDRA(dim=options.dim).eval()
        a_few = [part[: min(8, len(part))] for part in clustered]
        torch.testing.assert_close(scan.score(*a_few), published_scan(*a_few), rtol=0, atol=1e-5)
        times = best_of(
            options.repeats,
            lambda: bare_by_caption(*clustered),
            lambda: bare_by_image(*clustered),
            lambda: published_scan(*clustered),
            lambda: on_all_cores(scan, *clustered),
            lambda: on_all_cores(sedra, *for_sedra(*clustered)),
        )
    names = ("bare, by caption", "bare, by image", "SCAN, published loop", "SCAN", "SEDRA")
    goals = ("", "", "", "at least 2.5", "at least 1.5")
    for name, seconds, goal in zip(names, times, goals, strict=True):
        rows.append((name, f"{pairs / seconds:,.0f} pairs/s", f"{times[0] / seconds:.2f} x", goal))
    print(
        f"{options.images} images x {options.texts} texts, {options.regions} regions, {options.words} words, "
        f"D = {options.dim}, {torch.get_num_threads()} threads"
    )
    for row in rows:
        print("{:<22} {:>18} {:>8}  {}".format(*row))
    print(f"in training SEDRA keeps {kept_bytes():.0f} bytes for each relation of a block")


def kept_bytes() -> float:
    """Memory that the score of a block keeps for the gradients, over its relations."""
    images, texts = unit(16, 49, 64), unit(16, 24, 64)
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for items in (images, texts):
        assert items.tokens is not None
        items.tokens.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        SEDRA(dim=64).score(*for_sedra(images, texts))
    return sum(sizes.values()) / (16 * 49 * 16 * 24)


def bare_by_caption(images: Embeddings, texts: Embeddings) -> None:
    """Words by regions, then the result, as if it were weights, by regions."""
    assert images.tokens is not None and texts.tokens is not None
    for words in texts.tokens:
        (images.tokens @ words.T).transpose(1, 2) @ images.tokens


def bare_by_image(images: Embeddings, texts: Embeddings) -> None:
    """The same in the other order."""
    assert images.tokens is not None and texts.tokens is not None
    words = texts.tokens.flatten(0, 1)
    for regions in images.tokens:
        (words @ regions.T) @ regions


def on_all_cores(method: TokenMatcher, images: Embeddings, texts: Embeddings) -> None:
    """All scores, the texts divided among the cores."""
    step = -(-len(texts) // torch.get_num_threads())
    parts = [texts[at : at + step] for at in range(0, len(texts), step)]
    list(tile_map(lambda part: method.score(images, part), parts, images.pooled.device))


def for_sedra(images: Embeddings, texts: Embeddings) -> tuple[Embeddings, Embeddings]:
    """The same tokens with what SEDRA keeps beside them: a column of zeros, and the share of each word."""
    assert images.tokens is not None and texts.tokens is not None
    rows = [
        torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), share)], dim=2)
        for tokens, share in ((images.tokens, 0.0), (texts.tokens, 1 / texts.tokens.shape[1]))
    ]
    return replace(images, tokens=rows[0]), replace(texts, tokens=rows[1])


def published_scan(images: Embeddings, texts: Embeddings) -> Tensor:
    """SCAN t2i with mean aggregation (Lee et al. 2018, eqs. 1-5), caption by caption."""
    assert images.tokens is not None and texts.tokens is not None
    scores = []
    for words in texts.tokens:
        query = words.expand(len(images), -1, -1)
        attention = leaky_relu(images.tokens @ query.transpose(1, 2), 0.1)
        attention = attention / (attention.square().sum(2, keepdim=True).sqrt() + 1e-8)
        weights = (9 * attention.transpose(1, 2)).softmax(2)
        scores.append(cosine_similarity(query, weights @ images.tokens, dim=2).mean(1))
    return torch.stack(scores, dim=1)


def concepts(options: argparse.Namespace) -> tuple[Embeddings, Embeddings]:
    """Tokens near one of 40 directions each: a word is related to few regions of an image, or to none."""
    centres = normalize(torch.randn(40, options.dim), dim=1)

    def near(count: int, tokens: int) -> Embeddings:
        kind = torch.randint(40, (count, tokens))
        noise = torch.randn(count, tokens, options.dim) / options.dim**0.5
        return embeddings(normalize(centres[kind] + noise - centres.mean(0), dim=2))

    return near(options.images, options.regions), near(options.texts, options.words)


def unit(count: int, tokens: int, dim: int) -> Embeddings:
    return embeddings(normalize(torch.randn(count, tokens, dim), dim=2))


def embeddings(tokens: Tensor) -> Embeddings:
    return Embeddings(normalize(tokens.mean(1), dim=1), tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"repeats": 3, "images": 64, "texts": 512, "regions": 36, "words": 12, "dim": 1024}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
