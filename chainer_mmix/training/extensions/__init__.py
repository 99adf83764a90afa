"""Extensions of the Trainer."""

from chainer_mmix.training.extensions.calibration_evaluator import (
    CalibrationEvaluator,
)
from chainer_mmix.training.extensions.decision_boundary_plot import (
    DecisionBoundaryPlot,
)
from chainer_mmix.training.extensions.deformation_evaluator import (
    DeformationEvaluator,
)
from chainer_mmix.training.extensions.evaluator import Evaluator
from chainer_mmix.training.extensions.fail_on_nonnumber import (
    DivergedError,
    FailOnNonNumber,
)
from chainer_mmix.training.extensions.fgsm_evaluator import FgsmEvaluator
from chainer_mmix.training.extensions.half_precision import HalfPrecision
from chainer_mmix.training.extensions.learning_rate import LearningRate
from chainer_mmix.training.extensions.log_report import LogReport
from chainer_mmix.training.extensions.mixup_off import MixupOff
from chainer_mmix.training.extensions.mixup_preview import MixupPreview
from chainer_mmix.training.extensions.mixup_report import MixupReport
from chainer_mmix.training.extensions.mixup_shift import MixupShift
from chainer_mmix.training.extensions.notebook_report import NotebookReport
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator
from chainer_mmix.training.extensions.random_state import RandomState
from chainer_mmix.training.extensions.representation_plot import RepresentationPlot
from chainer_mmix.training.extensions.singular_value_plot import SingularValuePlot
from chainer_mmix.training.extensions.tensorboard_report import TensorBoardReport

__all__ = [
    "CalibrationEvaluator",
    "DecisionBoundaryPlot",
    "DeformationEvaluator",
    "DivergedError",
    "Evaluator",
    "FailOnNonNumber",
    "FgsmEvaluator",
    "HalfPrecision",
    "LearningRate",
    "LogReport",
    "MixupOff",
    "MixupPreview",
    "MixupReport",
    "MixupShift",
    "NotebookReport",
    "PredictorEvaluator",
    "RandomState",
    "RepresentationPlot",
    "SingularValuePlot",
    "TensorBoardReport",
]
