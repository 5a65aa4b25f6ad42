"""The losses. Small sets share captions between images: an equal text is a positive, never a negative."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812


def multi_positive_infonce(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor, text_ids: torch.Tensor
) -> torch.Tensor:
    """InfoNCE both ways (Radford et al. 2021) with every pair of equal text as a positive (Khosla et al. 2020, L_out).

    Features are [N, D] of unit norm, `text_ids` [N] equal where the texts are. With all texts different this is CLIP's
    loss exactly.
    """
    logits = logit_scale * image_features @ text_features.T  # [N, N]
    positive = (text_ids[:, None] == text_ids[None, :]).to(logits.dtype)
    target = positive / positive.sum(dim=1, keepdim=True)
    to_text = -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    to_image = -(target * F.log_softmax(logits.T, dim=1)).sum(dim=1).mean()
    return (to_text + to_image) / 2


def prompt_cross_entropy(
    image_features: torch.Tensor,
    label_features: torch.Tensor,
    logit_scale: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
) -> torch.Tensor:
    """Cross-entropy of the zero-shot classification itself: images [N, D] against one vector per label [L, D].

    `labels` is [N] with -1 for unknown; a batch that knows none gives 0.
    """
    if not bool((labels >= 0).any()):
        return image_features.sum() * 0.0
    logits = logit_scale * image_features @ label_features.T
    return F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=smoothing)
