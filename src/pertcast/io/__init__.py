"""Reading and writing: competition tables, single-cell files, arrays of models. Everything is written whole or not at all."""
