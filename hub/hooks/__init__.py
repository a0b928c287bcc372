"""Hooks: a program's own word on what people may see and do, and on what devices send (docs/how-to/hooks.md)."""

from hub.hooks.answer import Columns, Context, Readings, Reject

__all__ = ["Columns", "Context", "Readings", "Reject"]
