"""The toy dataset with one damaged picture."""

from toy import ToyData

from itmbench.data.corpus import Corpus


class BrokenToyData(ToyData):
    """The first training picture is cut short after it was listed."""

    def read(self) -> Corpus:
        corpus = super().read()
        (self.root / "0.png").write_bytes((self.root / "0.png").read_bytes()[:50])
        return corpus
