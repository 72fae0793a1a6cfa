"""Experiments: many runs from one file, trained, evaluated and compared; and a report of any of them."""
