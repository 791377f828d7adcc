"""Models of cells at work, a file per task: fitted, asked, scored, compared; each from file to file."""
