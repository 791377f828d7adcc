"""Five stories on simulated cells whose truth is known: one file each, one command each."""
