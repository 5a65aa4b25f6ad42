"""The losses. Images of small sets share captions, so an equal text is a positive and never a negative."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812


@dataclass(frozen=True)
class HardNegatives:
    """Texts that are wrong for one image each: features [K, D] of unit norm, and the images `owners` [K]."""

    text_features: torch.Tensor
    owners: torch.Tensor


@dataclass(frozen=True)
class Mirrored:
    """Mirrored images that are wrong for the text of their own image: features [M, D] of unit norm, `owners` [M]."""

    image_features: torch.Tensor
    owners: torch.Tensor


def positive_pairs(
    text_ids: torch.Tensor,
    pooled: torch.Tensor | None = None,
    assertions: torch.Tensor | None = None,
    near_equal: float = 1.0,
) -> torch.Tensor:
    """[N, N] bool: which texts of a batch count as equal.

    Texts with the same id are equal. With `pooled` [N, W], so are texts whose pooled features have a cosine of at least
    `near_equal` and whose `assertions` [N] (see `Texts`) are the same.
    """
    same = text_ids[:, None] == text_ids[None, :]
    if pooled is None or assertions is None:
        return same
    unit = F.normalize(pooled, dim=-1)
    return same | ((unit @ unit.T >= near_equal) & (assertions[:, None] == assertions[None, :]))


def multi_positive_infonce(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    positive: torch.Tensor,
    hard: HardNegatives | None = None,
    mirror: Mirrored | None = None,
) -> torch.Tensor:
    """InfoNCE in both directions (Radford et al. 2021) with several positives (Khosla et al. 2020, L_out).

    Features are [N, D] of unit norm, `positive` [N, N] bool, symmetric. With the diagonal alone this is CLIP's loss
    exactly. Hard negatives join the sum over texts of their own image (after Yuksekgonul et al. 2023), mirrored images
    the sum over images of their own text.
    """
    logits = logit_scale * image_features @ text_features.T  # [N, N]
    target = positive.to(logits.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    over_texts, over_images = logits, logits.T
    if hard is not None:
        extra = logit_scale * image_features @ hard.text_features.T  # [N, K]
        over_texts = torch.cat([logits, _of_owners(extra, hard.owners)], dim=1)
    if mirror is not None:
        extra = logit_scale * text_features @ mirror.image_features.T  # [N, M]
        over_images = torch.cat([logits.T, _of_owners(extra, mirror.owners)], dim=1)
    to_text = -(target * F.log_softmax(over_texts, dim=1)[:, : len(logits)]).sum(dim=1).mean()
    to_image = -(target * F.log_softmax(over_images, dim=1)[:, : len(logits)]).sum(dim=1).mean()
    return (to_text + to_image) / 2


def _of_owners(extra: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Logits [N, K] with minus infinity where a column's owner is not the row."""
    mine = owners[None, :] == torch.arange(len(extra), device=extra.device)[:, None]
    return extra.masked_fill(~mine, -torch.inf)


def pairwise_sigmoid(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    positive: torch.Tensor,
    hard: HardNegatives | None = None,
    mirror: Mirrored | None = None,
) -> torch.Tensor:
    """SigLIP's loss (Zhai et al. 2023): each pair is classified alone; the sum over all pairs, divided by the number of
    images.

    Arguments as for InfoNCE. With the diagonal alone as positives it is the paper's loss.
    """
    logits = logit_scale * image_features @ text_features.T + logit_bias
    sign = 2.0 * positive.to(logits.dtype) - 1.0
    total = -F.logsigmoid(sign * logits).sum()
    if hard is not None:
        cosines = (image_features[hard.owners] * hard.text_features).sum(dim=-1)
        total = total - F.logsigmoid(-(logit_scale * cosines + logit_bias)).sum()
    if mirror is not None:
        cosines = (text_features[mirror.owners] * mirror.image_features).sum(dim=-1)
        total = total - F.logsigmoid(-(logit_scale * cosines + logit_bias)).sum()
    return total / len(logits)


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
