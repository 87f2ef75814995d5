"""Every experiment by its name."""

from collections.abc import Mapping

from kshot.study.synth.experiment import Experiment
from kshot.study.synth.linear_attention import LINEAR_ATTENTION

EXPERIMENTS: Mapping[str, Experiment] = {
    "linear-attention-is-gradient-descent": LINEAR_ATTENTION,
}
