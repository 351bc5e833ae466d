"""How much a time of the noise schedule weighs in a loss on the predict_noise noise."""

from torch import Tensor


def weight_of_times(signal: Tensor, darkest: float = 1.0, clearest: float = 0.0) -> Tensor:
    """Weights of times whose pictures keep this share of their variance (`alphas_cumprod`), in the same shape.

    Who is drawn, and how they look, is decided at dark times. There the noise is all that is left to see, so its error
    is next to nothing whatever the picture; `1 / signal` weighs it as if the velocity was predicted (arXiv 2202.00512,
    section 4).

    Args:
        signal: in (0, 1].
        darkest: the largest weight; 1 weighs all times alike, as the method does.
        clearest: signal to noise, from which on times weigh less (min-SNR, arXiv 2303.09556, section 3.4); 0: none do.
    """
    weight = (1 / signal).clamp(max=darkest)
    if clearest:
        weight = weight * (clearest * (1 - signal) / signal).clamp(max=1)
    return weight
