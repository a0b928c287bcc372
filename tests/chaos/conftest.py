"""Fixtures of the chaos tests: those of the end-to-end tests."""

from tests.end_to_end.conftest import hub

__all__ = ["hub"]
