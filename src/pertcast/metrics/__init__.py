"""How good a prediction is, and how far the number can be trusted."""
