"""The figures of SEDRA and MCR-DGN, with the files of each part; `draw_methods.py` writes them."""

from collections.abc import Sequence

from sketch import Node, Sketch

WIDTH = 100.0
RELATIONS = ((0, 1, 0.8), (1, 3, 0.6), (0, 2, 0.3), (2, 3, 0.9))


def related(s: Sketch, x: float, y: float, kind: str) -> Node:
    """Tokens that exchange messages: four balls and their relations."""
    places = ((x - 2.6, y + 1.5), (x + 2.6, y + 1.5), (x - 2.6, y - 1.5), (x + 2.6, y - 1.5))
    for one, other, strength in RELATIONS:
        s.line(places[one], places[other], strength, kind)
    for place in places:
        s.ball(*place, kind, 0.8)
    return Node(x, y, 3.6, 2.5)


def sedra() -> Sketch:
    """Fig. 1 with the parts of Figs. 2 to 4: three paths, whose logits are added."""
    s = Sketch(WIDTH, 74)
    left = s.frame(1.6, 24, 22, 28, "one image, one text")
    for y, kind, name in ((43, "image", "regions"), (30, "text", "words")):
        start = s.picture(6, y) if kind == "image" else s.sentence(6, y, "two dogs\nrun")
        encoder = s.box(17, y, f"{kind}\nencoder", kind)
        s.arrow(start, encoder)
        s.note(17, y - 4, f"pooled, {name}")
    top = s.frame(28, 58.5, 61, 14, "global path · module.py", "pair")
    middle = s.frame(28, 31.5, 61, 25.5, "fused path · intra.py (Fig. 2), fusion.py (Fig. 4)", "pair")
    bottom = s.frame(28, 1.6, 61, 28.4, "local path · intra.py (Fig. 2), inter.py (Fig. 3)", "pair")
    for path, y in ((top, 47), (middle, 41), (bottom, 33)):
        s.arrow(Node(left.x + left.w, y, 0.1, 0.1), Node(path.x - path.w, path.y, 0.1, 0.1))
    logits = [
        _logit(s, 67.5, "⟨g_i, g_t⟩ / T_g", _global(s)),
        _logit(s, 44.5, "⟨f_i, f_t⟩ / T_f", _fused(s)),
        _logit(s, 17, "Σ a_w smooth max_r\ncos(e_w, v_r) / T_l", [_local(s)]),
    ]
    total = s.ball(94.5, 44.5, "pair", 2.6, "S = Σ")
    for logit in logits:
        s.arrow(Node(logit.x + logit.w, logit.y, 0.1, 0.1), total)
    return s


def _logit(s: Sketch, y: float, text: str, parts: Sequence[Node]) -> Node:
    """The logit of a path, and its loss."""
    logit = s.box(79, y, text, "pair")
    for part in parts:
        s.arrow(part, logit)
    s.arrow(logit, s.box(79, y - 5.4, "its own loss", "loss", dashed=True), dashed=True)
    return logit


def _global(s: Sketch) -> list[Node]:
    units = []
    for y, kind, name in ((67.6, "image", "g_i"), (62.4, "text", "g_t")):
        pooled, linear, unit = s.vector(36, y, kind, h=1.5), s.box(47, y, "linear", kind), s.vector(61, y, kind, h=1.5)
        s.arrow(pooled, linear)
        s.arrow(linear, unit)
        s.note(33.5, y, "pooled", "right")
        s.note(59.5, y + 1.4, name, "right")
        units.append(unit)
    return units


def _fused(s: Sketch) -> list[Node]:
    units = []
    for y, kind, name, pooled_y in ((50, "image", "f_i", 45.8), (39, "text", "f_t", 34.8)):
        tokens, most = related(s, 34, y, kind), s.box(45, y, "max", kind)
        plus, pooled, unit = (
            s.ball(53, y, kind, 1.1, "+"),
            s.vector(53, pooled_y, kind, h=1.3),
            s.vector(61, y, kind, h=1.7),
        )
        for start, end in ((tokens, most), (most, plus), (pooled, plus), (plus, unit)):
            s.arrow(start, end)
        s.note(54.5, pooled_y, "pooled", "left")
        s.note(59.5, y + 1.6, name, "right")
        units.append(unit)
    s.note(29.5, 44.5, "relations within\nan item", "left")
    return units


