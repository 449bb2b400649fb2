"""Neighbours: other toolboxes that are used together with this one, each in its own module."""
