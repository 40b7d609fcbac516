"""Adaptive inference for edge devices: one model, many operating points, chosen frame by frame."""

from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle, default_bundle_path
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.frame import Frame
from edge_runtime.result import Box, Classification, Decision, Result
from edge_runtime.runtime import Runtime

__all__ = [
    "Box",
    "Budget",
    "Bundle",
    "Classification",
    "Decision",
    "EdgeRuntimeError",
    "Frame",
    "Result",
    "Runtime",
    "default_bundle_path",
]
