"""Measurements of our own claims: both contestants in one run, ratios printed."""
