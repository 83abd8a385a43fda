"""Control and monitor how fast every layer of a network rotates.

Carbonnelle and De Vleeschouwer, On layer-level control of DNN training and its
impact on generalization, 2018 (https://arxiv.org/abs/1806.01603).
"""

from layca_optax._alpha import alpha_learning_rates, alpha_multipliers
from layca_optax._depth import layer_depths
from layca_optax._descent import check_descent
from layca_optax._describe import describe
from layca_optax._layca import LaycaState, layca
from layca_optax._rebase import check_state, rebase
from layca_optax._rotation import layer_rotation
from layca_optax._scalars import rotation_scalars
from layca_optax._sgd_amom import sgd_amom
from layca_optax._skip_nonfinite import SkipNonfiniteState, skip_nonfinite
from layca_optax._track import TrackRotationState, rotation_report, track_rotation

__version__ = "0.1.0"

__all__ = [
    "LaycaState",
    "SkipNonfiniteState",
    "TrackRotationState",
    "alpha_learning_rates",
    "alpha_multipliers",
    "check_descent",
    "check_state",
    "describe",
    "layca",
    "layer_depths",
    "layer_rotation",
    "rebase",
    "rotation_report",
    "rotation_scalars",
    "sgd_amom",
    "skip_nonfinite",
    "track_rotation",
]
