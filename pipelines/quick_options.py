"""Beam's options in a form that is quick to ask.

Beam looks at a view of its options at every step that it adds to a graph and for every type that it compares, and makes
the view, with a parser of its own, each time: much of the time that a graph takes to build.
"""

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions


class QuickOptions(PipelineOptions):
    """PipelineOptions that makes each view once, and leaves the types of steps to the type checker of this package."""

    def __init__(self, flags: list[str]) -> None:
        super().__init__(flags)
        self.view_as(TypeOptions).pipeline_type_check = False

    def view_as(self, cls: Any) -> Any:
        # In __dict__ itself, since setting an attribute sets an option. Views share the values, and hold none.
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> Any:
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}
