"""The experiments, one file each; importing an experiment lists it in `EXPERIMENTS`."""

from secondsight.evaluation.experiments.approximation import Approximation
from secondsight.evaluation.experiments.base import EXPERIMENTS, Experiment, Record
from secondsight.evaluation.experiments.collage import Collage
from secondsight.evaluation.experiments.compare import Compare
from secondsight.evaluation.experiments.compositionality import Compositionality
from secondsight.evaluation.experiments.cost import Cost
from secondsight.evaluation.experiments.discrimination import Discrimination
from secondsight.evaluation.experiments.edits import Edits
from secondsight.evaluation.experiments.failures import Failures
from secondsight.evaluation.experiments.faithfulness import Faithfulness
from secondsight.evaluation.experiments.hard_negatives import HardNegatives
from secondsight.evaluation.experiments.joint_perturbation import JointPerturbation
from secondsight.evaluation.experiments.perturbation import Perturbation
from secondsight.evaluation.experiments.pointing import Pointing
from secondsight.evaluation.experiments.references import References
from secondsight.evaluation.experiments.sanity import Sanity
from secondsight.evaluation.experiments.segmentation import Segmentation
from secondsight.evaluation.experiments.sensitivity import Sensitivity
from secondsight.evaluation.experiments.sts import Sts

__all__ = [
    "EXPERIMENTS",
    "Approximation",
    "Collage",
    "Compare",
    "Compositionality",
    "Cost",
    "Discrimination",
    "Edits",
    "Experiment",
    "Failures",
    "Faithfulness",
    "HardNegatives",
    "JointPerturbation",
    "Perturbation",
    "Pointing",
    "Record",
    "References",
    "Sanity",
    "Segmentation",
    "Sensitivity",
    "Sts",
]
