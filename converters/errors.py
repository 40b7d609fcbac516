"""Errors of conversion; every message says what, where and what to do."""

from __future__ import annotations


class ConversionError(ValueError):
    """A model, data set or result that conversion refuses."""
