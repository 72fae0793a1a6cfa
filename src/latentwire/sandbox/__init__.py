"""The embedded default: three small English readers trained from scratch, and what made them."""
