"""Differential expression: from expression per sample to signed -log10 p per gene and contrast."""
