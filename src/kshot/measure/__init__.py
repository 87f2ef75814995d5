"""What is measured, by name; rules that turn predictions into scores are in ``kshot.measure.calibrate.SCORES``."""

from collections.abc import Callable
from typing import Any

from kshot.measure.intervals import bootstrap_mean, mcnemar, wilson
from kshot.measure.metrics import accuracy, calibration_curve, confusion, ece, log_loss, macro_f1, tied
from kshot.measure.soft_prompt import (
    cluster_share,
    domain_share,
    label_share,
    nearest_tokens,
    prompt_perplexity,
    repeated_share,
)

MEASURES: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy,
    "bootstrap_mean": bootstrap_mean,
    "calibration_curve": calibration_curve,
    "cluster_share": cluster_share,
    "confusion": confusion,
    "domain_share": domain_share,
    "ece": ece,
    "label_share": label_share,
    "log_loss": log_loss,
    "macro_f1": macro_f1,
    "mcnemar": mcnemar,
    "nearest_tokens": nearest_tokens,
    "prompt_perplexity": prompt_perplexity,
    "repeated_share": repeated_share,
    "tied": tied,
    "wilson": wilson,
}
