"""Exercises of lesson 05: ranks and the all-reduce."""

from __future__ import annotations

from .exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