def _local(s: Sketch) -> Node:
    """Every word, with its share of the text, looks for its regions among nine."""
    regions = related(s, 35, 22, "image")
    s.note(35, 17.6, "related regions, and\nthe whole image")
    cells = [s.ball(59 + cell % 3 * 2.4, 14.6 + cell // 3 * 2.4, "image", 0.9) for cell in range(9)]
    s.arrow(regions, Node(59, 20.5, 1, 0.6))
    found = {0: {5: 0.5, 3: 0.4}, 1: {3: 0.9, 4: 0.8, 1: 0.2}, 2: {1: 0.8, 0: 0.4}}
    for row, (word, share) in enumerate((("two", 0.25), ("dogs", 0.9), ("run", 0.55))):
        node = s.box(45.5, 15.6 - row * 3.9, word, "text", w=7)
        s.share(node, share)
        for cell, strength in found[row].items():
            s.line((49.2, node.y), (cells[cell].x - 0.95, cells[cell].y), strength)
    s.note(30, 8, "bar: the learned\nshare a_w of\neach word", "left")
    s.note(52, 3.9, "e_w: a vector of the word's own, whatever its context", "center")
    return Node(63, 17, 2, 3)


def mcr_dgn() -> Sketch:
    """An image at test: its nodes attach to a frozen bank, and receive the labels of its pairs."""
    s = Sketch(WIDTH, 62)
    # the item
    s.frame(1.6, 34, 40, 26, "an image and its nodes · module.py, labels.py", "image")
    encoder = s.box(17.5, 49, "image\nencoder", "image")
    s.arrow(s.picture(6.2, 49), encoder)
    item = s.ball(34, 55, "image", 1.5, "h")
    s.note(34, 52.4, "whole item")
    regions = s.tokens(25.5, 44, "image", label="regions")
    s.arrow(encoder, item)
    s.arrow(encoder, regions)
    labels = [s.ball(35.5, y, "label", 1.4, name) for y, name in ((48, "sky"), (43.5, "dog"), (39, "sea"))]
    for node, strengths in zip(labels, ((0.1, 0.2, 0.4, 0.9), (0.2, 0.9, 0.2, 0.1), (0.8, 0.3, 0.1, 0.1)), strict=True):
        for row, strength in enumerate(strengths):
            s.line((26.4, 44 + (row - 1.5) * 1.5), (node.x - 1.4, node.y), strength, "label")
    s.note(32, 36, "label nodes attend to regions")
    # the bank
    s.frame(45, 34, 53, 26, "frozen bank of training pairs · bank.py; mutual neighbours · context.py", "pair")
    _bank(s, item, labels[1])
    # messages
    own = s.box(13, 27, "label probabilities p\nof the encoder", "label")
    s.arrow(Node(13, 34, 1, 0.1), own)
    received = s.box(60, 27, "messages m · graph.py\nȳ + Σ a_e (y_e − ȳ): labels of the neighbours", "label")
    s.arrow(Node(60, 34, 1, 0.1), received)
    losses = s.box(11.5, 10.5, "losses: labels,\ncontrast, likelihood", "loss", dashed=True)
    s.arrow(own, losses, dashed=True)
    s.note(11.5, 6.4, "the graph is not trained")
    mixed = s.box(33, 18.5, "(1 − w) p + w m", "label")
    s.arrow(own, mixed)
    s.arrow(received, mixed)
    s.note(33, 15.4, "validation chooses w")
    vector = s.box(62, 18.5, "relevance vector · relevance.py", "image")
    s.arrow(mixed, vector)
    text = s.box(55, 6.8, "text: the same with words,\nagainst the bank's texts", "text")
    s.arrow(s.sentence(33, 6.8, "dog sea sky"), text)
    cosine = s.box(87, 12.6, "cosine: ranks by the\nprobability of a\nshared label", "pair")
    s.arrow(vector, cosine)
    s.arrow(text, cosine)
    return s


def _bank(s: Sketch, item: Node, label: Node) -> None:
    """Edges of the whole item and of one label node to nodes of their own kind in the bank."""
    wholes: Sequence[tuple[float, float, float]] = ((58, 55, 0.9), (66, 51.5, 0.6), (76, 54, 0), (85, 51.5, 0))
    for x, y, strength in wholes:
        if strength:
            s.line((item.x + 1.5, item.y), (x - 1.3, y), strength, "image")
        s.ball(x, y, "image", 1.3, "h")
    s.line((item.x + 1.5, item.y + 0.3), (74.7, 54), 0.2, "plain")
    s.note(70, 55.8, "near one way only: no edge")
    dogs: Sequence[tuple[float, float, float]] = ((58, 44, 0.8), (66, 40, 0.5), (76, 44.5, 0), (85, 40, 0))
    for x, y, strength in dogs:
        if strength:
            s.line((label.x + 1.4, label.y), (x - 1.3, y), strength, "label")
        s.ball(x, y, "label", 1.3, "dog")
    s.note(92, 53.5, "whole\nitems")
    s.note(92, 42, "nodes of\none label")
    s.note(71, 36.2, "an edge: each is among the k nearest of the other; its width is the attention a_e")
