"""tithe: a weighted subset of a corpus, by clustering-based sensitivity sampling on Apache Beam."""

__version__ = "0.1.0"
