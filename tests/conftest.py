"""What every test shares: property tests that are the same on each run, and take the time they need."""

from hypothesis import settings

settings.register_profile("tithe", deadline=None, derandomize=True)
settings.load_profile("tithe")
