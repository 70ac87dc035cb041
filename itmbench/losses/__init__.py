"""Losses: (scores `[B, B]`, positives bool `[B, B]`) -> a scalar, so that every method trains on every dataset."""

from itmbench.losses.contrastive import InfoNCE
from itmbench.losses.likelihood import PairLikelihood
from itmbench.losses.positives import positives
from itmbench.losses.soft import SoftInfoNCE
from itmbench.losses.triplet import TripletLoss

__all__ = ["InfoNCE", "PairLikelihood", "SoftInfoNCE", "TripletLoss", "positives"]
