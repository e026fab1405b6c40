"""What stacks of blocks do inside: functions on any of them, whatever their tokens stand for."""

from tsar.core.inspection.attention_flow import attention_flow, attention_rollout
from tsar.core.inspection.collapse import rank_residual, residuals_by_depth
from tsar.core.inspection.heads import (
    attention_distance,
    gated_heads,
    head_importance,
    sink_shares,
)
from tsar.core.inspection.implicit_attention import implicit_attention
from tsar.core.inspection.recording import recorded

__all__ = [
    "attention_distance",
    "attention_flow",
    "attention_rollout",
    "gated_heads",
    "head_importance",
    "implicit_attention",
    "rank_residual",
    "recorded",
    "residuals_by_depth",
    "sink_shares",
]
