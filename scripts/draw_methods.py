"""The figures of the methods' pages: ``python scripts/draw_methods.py [FOLDER]``, by default docs/images/methods.

Blue is the image's side, orange the text's, green what belongs to a pair, yellow labels; violet and dashed is training.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from draw_systems import WIDTH, mcr_dgn, sedra
from sketch import Node, Sketch

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "methods"
UP, DOWN = 20.0, 7.5
"""Heights of the image's and the text's lane."""
Pair = tuple[Node, Node]
ATTENTION = ((0.9, 0.1, 0.2, 0.05), (0.1, 0.2, 0.9, 0.3), (0.1, 0.8, 0.1, 0.5), (0.3, 0.1, 0.1, 0.9))
"""How much each of four words attends to each of four regions, in the figures."""


def towers(sketch: Sketch, image: str = "image\nencoder", text: str = "text\nencoder", shift: float = 0) -> Pair:
    """Inputs and encoders of both sides."""
    ends = []
    for y, kind, name, start in (
        (UP + shift, "image", image, sketch.picture(5.5, UP + shift)),
        (DOWN + shift, "text", text, sketch.sentence(5.5, DOWN + shift)),
    ):
        encoder = sketch.box(17, y, name, kind, w=9.5)
        sketch.arrow(start, encoder)
        ends.append(encoder)
    return ends[0], ends[1]


def each(sketch: Sketch, before: Pair, x: float, text: str, w: float = 0) -> Pair:
    """The same step on both sides."""
    steps = []
    for node, y, kind in zip(before, (before[0].y, before[1].y), ("image", "text"), strict=True):
        steps.append(sketch.box(x, y, text, kind, w=w))
        sketch.arrow(node, steps[-1])
    return steps[0], steps[1]


def tokens(sketch: Sketch, before: Pair, x: float, names: tuple[str, str] = ("regions", "words")) -> Pair:
    columns = []
    for node, kind, name in zip(before, ("image", "text"), names, strict=True):
        columns.append(sketch.tokens(x, node.y, kind, label=name))
        sketch.arrow(node, columns[-1])
    return columns[0], columns[1]


def vectors(sketch: Sketch, before: Pair, x: float, label: str = "vector") -> Pair:
    bars = []
    for node, kind in zip(before, ("image", "text"), strict=True):
        bars.append(sketch.vector(x, node.y, kind, label))
        sketch.arrow(node, bars[-1])
    return bars[0], bars[1]


def score(sketch: Sketch, before: Pair, x: float, text: str = "cosine") -> Node:
    node = sketch.box(x, (before[0].y + before[1].y) / 2, text, "pair")
    for side in before:
        sketch.arrow(side, node)
    return node


def loss(sketch: Sketch, before: Node, x: float, mark: str, label: str) -> Node:
    node = sketch.batch(x, before.y, mark, label)
    sketch.arrow(before, node, dashed=True)
    return node


def dual_encoder() -> Sketch:
    s = Sketch(WIDTH, 27)
    pooled = vectors(s, towers(s), 31, "pooled")
    unit = vectors(s, each(s, pooled, 44, "linear"), 57)
    loss(s, score(s, unit, 70), 88, "all", "InfoNCE, or triplet loss\nwith the hardest negative")
    return s


def clip() -> Sketch:
    s = Sketch(WIDTH, 27)
    ends = towers(s, "vision\ntransformer", "text\ntransformer")
    first = vectors(s, ends, 32, "")
    s.note(32, UP - 3.3, "class token")
    s.note(32, DOWN - 3.3, "end token")
    unit = vectors(s, each(s, first, 46, "projection"), 59)
    loss(s, score(s, unit, 73, "cosine\n/ temperature"), 90, "all", "InfoNCE")
    return s


def pooled_max() -> Sketch:
    s = Sketch(WIDTH, 29)
    head = s.frame(25, 1.9, 48, 25.2, "a head; with heads: 2, two of them, trained apart")
    sums = []
    for node, kind, name in zip(towers(s), ("image", "text"), ("regions", "words"), strict=True):
        pooled, parts = s.vector(32, node.y + 2.3, kind, h=1.5), s.tokens(32, node.y - 2.3, kind, 2, name)
        s.note(28.5, node.y + 3.6, "pooled")
        upper, lower = s.box(43.5, node.y + 2.3, "linear", kind), s.box(43.5, node.y - 2.3, "linear, max", kind)
        plus = s.ball(54.5, node.y, kind, 1.2, "+")
        for part, step in ((pooled, upper), (parts, lower)):
            s.arrow(node, part)
            s.arrow(part, step)
            s.arrow(step, plus)
        sums.append(s.vector(60, node.y, kind))
        s.arrow(plus, sums[-1])
    both = score(s, (sums[0], sums[1]), 67.5)
    end = s.batch(89, both.y, "all", "InfoNCE, of each head")
    s.arrow(Node(head.x + head.w, both.y, 0.1, 0.1), end, dashed=True)
    s.note(79, both.y + 3, "logits of the\nheads are added")
    return s


def vse() -> Sketch:
    s = Sketch(WIDTH, 27)
    parts = tokens(s, towers(s), 29)
    unit = vectors(s, each(s, each(s, parts, 39, "linear"), 52, "mean or max"), 64)
    loss(s, score(s, unit, 75), 89, "hardest", "triplet loss with the\nhardest negative of a row")
    return s


def vse_inf() -> Sketch:
    s = Sketch(WIDTH, 27)
    sums = []
    for node, kind in zip(each(s, tokens(s, towers(s), 27), 35.5, "linear"), ("image", "text"), strict=True):
        ranked = s.tokens(48, node.y, kind, label="", shade=(0.05, 0.3, 0.65, 1.0))
        s.arrow(node, ranked, label="sort")
        s.note(48, node.y - 4.6, "each dimension\nby value")
        weighed = s.tokens(59, node.y, "plain", label="", shade=(0.1, 0.15, 0.5, 0.9))
        s.note(59, node.y - 4.6, "weights of ranks,\nfrom a GRU")
        s.text(53.5, node.y, "×")
        sums.append(s.vector(68, node.y, kind))
        s.arrow(weighed, sums[-1], label="sum")
    loss(s, score(s, (sums[0], sums[1]), 77.5), 91, "hardest", "triplet loss with the\nhardest negative")
    return s


def scan() -> Sketch:
    s = Sketch(WIDTH, 27)
    contexts = _crossed(s)
    relevance = s.box(66, 13.75, "cosine of\neach word with\nits context", "pair")
    s.arrow(contexts, relevance)
    total = s.box(79, 13.75, "mean or\nlog-sum-\nexp", "pair")
    s.arrow(relevance, total)
    loss(s, total, 91.5, "hardest", "triplet loss with the\nhardest negative")
    return s


def _crossed(s: Sketch) -> Node:
    """Words attend to regions, and each word gets a context: the weighted mean of the regions."""
    regions, words = tokens(s, each(s, towers(s), 29, "linear"), 37)
    left, right = s.tokens(46, 13.75, "text", label=""), s.tokens(52, 13.75, "image", label="")
    for start in (words, regions):
        s.arrow(start, Node(left.x - 0.6, left.y, left.w, left.h))
    s.relations(left, right, ATTENTION, "pair")
    s.note(49, 19, "every word attends\nto the regions")
    s.note(50.5, 9.4, "context: weighted mean")
    return right


def sgraf() -> Sketch:
    s = Sketch(WIDTH, 27)
    contexts = _crossed(s)
    pairs = s.tokens(62, 13.75, "pair", n=5, label="")
    s.note(62, 21, "similarity vectors\nof the words, and\nof the pooled pair")
    s.arrow(contexts, pairs)
    filtered = s.box(73.5, 17.4, "saf: mean\nby gates", "pair")
    reasoned = s.box(73.5, 9.8, "sgr: graph\nmessages", "pair")
    total = s.box(84.5, 13.75, "linear", "pair")
    for way in (filtered, reasoned):
        s.arrow(pairs, way)
        s.arrow(way, total)
    s.note(73.5, 13.6, "or")
    loss(s, total, 94, "hardest", "triplet loss on\nits sigmoid")
    return s


def hrem() -> Sketch:
    s = Sketch(WIDTH, 30)
    unit = []
    for node, kind in zip(tokens(s, towers(s, shift=3), 27), ("image", "text"), strict=True):
        pooled = s.box(40, node.y, "0.8 · mean of top 2\n+ 0.2 · transformer", kind)
        s.arrow(node, pooled)
        unit.append(s.vector(53, node.y, kind, "vector"))
        s.arrow(pooled, unit[-1])
    end = loss(s, score(s, (unit[0], unit[1]), 66), 88, "hardest", "")
    s.note(88, end.y + 4.6, "triplet loss with the\nhardest negative")
    frame = s.frame(62, 1.8, 31, 9.2, "instance graph of the batch", "loss")
    places = [(67, 6.0, "image"), (74, 3.8, "image"), (81, 6.2, "text"), (88, 4.0, "text")]
    for one, other, strength in ((0, 1, 0.7), (0, 3, 0.2), (1, 2, 0.4), (2, 3, 0.8), (0, 2, 0.3)):
        s.line(places[one][:2], places[other][:2], strength, "loss")
    for x, y, kind in places:
        s.ball(x, y, kind)
    s.arrow(Node(53.6, 8.6, 0.1, 0.1), Node(frame.x - frame.w, 6.5, 0.1, 0.1), dashed=True)
    s.arrow(Node(88, frame.y, 1, frame.h), end, dashed=True)
    return s


def cca() -> Sketch:
    s = Sketch(WIDTH, 27)
    frozen = vectors(s, towers(s, "frozen\nencoder", "frozen\nencoder"), 29, "features")
    white = each(s, frozen, 40, "whiten")
    both = s.box(57, 13.75, "SVD of the\ncross-covariance\nof training pairs", "loss", dashed=True)
    for side in white:
        s.arrow(side, both, dashed=True)
    turned = []
    for node, kind in zip(white, ("image", "text"), strict=True):
        turned.append(s.box(75, node.y, "directions ×\ncorrelation⁴", kind))
        s.arrow(node, turned[-1])
        s.arrow(both, turned[-1], dashed=True)
    score(s, (turned[0], turned[1]), 91)
    return s


def dscmr() -> Sketch:
    s = Sketch(WIDTH, 29)
    first = each(s, vectors(s, towers(s, shift=1), 26, "pooled"), 34, "linear")
    shared = s.box(45, first[0].y / 2 + first[1].y / 2, "shared\nlayer", "pair")
    unit = []
    for node, kind in zip(first, ("image", "text"), strict=True):
        s.arrow(node, shared)
        unit.append(s.vector(55, node.y, kind, "vector"))
        s.arrow(shared, unit[-1])
    cosine = score(s, (unit[0], unit[1]), 66)
    labels = s.box(67, 24.5, "one classifier", "label")
    s.arrow(unit[0], labels)
    errors = s.box(86, 24.5, "error of the labels,\nof both sides", "loss", dashed=True)
    s.arrow(labels, errors, dashed=True)
    distance = s.box(86, 4.6, "distance of a pair", "loss", dashed=True)
    s.arrow(unit[1], distance, dashed=True)
    s.arrow(cosine, s.batch(86, cosine.y, "shared", "likelihood of shared labels"), dashed=True)
    return s


def dcmh() -> Sketch:
    s = Sketch(WIDTH, 27)
    codes = []
    for node, kind in zip(each(s, vectors(s, towers(s), 29, "pooled"), 39, "linear"), ("image", "text"), strict=True):
        codes.append(s.tokens(50, node.y, kind, n=4, label="code", shade=(0.9, 0.1, 0.7, 0.3)))
        s.arrow(node, codes[-1])
    theta = score(s, (codes[0], codes[1]), 65, "cosine; in training\nθ = inner product / 2")
    loss(s, theta, 87, "shared", "likelihood of shared labels:\nlog(1 + e^θ) − S θ")
    return s


def gnn4cmr() -> Sketch:
    s = Sketch(WIDTH, 35)
    unit = vectors(s, each(s, vectors(s, towers(s, shift=7), 28, "pooled"), 38, "linear"), 48)
    cosine = score(s, unit, 61)
    loss(s, cosine, 87, "shared", "soft InfoNCE: targets are\nitems that share a label")
    s.frame(3, 1.8, 35, 7.4, "graph of labels, by co-occurrence in training", "label")
    places = ((8, 5.2), (16, 3.4), (24, 5.6), (32, 3.6))
    for one, other, strength in ((0, 1, 0.8), (1, 2, 0.4), (2, 3, 0.7), (0, 2, 0.3)):
        s.line(places[one], places[other], strength, "label")
    for x, y in places:
        s.ball(x, y, "label", 0.9)
    network = s.box(51, 5.4, "graph\nconvolutions", "label")
    s.arrow(Node(38, 5.4, 0.1, 1), network)
    classifiers = s.tokens(63, 5.4, "label", label="", n=3)
    s.arrow(network, classifiers)
    s.note(63, 2.4, "classifiers")
    predicted = s.box(83, 5.4, "cosines with classifiers\n= labels", "loss", dashed=True)
    s.arrow(classifiers, predicted, dashed=True)
    s.arrow(unit[1], predicted, dashed=True)
    return s


def hash_codes() -> Sketch:
    s = Sketch(WIDTH, 27)
    codes = []
    for node, kind in zip(towers(s, "a method's\nencoder", "a method's\nencoder"), ("image", "text"), strict=True):
        vector = s.vector(27, node.y, kind, "its vector")
        relaxed = s.box(39, node.y, "linear, batch\nnorm, tanh", kind)
        bits = s.box(82, node.y, "signs:\n1 0 1 1 0 …", kind)
        s.arrow(node, vector)
        s.arrow(vector, relaxed)
        s.arrow(relaxed, bits, label="at test" if kind == "image" else "")
        codes.append((relaxed, bits))
    end = s.batch(62, 14.4, "shared", "likelihood, and distance from the signs")
    for relaxed, _ in codes:
        s.arrow(relaxed, end, dashed=True)
    hamming = s.box(82, 13.75, "Hamming\ndistance", "pair")
    for _, bits in codes:
        s.arrow(bits, hamming)
    return s


def votes() -> Sketch:
    s = Sketch(WIDTH, 27)
    encoder = s.box(16, 10, "image\nencoder", "image")
    s.arrow(s.picture(5.5, 10), encoder)
    s.frame(26, 2.5, 38, 22, "training images, each with its labels", "label")
    me = s.ball(36, 10, "image", 1.4, "h")
    s.arrow(encoder, me)
    for x, y, strength in ((44, 16, 0.9), (45, 7, 0.6), (53, 11, 0.5), (57, 18.5, 0), (59, 6, 0), (33, 19, 0)):
        if strength:
            s.line((me.x + 1.4, me.y), (x - 1, y), strength, "label")
        s.ball(x, y, "label", text="y")
    mean = s.box(80, 18, "v: weighted mean of the\nlabels of the k nearest", "label")
    s.arrow(Node(64, 18, 0.1, 3), mean)
    joined = s.box(80, 9, "unit([h, w v])", "pair")
    s.arrow(mean, joined)
    s.arrow(Node(64, 9, 0.1, 3), joined)
    s.note(80, 5.6, "compared by cosine; validation chooses w")
    return s


def identity() -> Sketch:
    s = Sketch(WIDTH, 27)
    ends = []
    for y, kind, name in ((UP, "image", "images.npy"), (DOWN, "text", "texts.npy")):
        matrix = s.box(18, y, name, kind)
        ends.append(s.vector(42, y, kind, "vector, as it is"))
        s.arrow(matrix, ends[-1])
    score(s, (ends[0], ends[1]), 64)
    s.note(84, 13.75, "nothing is trained")
    return s


FIGURES: dict[str, tuple[Callable[[], Sketch], str]] = {
    "cca": (cca, "CCA"),
    "clip": (clip, "CLIP"),
    "dcmh": (dcmh, "DCMH"),
    "dscmr": (dscmr, "DSCMR"),
    "dual_encoder": (dual_encoder, "Dual encoder"),
    "gnn4cmr": (gnn4cmr, "GNN4CMR"),
    "hash_codes": (hash_codes, "Hash codes"),
    "hrem": (hrem, "HREM"),
    "identity": (identity, "Identity"),
    "mcr_dgn": (mcr_dgn, "MCR-DGN"),
    "pooled_max": (pooled_max, "Pooled + max"),
    "scan": (scan, "SCAN"),
    "sedra": (sedra, "SEDRA"),
    "sgraf": (sgraf, "SGRAF"),
    "votes": (votes, "Label votes"),
    "vse": (vse, "VSE++"),
    "vse_inf": (vse_inf, "VSE∞"),
}


def main(folder: Path = FOLDER) -> None:
    """Write all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, title) in FIGURES.items():
        draw().save(folder / f"{name}.svg", title)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
