"""Exercises of lesson 03: the backward pass by hand."""

from __future__ import annotations

from .exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
