"""The steps of a selection as Beam transforms, and the numeric kernels below them."""
