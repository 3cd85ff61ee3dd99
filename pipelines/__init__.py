"""tithe: a weighted subset of a corpus, by clustering-based sensitivity sampling on Apache Beam."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tithe.sensitivity_sample import SensitivitySample
    from tithe.transforms.weighted_sample import WeightedSample

__version__ = "0.1.0"

__all__ = ["SensitivitySample", "WeightedSample", "__version__"]


def __getattr__(name: str) -> Any:
    """The transforms, imported when they are asked for: `tithe --help` must not wait for Beam."""
    if name == "SensitivitySample":
        from tithe.sensitivity_sample import SensitivitySample

        return SensitivitySample
    if name == "WeightedSample":
        from tithe.transforms.weighted_sample import WeightedSample

        return WeightedSample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
