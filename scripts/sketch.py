"""Boxes, tokens and arrows, in the one style of the methods' figures: see draw_methods.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

COLOURS = {  # line, fill
    "image": ("#2f6db5", "#dbe8f8"),
    "text": ("#b0621a", "#fbe6d0"),
    "pair": ("#2b7a4b", "#d9f0e1"),
    "loss": ("#6b4fa0", "#e9e2f6"),
    "label": ("#8a6d00", "#f8edc0"),
    "plain": ("#5c6470", "#eef0f3"),
}
INK, GREY, CARD = "#1d2129", "#5c6470", "#ffffff"
SIZE = 9.0
"""Points of a letter; a unit of the drawing is a tenth of an inch."""


@dataclass
class Node:
    """A drawn thing: its centre, and half of its width and height."""

    x: float
    y: float
    w: float
    h: float

    def towards(self, other: "Node", gap: float = 0.5) -> tuple[float, float]:
        """The point just outside its border from which an arrow to another node starts."""
        dx, dy = other.x - self.x, other.y - self.y
        length = (dx**2 + dy**2) ** 0.5
        to_border = min(self.w / abs(dx) if dx else 1e9, self.h / abs(dy) if dy else 1e9)
        return self.x + dx * (to_border + gap / length), self.y + dy * (to_border + gap / length)


@dataclass
class Sketch:
    """A figure of so many units; ``save`` writes it as SVG, whose text stays text."""

    width: float
    height: float

    def __post_init__(self) -> None:
        self.figure = plt.figure(figsize=(self.width / 10, self.height / 10), facecolor="none")
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, self.width), ylim=(0, self.height), aspect="equal")
        self.ax.axis("off")
        card = FancyBboxPatch(
            (0.6, 0.6),
            self.width - 1.2,
            self.height - 1.2,
            "round,pad=0,rounding_size=1.2",
            fc=CARD,
            ec="#d5d9df",
            lw=0.8,
        )
        self.ax.add_patch(card)

    def box(self, x: float, y: float, text: str, kind: str = "plain", w: float = 0, dashed: bool = False) -> Node:
        """A rounded box around centred lines of text."""
        lines = text.split("\n")
        width = w or max(len(line) for line in lines) * 0.80 + 2.2
        height = len(lines) * 1.65 + 1.5
        line, fill = COLOURS[kind]
        self.ax.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                "round,pad=0,rounding_size=0.8",
                fc=fill,
                ec=line,
                lw=1.1,
                ls=(0, (4, 2)) if dashed else "-",
            )
        )
        self.text(x, y, text)
        return Node(x, y, width / 2, height / 2)

    def text(self, x: float, y: float, text: str, colour: str = INK, size: float = SIZE, ha: str = "center") -> None:
        self.ax.text(x, y, text, color=colour, size=size, ha=ha, va="center", linespacing=1.25)

    def note(self, x: float, y: float, text: str, ha: str = "center") -> None:
        """A small grey remark."""
        self.text(x, y, text, GREY, 7.6, ha)

    def frame(self, x: float, y: float, w: float, h: float, title: str, kind: str = "plain") -> Node:
        """A pale area with a title at its upper left corner; x and y are its lower left one."""
        line, _ = COLOURS[kind]
        self.ax.add_patch(
            FancyBboxPatch((x, y), w, h, "round,pad=0,rounding_size=1", fc="#f7f8fa", ec=line, lw=0.7, alpha=0.9)
        )
        self.text(x + 1, y + h - 1.5, title, line, 8.2, "left")
        return Node(x + w / 2, y + h / 2, w / 2, h / 2)

    def arrow(
        self, start: Node, end: Node, dashed: bool = False, label: str = "", colour: str = GREY, bend: float = 0
    ) -> None:
        """An arrow between the borders of two nodes; dashed: in training only."""
        a, b = start.towards(end), end.towards(start)
        self.ax.add_patch(
            FancyArrowPatch(
                a,
                b,
                arrowstyle="-|>,head_length=3.2,head_width=1.8",
                connectionstyle=f"arc3,rad={bend}",
                color=COLOURS["loss"][0] if dashed else colour,
                ls=(0, (3, 2)) if dashed else "-",
                lw=1.1,
                shrinkA=0,
                shrinkB=0,
            )
        )
        if label:
            self.note((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + 1.2, label)

    def line(self, a: tuple[float, float], b: tuple[float, float], strength: float, kind: str = "pair") -> None:
        """A relation: the stronger, the thicker and darker."""
        self.ax.plot(
            *zip(a, b, strict=True), color=COLOURS[kind][0], lw=0.4 + 2.2 * strength, alpha=0.15 + 0.8 * strength
        )

    def relations(self, left: Node, right: Node, strengths: Sequence[Sequence[float]], kind: str) -> None:
        """Lines between the squares of two columns of tokens."""
        for row, of_row in enumerate(strengths):
            for other, strength in enumerate(of_row):
                start = (left.x + left.w + 0.2, left.y - left.h + (row + 0.5) * 1.5)
                end = (right.x - right.w - 0.2, right.y - right.h + (other + 0.5) * 1.5)
                self.line(start, end, strength, kind)

    def picture(self, x: float, y: float) -> Node:
        """A small landscape: the input image."""
        line, fill = COLOURS["image"]
        self.ax.add_patch(Rectangle((x - 3, y - 2.4), 6, 4.8, fc=fill, ec=line, lw=1.1))
        self.ax.add_patch(Circle((x + 1.4, y + 1), 0.7, fc="#f0b429", ec="none"))
        hill = [(x - 2.9, y - 2.3), (x - 0.9, y + 0.7), (x + 0.5, y - 1), (x + 1.3, y - 0.2), (x + 2.9, y - 2.3)]
        self.ax.add_patch(Polygon(hill, fc=line, ec="none", alpha=0.75))
        self.note(x, y - 3.6, "image")
        return Node(x, y, 3, 2.4)

    def sentence(self, x: float, y: float, text: str = "two dogs\nrun", below: str = "text") -> Node:
        """The input text."""
        node = self.box(x, y, text, "text", w=max(len(part) for part in text.split("\n")) * 0.72 + 1.6)
        self.note(x, y - node.h - 1.2, below)
        return node

    def tokens(
        self, x: float, y: float, kind: str, n: int = 4, label: str = "tokens", shade: Sequence[float] = ()
    ) -> Node:
        """A column of squares; ``shade`` gives each its weight."""
        line, fill = COLOURS[kind]
        side = 1.5
        for row in range(n):
            low = y - n * side / 2 + row * side
            self.ax.add_patch(Rectangle((x - side / 2, low), side, side, fc=fill, ec=line, lw=0.9))
            if shade:
                self.ax.add_patch(
                    Rectangle((x - side / 2, low), side, side, fc=line, ec="none", alpha=0.75 * shade[row])
                )
        if label:
            self.note(x, y - n * side / 2 - 1.1, label)
        return Node(x, y, side / 2, n * side / 2)

    def vector(self, x: float, y: float, kind: str, label: str = "", h: float = 2.2) -> Node:
        """A filled bar: one vector of an item."""
        line, _ = COLOURS[kind]
        self.ax.add_patch(
            FancyBboxPatch((x - 0.7, y - h), 1.4, 2 * h, "round,pad=0,rounding_size=0.5", fc=line, ec=line)
        )
        if label:
            self.note(x, y - h - 1.1, label)
        return Node(x, y, 0.7, h)

    def batch(self, x: float, y: float, mark: str, label: str = "") -> Node:
        """The scores of a batch of four pairs: positives dark; of the others, those that the loss takes are hatched.

        Args:
            mark: "all" negatives count, the "hardest" of each row, or "shared" labels make more positives.
        """
        line, fill = COLOURS["loss"]
        side, hardest = 1.5, {(0, 2), (1, 3), (2, 1), (3, 0)}
        for row in range(4):
            for column in range(4):
                positive = row == column or (mark == "shared" and (row, column) in {(0, 2), (2, 0), (1, 3), (3, 1)})
                used = mark != "hardest" or (row, column) in hardest
                corner = (x + (column - 2) * side, y + (1 - row) * side)
                colour = line if positive else fill if used else "white"
                self.ax.add_patch(Rectangle(corner, side, side, fc=colour, ec=line, lw=0.7))
        if label:
            self.note(x, y - 3.9 - 0.6 * (1 + label.count("\n")), label)
        return Node(x, y, 2 * side, 2 * side)

    def ball(self, x: float, y: float, kind: str, r: float = 1.0, text: str = "") -> Node:
        """A node of a graph."""
        line, fill = COLOURS[kind]
        self.ax.add_patch(Ellipse((x, y), 2 * r, 2 * r, fc=fill, ec=line, lw=1.1))
        if text:
            self.text(x, y, text, size=7.6)
        return Node(x, y, r, r)

    def share(self, node: Node, share: float) -> None:
        """A bar along the lower edge of a box: how much it counts."""
        line, _ = COLOURS["text"]
        corner = (node.x - node.w + 0.4, node.y - node.h + 0.2)
        self.ax.add_patch(Rectangle(corner, (2 * node.w - 0.8) * share, 0.5, fc=line, ec="none"))

    def save(self, path: Path, title: str) -> None:
        """Write the SVG; the same figure gives the same bytes."""
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "font.family": FONTS}):
            self.figure.savefig(path, transparent=True, metadata={"Title": title, "Date": None, "Creator": None})
        plt.close(self.figure)


FONTS = ["DejaVu Sans", "Verdana", "sans-serif"]
