"""What was asked as plain values: the one shape that the command, REST and the report show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from analytics.money.ask import Asked
from analytics.money.sensitivity import Sensitivity


def told(asked: Asked) -> dict[str, Any]:
    """Everything of an answer but the draws of its curve; times in epoch nanoseconds."""
    exposure = asked.exposure
    curve = asked.curve
    return {
        "path": asked.path, "kpi": asked.kpi, "unit": asked.unit, "from_ns": asked.from_ns, "to_ns": asked.to_ns,
        "exposure": exposure.kind, "stage": exposure.stage, "threshold_ns": exposure.threshold_ns,
        "exposure_words": exposure.words, "exposure_unit": exposure.unit, "sentence": asked.sentence,
        **_ladder(asked.result),
        "source": asked.source, "rows": asked.rows, "messages": asked.messages, "sampled": asked.sampled,
        "left_out": dict(asked.left_out), "mean": asked.mean, "exposure_mean": asked.exposure_mean,
        "least": asked.least, "most": asked.most, "cluster_s": asked.cluster_s, "stratum_s": asked.stratum_s,
        "curve": None if curve is None else {
            "direction": curve.direction, "rows": curve.n, "blocks": curve.days,
            "saturated_from": curve.saturated_from_ms,
            "points": [
                {"at": at, "level": level, "low": low, "high": high}
                for at, level, low, high in zip(
                    curve.at_ms.tolist(), curve.level.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True
                )
            ],
        },
        "no_curve": asked.no_curve,
        "event_study": None if asked.natural is None else {
            "pre_trend_p": asked.natural.pre_trend_p, "kpi_moved": asked.natural.kpi_moved,
            "exposure_moved": asked.natural.exposure_moved,
            "periods": [asdict(one) for one in asked.natural.periods],
        },
        "by": asked.by,
        "groups": [
            {
                "value": group.value, "rows": group.rows, "mean": group.mean, "refused": group.refused,
                "sentence": group.result.sentence if group.result else group.refused,
                "answer": asdict(group.result.answer) if group.result else None,
                "checks_failed": list(group.result.checks_failed) if group.result else [],
            }
            for group in asked.groups
        ],
        "completeness": asked.completeness, "notes": list(asked.notes),
    }  # fmt: skip


def _ladder(result: Sensitivity) -> dict[str, Any]:
    return {
        "answer": asdict(result.answer),
        "rungs": [asdict(one) for one in result.rungs],
        "naive": asdict(result.naive),
        "checks": [asdict(one) for one in result.checks],
        "checks_failed": list(result.checks_failed),
    }
