"""Experiments: many runs from one file, trained and evaluated, compared with one another; and a report of any of them."""
