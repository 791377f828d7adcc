"""Scores as tables and pictures, never without their floors and their ceiling."""
