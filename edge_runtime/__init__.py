"""Adaptive inference for edge devices: one model, many operating points, chosen frame by frame."""

__all__: list[str] = []
