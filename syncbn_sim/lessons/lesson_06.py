"""Exercises of lesson 06: synchronised batch norm."""

from __future__ import annotations

from .exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
