"""Evaluation: metrics, runner, tables."""
