"""Other toolboxes that can be used together with this one, each in its own module."""
