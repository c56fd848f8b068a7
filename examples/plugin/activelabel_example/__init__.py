"""A plug-in for ActiveLabel: one of each kind."""
