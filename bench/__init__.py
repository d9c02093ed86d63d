"""Measurements; nothing here passes or fails by a time."""
