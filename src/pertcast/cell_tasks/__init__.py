"""Cells at work, a file per task: tested, and models of them fitted, asked, scored, compared; from file to file."""
