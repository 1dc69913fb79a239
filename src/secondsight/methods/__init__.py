"""Ways to make contribution vectors, one short file each; a new one needs one line here."""

from secondsight.methods.attention_relevance import AttentionRelevance as AttentionRelevance
from secondsight.methods.attention_rollout import AttentionRollout as AttentionRollout
from secondsight.methods.banzhaf import Banzhaf as Banzhaf
from secondsight.methods.base import METHODS as METHODS
from secondsight.methods.base import Method as Method
from secondsight.methods.base import method_named as method_named
from secondsight.methods.bilinear_lime import BilinearLime as BilinearLime
from secondsight.methods.chained_jacobian import ChainedJacobian as ChainedJacobian
from secondsight.methods.collection import CollectionMethod as CollectionMethod
from secondsight.methods.first_order import FirstOrder as FirstOrder
from secondsight.methods.grad_eclip import GradEclip as GradEclip
from secondsight.methods.integrated_jacobian import IntegratedJacobian as IntegratedJacobian
from secondsight.methods.jacobian_times_input import JacobianTimesInput as JacobianTimesInput
from secondsight.methods.legrad import LeGrad as LeGrad
from secondsight.methods.mask_clip import MaskClip as MaskClip
from secondsight.methods.occlusion import Occlusion as Occlusion
from secondsight.methods.presets import PRESETS as PRESETS
from secondsight.methods.presets import as_method as as_method
from secondsight.methods.presets import method_of_text as method_of_text
from secondsight.methods.presets import method_or_preset as method_or_preset
from secondsight.methods.shapley import Shapley as Shapley
from secondsight.methods.token_embeddings import TokenEmbeddings as TokenEmbeddings
from secondsight.methods.waypoint_jacobian import WaypointJacobian as WaypointJacobian
