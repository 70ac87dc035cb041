"""Which texts of a batch belong to which images."""

from torch import Tensor


def positives(image_index: Tensor, labels: Tensor | None = None) -> Tensor:
    """Positive pairs of a batch of (image, text) pairs.

    Captions of the same image are positives of each other; with labels, so are items that share one.

    Args:
        image_index: the image of every pair, int64 `[B]`.
        labels: multi-hot labels of every pair `[B, C]`, or None.

    Returns:
        bool `[B, B]`: image of row i with text of column j. The diagonal is always true.
    """
    same = image_index.unsqueeze(1) == image_index.unsqueeze(0)
    if labels is None:
        return same
    return same | (labels.float() @ labels.float().T > 0)
