"""Rows with questions, articles of plain text, and how SQuAD is split."""
