"""Closed-form inverses of operators."""
