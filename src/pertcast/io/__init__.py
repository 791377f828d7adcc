"""Reading and writing: competition tables, single-cell files, arrays of models."""
