"""How rows are held out, and how models are scored on them."""
