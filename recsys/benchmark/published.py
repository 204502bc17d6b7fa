"""Metrics that others have published, to compare ours with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Published:
    """A file as others have used it, known by its counts, and what they reached on it.

    Attributes:
        name: of the data.
        unmasked: preset -> metric -> value, seen items not left out.
        masked: system -> HR@10 and NDCG@10, seen items left out: the strongest that we know, and
            SASRec with a sampled softmax.
    """

    name: str
    unmasked: Mapping[str, Mapping[str, float]]
    masked: Mapping[str, Mapping[str, float]]


def _metrics(*values: float) -> dict[str, float]:
    return dict(zip(METRICS, values, strict=True))


# Tables 3 of arXiv 2410.19429 (diffurecsys) and 2 of arXiv 2304.00686 (diffurec).
# WEARec: one run, the best test of 88 settings; the median of its settings is .0996 / .0595.
# BSARec: 5 seeds by RecBoard, ± .0009 / .0005. ICSRec: a MovieLens-1M of 3,416 items.
# HSTU with MoL: the repository of arXiv 2407.15462. It and FuXi-alpha learn from times and from
# the validation item, and are told the time of the target.
PUBLISHED: Mapping[tuple[int, int, int], Published] = {
    (22_363, 12_101, 198_502): Published(
        "Amazon Beauty",
        {
            "diffurec": _metrics(0.0558, 0.0791, 0.1111, 0.0400, 0.0475, 0.0556),
            "diffurecsys-v1": _metrics(0.0669, 0.0974, 0.1399, 0.0458, 0.0556, 0.0663),
            "diffurecsys": _metrics(0.0667, 0.0980, 0.1400, 0.0458, 0.0559, 0.0665),
        },
        {
            "WEARec, the best test of 88 settings": {"hr@10": 0.1041, "ndcg@10": 0.0614},
            "TV-Rec": {"hr@10": 0.1017, "ndcg@10": 0.0608},
            "BSARec, 5 seeds": {"hr@10": 0.1004, "ndcg@10": 0.0609},
            "SASRec, sampled softmax": {"hr@10": 0.0921, "ndcg@10": 0.0531},
        },
    ),
    (6_040, 3_706, 1_000_209): Published(
        "MovieLens-1M",
        {
            "diffurec": _metrics(0.1797, 0.2626, 0.3679, 0.1212, 0.1479, 0.1744),
            "diffurecsys-v1": _metrics(0.1940, 0.2829, 0.3947, 0.1319, 0.1607, 0.1888),
            "diffurecsys": _metrics(0.1957, 0.2843, 0.3958, 0.1319, 0.1605, 0.1886),
        },
        {
            "ICSRec, 3,416 items": {"hr@10": 0.3369, "ndcg@10": 0.2007},
            "HSTU-large with MoL, learns from times too": {"hr@10": 0.3412, "ndcg@10": 0.1979},
            "FuXi-alpha, learns from times too": {"hr@10": 0.3164, "ndcg@10": 0.1813},
            "SASRec, sampled softmax": {"hr@10": 0.2929, "ndcg@10": 0.1684},
        },
    ),
}
"""By users, items and interactions."""
