"""TF-Hub handles and SavedModels as a function from texts to vectors."""

import os
from collections.abc import Callable
from typing import Any

from tithe.transforms.errors import InputError, TitheError, UsageError


def load_saved_model(
    handle: str, signature: str | None, input: str | None, output: str | None
) -> Callable[[list[str]], Any]:
    """Returns a function from a list of n texts to what the model gives, an array of n rows.

    Args:
        handle: of TF-Hub, or a folder with a SavedModel.
        signature: to call; None where the model can be called as it is.
        input: the signature's argument for the texts; None where it has just one.
        output: which of its results; None where it has just one.

    Raises:
        UsageError: TensorFlow is not installed, or the model has no such signature, input or output.
        InputError: the model cannot be loaded, or fails on some texts.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the log of its start is of no use here
    try:
        import tensorflow as tf
        import tensorflow_hub as hub
    except ImportError as error:
        raise UsageError(f"embed.kind tfhub needs `pip install 'tithe[tfhub]'`: {error}") from error
    try:
        model = hub.load(handle)
    except Exception as error:
        raise InputError(f"embed.handle: cannot load {handle!r}: {_told(error)}") from error
    function, input = _function(model, signature, input)

    def call(texts: list[str]) -> Any:
        given = tf.constant(texts)
        try:
            result = function(**{input: given}) if input else function(given)
            return _chosen(result, output).numpy()
        except TitheError:
            raise
        except Exception as error:
            raise InputError(f"embed.handle: {handle!r} failed on {len(texts)} texts: {_told(error)}") from error

    # The model is kept alive by its function only while something refers to it.
    call.model = model  # type: ignore[attr-defined]
    return call


def _function(model: Any, signature: str | None, input: str | None) -> tuple[Any, str | None]:
    """What is to be called, and the name of its argument; None where texts are given by place."""
    there = ", ".join(getattr(model, "signatures", {})) or "none"
    if signature is None:
        if not callable(model):
            raise UsageError(
                f"embed.signature: the model cannot be called as it is; name one of its signatures: {there}"
            )
        return model, input
    if signature not in getattr(model, "signatures", {}):
        raise UsageError(f"embed.signature: no {signature!r}; the model has: {there}")
    function = model.signatures[signature]
    names = sorted(function.structured_input_signature[1])
    if input is None and len(names) > 1:
        raise UsageError(f"embed.input: {signature!r} takes several: {', '.join(names)}; name the one for the texts")
    if input is not None and input not in names:
        raise UsageError(f"embed.input: no {input!r}; {signature!r} takes: {', '.join(names)}")
    return function, input or names[0]


def _chosen(result: Any, output: str | None) -> Any:
    """The result, or the one of several that is named."""
    if not isinstance(result, dict):
        return result
    there = ", ".join(sorted(result))
    if output is None and len(result) > 1:
        raise UsageError(f"embed.output: the model gives several: {there}; name one")
    if output is not None and output not in result:
        raise UsageError(f"embed.output: no {output!r}; the model gives: {there}")
    return result[output or next(iter(result))]


def _told(error: Exception) -> str:
    """An error in one line; TensorFlow's go on for pages."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]
