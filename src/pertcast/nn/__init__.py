"""Neural pieces: layers, losses, optimisers and the one training loop."""
