"""Losses and weights of losses that several stages share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def timestep_weights(signal: Tensor, max_loss_weight: float = 1.0, min_snr_gamma: float = 0.0) -> Tensor:
    """Return how much timesteps weigh in a loss on the predicted noise, from their `alphas_cumprod`, in its shape.

    Who is drawn, and how they look, is decided at dark timesteps. There the noise is all that is left to see, so its
    error is next to nothing whatever the image.

    Args:
        signal: alphas_cumprod, in (0, 1].
        max_loss_weight: the largest weight of a dark timestep; 1 weighs all alike, as the method does.
        min_snr_gamma: signal to noise, from which on timesteps weigh less; 0: none do.
    """
    # 1 / alpha^2: the noise's error weighs as the velocity's does (arXiv 2202.00512, section 4).
    weight = (1 / signal).clamp(max=max_loss_weight)
    if min_snr_gamma:
        # min(SNR, gamma) / SNR with SNR = alpha^2 / (1 - alpha^2) (min-SNR, arXiv 2303.09556, section 3.4).
        weight = weight * (min_snr_gamma * (1 - signal) / signal).clamp(max=1)
    return weight


def info_nce(logits: Tensor) -> Tensor:
    """Return InfoNCE both ways of logits (n, n), in which row i and column i belong together (arXiv 1807.03748)."""
    own = torch.arange(len(logits), device=logits.device)
    # -log(exp(s_ii) / sum_j exp(s_ij)), over rows and over columns.
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
