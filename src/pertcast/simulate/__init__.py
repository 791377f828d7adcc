"""Simulated data whose truth is known. Whatever comes from here must be called simulated."""
