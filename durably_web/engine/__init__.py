"""`Durably`, the object that users hold: its life, and what can be asked of it, one module for each."""

from durably_web.engine.durably import Durably

__all__ = ["Durably"]
