"""Training of wires: corpus, step, loop, checkpoints, collapse watch."""
