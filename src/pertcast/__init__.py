"""Forecast how cells respond to perturbations."""

__version__ = "0.1.0"
