"""SEDRA: semantic enhancement and dynamic relation awareness, with global and local alignment (Fig. 1)."""

import copy
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_max
from itmbench.methods.base import Batch, Matcher, Modality
from itmbench.methods.cross_attention import gram, regions_for_words, relations, words_for_regions
from itmbench.methods.losses import InfoNCE, TripletLoss, log_inverse_temperature
from itmbench.methods.sedra.fusion import Fusion, RelationFusion
from itmbench.methods.sedra.guided import GuidedTokens, guided_cosines
from itmbench.methods.sedra.inter import Inter, InterModalRelations
from itmbench.methods.sedra.intra import Intra, IntraModalRelations
from itmbench.methods.token_matcher import TokenMatcher


class SEDRA(TokenMatcher):
    """Semantic enhancement and dynamic relation awareness, implemented after its published description.

    S = beta S_global + (1 - beta) S_local, with beta learned. S_local averages the scores of words that attend to the
    image and of regions that attend to the text.

    Args:
        dim: D, size of the tokens and of the common space.
        intra: relations within an item; see `itmbench.methods.sedra.intra.IntraModalRelations`.
        intra_k: relations kept per token within an item.
        inter: relations between image and text; see `itmbench.methods.sedra.inter.InterModalRelations`.
        inter_m: regions kept per word between image and text.
        fusion: fusion of a token with its context; see `itmbench.methods.sedra.fusion.RelationFusion`.
        alignment: the score to use: global, local or both; or ``guided``, which adds the logits of the global score and
            of pooling guided by the other item (`itmbench.methods.sedra.guided`), each with a loss, a temperature and
            layers of its own. ``inter``, ``fusion`` and ``global_loss`` have no part in it.
        loss: loss on the in-batch scores; by default the hardest-negative triplet loss after a warm-up.
        global_loss: weight of an InfoNCE loss on the global score.
        **kwargs: arguments of ``Matcher``.
    """

    def __init__(
        self,
        dim: int = 256,
        intra: Intra = "topk",
        intra_k: int = 8,
        inter: Inter = "topk+neg",
        inter_m: int = 8,
        fusion: Fusion = "gate",
        alignment: Literal["global", "local", "both", "guided"] = "both",
        loss: InfoNCE | TripletLoss | None = None,
        global_loss: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alignment, self.global_loss = alignment, global_loss
        self.tokens = self.per_modality(lambda width: Tokens(width, dim, intra, intra_k))
        self.inter = InterModalRelations(inter, inter_m)
        self.word_fusion, self.region_fusion = RelationFusion(fusion), RelationFusion(fusion)
        self.evidence = nn.Parameter(torch.tensor(0.0))
        self.balance = nn.Parameter(torch.tensor(0.0))
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss
        self.contrast = InfoNCE()
        if alignment == "guided":
            self.guides = self.per_modality(lambda width: GuidedTokens(width, dim, intra, intra_k))
            self.log_sharpness = nn.Parameter(torch.tensor(1.0))
            self.guided_loss = copy.deepcopy(self.loss)
        for part in self._unused():
            part.requires_grad_(False)

    def _unused(self) -> list[nn.Module | nn.Parameter]:
        """Parts that get no gradient under the given options; distributed training would wait for them."""
        unused: list[nn.Module | nn.Parameter] = []
        if self.alignment != "both":
            unused.append(self.balance)
        if self.alignment in ("global", "guided"):
            unused += [self.inter, self.word_fusion, self.region_fusion, self.evidence]
        if self.alignment == "local" and not self.global_loss:
            unused += [part for side in self.tokens.values() for part in cast(Tokens, side).pooling_parts]
        if not self.global_loss or self.alignment == "guided":
            unused.append(self.contrast)
        return unused

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        assert items.mask is not None
        pooled, tokens = self.tokens[modality](items)
        if self.alignment == "guided":  # the query of an item travels behind its pooled vector
            query, tokens = self.guides[modality](items)
            return Embeddings(torch.cat([pooled, query], dim=1), tokens, items.mask)
        return Embeddings(pooled, normalize(tokens, dim=-1) * items.mask.unsqueeze(2).to(tokens.dtype), items.mask)

    def within(self, items: Embeddings) -> Tensor:
        if self.alignment != "guided":
            return super().within(items)
        assert items.tokens is not None
        return gram(items.tokens[:, :, :-1])

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        global_score = self._global(image, text)
        if self.alignment == "global":
            return global_score
        if self.alignment == "guided":
            guided_score = self._guided(image, text, within_image, within_text)
            shares = torch.stack([log_inverse_temperature(loss).exp() for loss in (self.loss, self.guided_loss)])
            shares = (shares / shares.sum()).to(global_score)
            return shares[0] * global_score + shares[1] * guided_score
        local_score = self._local(image, text, within_image, within_text)
        if self.alignment == "local":
            return local_score
        beta = self.balance.sigmoid()
        return beta * global_score + (1 - beta) * local_score

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        if self.alignment == "guided":
            guided_score = self._guided(image, text, self.within(image), self.within(text))
            return self.loss(self._global(image, text), positives) + self.guided_loss(guided_score, positives)
        loss = self.loss(self.score(image, text), positives)
        if self.global_loss:
            loss = loss + self.global_loss * self.contrast(self._global(image, text), positives)
        return loss

    def _global(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Global scores `[Ni, Nt]`."""
        if self.alignment == "guided":
            image, text = (Embeddings(items.pooled.chunk(2, dim=1)[0]) for items in (image, text))
        return Matcher.score(self, image, text)

    def _guided(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        """Guided scores, float32 `[Ni, Nt]`: the mean of texts that guide images and images that guide texts."""
        assert image.tokens is not None and text.tokens is not None
        assert image.mask is not None and text.mask is not None
        sharpness = self.log_sharpness.exp()
        image_queries, text_queries = (items.pooled.chunk(2, dim=1)[1] for items in (image, text))
        images = guided_cosines(image.tokens, image.mask, within_image, text_queries, sharpness)
        texts = guided_cosines(text.tokens, text.mask, within_text, image_queries, sharpness)
        return (images + texts.T) / 2

    def _local(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        """Local scores, float32 `[Ni, Nt]`."""
        assert image.tokens is not None and text.tokens is not None
        assert image.mask is not None and text.mask is not None
        cosines = relations(image.tokens, text.tokens)  # [I, R, T, L]
        with torch.autocast(cosines.device.type, enabled=False):
            weights, evidence = self.inter(cosines, image.mask, text.mask)
            weighted = weights * cosines
            words = self.word_fusion(regions_for_words(weights, weighted, within_image), text.mask, dim=2)
            regions = self.region_fusion(
                words_for_regions(weights, weighted, within_text), image.mask.unsqueeze(2), dim=1
            )
            mean_evidence = evidence.sum(2) / text.mask.sum(1).clamp(min=1)
            return (words + regions) / 2 + self.evidence.exp() * mean_evidence


class Tokens(nn.Module):
    """Turn an encoder's tokens into related tokens and one pooled unit vector.

    The pooled vector is the sum of g, the encoder's pooled output (its CLS token, or the mean), of the maximum over
    the tokens, and of a guided attention pooling with weights softmax_i(w (tanh(A v_i) * tanh(B g))) (SGRAF; Diao et
    al., AAAI 2021).
    """

    def __init__(self, width: int, dim: int, intra: Intra, k: int) -> None:
        super().__init__()
        self.project, self.project_guide = nn.Linear(width, dim), nn.Linear(width, dim)
        self.intra = IntraModalRelations(dim, intra, k)
        self.token_branch, self.guide_branch, self.attention = (
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, 1),
        )

    @property
    def pooling_parts(self) -> list[nn.Module]:
        """The layers that only the pooled vector uses."""
        return [self.project_guide, self.token_branch, self.guide_branch, self.attention]

    def forward(self, items: Embeddings) -> tuple[Tensor, Tensor]:
        """Turn tokens `[B, N, W]` and pooled `[B, W]` into a pooled unit vector `[B, D]` and tokens `[B, N, D]`."""
        assert items.tokens is not None and items.mask is not None
        mask, guide = items.mask, self.project_guide(items.pooled)
        tokens = self.intra(self.project(items.tokens), mask)
        logits = self.attention(
            torch.tanh(self.token_branch(tokens)) * torch.tanh(self.guide_branch(guide)).unsqueeze(1)
        )
        empty = ~mask.any(1, keepdim=True)
        weights = logits.squeeze(2).float().masked_fill(~mask, -torch.inf).masked_fill(empty, 0.0).softmax(1) * mask
        attended = (weights.to(tokens.dtype).unsqueeze(2) * tokens).sum(1)
        pooled = guide + attended + masked_max(tokens, mask)
        return normalize(pooled, dim=-1), tokens
