"""What turns the last features of a token into a distribution to learn and to draw from."""

from tsar.core.heads.categorical import CategoricalHead
from tsar.core.heads.diffusion import DiffusionHead
from tsar.core.heads.flow import FlowHead
from tsar.core.heads.joint_flow import JointFlowHead
from tsar.core.heads.squared_error import SquaredErrorHead

__all__ = [
    "CategoricalHead",
    "DiffusionHead",
    "FlowHead",
    "JointFlowHead",
    "SquaredErrorHead",
]
