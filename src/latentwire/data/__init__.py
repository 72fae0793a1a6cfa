"""Rows with questions, articles of plain text, how SQuAD is split, and how the data of training is made."""
