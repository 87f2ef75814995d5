"""What is measured, by name: of answers, of what demonstrations do inside a model, and of two predictors.

Rules that turn predictions into scores are in ``kshot.measure.calibrate.SCORES``.
"""

from collections.abc import Callable
from typing import Any

from kshot.measure.attention_ranks import example_kendall, kendall, top_k_recall
from kshot.measure.attribution import (
    attention_mass,
    gradient_times_input,
    leave_one_out,
    rank_agreement,
    shapley,
)
from kshot.measure.direct import direct_effect
from kshot.measure.dual import as_attention, descent, linear_attention, split, weight_update, zero_shot_weight
from kshot.measure.implicit import angles, demonstration_terms, effective_rank, meta_gradients, relaxed, update_norm
from kshot.measure.intervals import mcnemar, mean_interval, wilson
from kshot.measure.metrics import accuracy, calibration_curve, confusion, ece, log_loss, macro_f1, tied
from kshot.measure.order_effects import common_token_bias, majority_bias, order_scores, recency_bias
from kshot.measure.predictors import prediction_distance, sensitivity_cosine, sensitivity_distance
from kshot.measure.similarity import rec2ftp, repeatability, sim_am, sim_am_delta, sim_aou
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
    "calibration_curve": calibration_curve,
    "cluster_share": cluster_share,
    "confusion": confusion,
    "domain_share": domain_share,
    "ece": ece,
    "label_share": label_share,
    "log_loss": log_loss,
    "macro_f1": macro_f1,
    "mcnemar": mcnemar,
    "mean_interval": mean_interval,
    "nearest_tokens": nearest_tokens,
    "prompt_perplexity": prompt_perplexity,
    "repeated_share": repeated_share,
    "tied": tied,
    "wilson": wilson,
}

OF_DEMONSTRATIONS: dict[str, Callable[..., Any]] = {
    "angles": angles,
    "as_attention": as_attention,
    "attention_mass": attention_mass,
    "common_token_bias": common_token_bias,
    "demonstration_terms": demonstration_terms,
    "descent": descent,
    "direct_effect": direct_effect,
    "effective_rank": effective_rank,
    "example_kendall": example_kendall,
    "gradient_times_input": gradient_times_input,
    "kendall": kendall,
    "leave_one_out": leave_one_out,
    "linear_attention": linear_attention,
    "majority_bias": majority_bias,
    "meta_gradients": meta_gradients,
    "order_scores": order_scores,
    "rank_agreement": rank_agreement,
    "rec2ftp": rec2ftp,
    "recency_bias": recency_bias,
    "relaxed": relaxed,
    "repeatability": repeatability,
    "shapley": shapley,
    "sim_am": sim_am,
    "sim_am_delta": sim_am_delta,
    "sim_aou": sim_aou,
    "split": split,
    "top_k_recall": top_k_recall,
    "update_norm": update_norm,
    "weight_update": weight_update,
    "zero_shot_weight": zero_shot_weight,
}

OF_PREDICTORS: dict[str, Callable[..., Any]] = {
    "prediction_distance": prediction_distance,
    "sensitivity_cosine": sensitivity_cosine,
    "sensitivity_distance": sensitivity_distance,
}
