"""Typed entries."""

from streams.entries.base import EntryType, Statistics

__all__ = ["EntryType", "Statistics"]
