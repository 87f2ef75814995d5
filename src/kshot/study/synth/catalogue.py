"""Every experiment by its name."""

from collections.abc import Mapping

from kshot.study.synth.architectures import ARCHITECTURES
from kshot.study.synth.composition import COMPOSITION
from kshot.study.synth.experiment import Experiment
from kshot.study.synth.function_classes import FUNCTION_CLASSES
from kshot.study.synth.ginc import GINC
from kshot.study.synth.linear_attention import LINEAR_ATTENTION
from kshot.study.synth.prompt_tuning import PROMPT_TUNING
from kshot.study.synth.scaling import SCALING
from kshot.study.synth.task_diversity import TASK_DIVERSITY
from kshot.study.synth.which_algorithm import WHICH_ALGORITHM

EXPERIMENTS: Mapping[str, Experiment] = {
    "linear-attention-is-gradient-descent": LINEAR_ATTENTION,
    "function-classes": FUNCTION_CLASSES,
    "task-diversity": TASK_DIVERSITY,
    "which-algorithm": WHICH_ALGORITHM,
    "ginc": GINC,
    "architectures": ARCHITECTURES,
    "composition": COMPOSITION,
    "scaling": SCALING,
    "prompt-tuning": PROMPT_TUNING,
}
