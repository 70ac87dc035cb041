"""What an item attaches to and receives from the bank, in words."""

from dataclasses import dataclass

from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.methods.base import Matcher, Modality
from itmbench.methods.explained import words_of
from itmbench.methods.explanations import Part, Seen
from itmbench.methods.mcr_dgn.context import Edges
from itmbench.methods.mcr_dgn.graph import attention


@dataclass(frozen=True)
class Naming:
    """The names of what nodes of one modality attach to: ``top`` of everything."""

    modality: Modality  # of the nodes
    corpus: Corpus  # that the model was trained on
    pairs: tuple[Rows, Rows]  # corpus rows of the images and texts in the bank
    votes: Tensor  # labels of the pairs in the bank `[P, C]`
    top: int  # most neighbours, regions and words

    @property
    def labels(self) -> list[str]:
        """The name of every label, or its number."""
        return [*self.corpus.label_names] or [*map(str, range(self.votes.shape[1]))]

    def seen(self, edges: Edges | None, row: int) -> list[Seen]:
        """What one node attaches to, highest weight first; nothing if nodes of its kind have no edges."""
        if edges is None:
            return []
        shares = attention(edges)[row]
        order = [each for each in shares.argsort(descending=True).tolist() if shares[each] > 0]
        found = []
        for each in order[: self.top]:
            pair = int(edges.source[row, each])
            image, text = (int(rows[pair]) for rows in self.pairs)
            id_ = self.corpus.image_ids[image] if self.modality == "image" else self.corpus.text_ids[text]
            votes = [self.labels[label] for label in self.votes[pair].nonzero().flatten().tolist()]
            found.append(Seen(id_, float(shares[each]), words_of(self.corpus, text), votes))
        return found

    def parts(self, model: Matcher, weights: Tensor, words: Tensor | None) -> list[Part]:
        """The regions, by number, or the words with the highest attention `[N]` of a label; marks are left out."""
        order = [part for part in weights.argsort(descending=True).tolist() if weights[part] > 0]
        names = {part: part if words is None else model.text.word(int(words[part])) for part in order}
        return [Part(name, float(weights[part])) for part in order if (name := names[part]) is not None][: self.top]
