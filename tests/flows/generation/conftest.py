"""The tiny random model of tests of training."""

from __future__ import annotations

from tests.flows.training.conftest import components, tiny_model

__all__ = ["components", "tiny_model"]
