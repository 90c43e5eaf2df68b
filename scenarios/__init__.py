"""Whole worlds: scenario files and what plays them."""
