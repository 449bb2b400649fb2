"""The native operator: multi-scale deformable attention, in PyTorch and as kernels for CPUs and CUDA.

``ops/README.md`` explains how kernels are built and chosen; ``python -m detrex.ops_info`` tells which one
runs.
"""

from detrex.ops.dispatch import attend_around, force_implementation, multi_scale_deformable_attention
from detrex.ops.flops import FLOP_FORMULAS
from detrex.ops.reference import multi_scale_deformable_attention_reference

__all__ = [
    "FLOP_FORMULAS",
    "attend_around",
    "force_implementation",
    "multi_scale_deformable_attention",
    "multi_scale_deformable_attention_reference",
]
