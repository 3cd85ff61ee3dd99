"""From sections of the configuration to what the workers are given: embedders, losses, and the user's code."""

from pathlib import Path

from tithe.config import ColumnEmbed, ColumnLoss, Config, HashingEmbed, ModelLoss, TfhubEmbed
from tithe.transforms.embedders import ColumnEmbedder, Embedder, HashingEmbedder, ModelEmbedder, TfhubEmbedder
from tithe.transforms.errors import UsageError
from tithe.transforms.files import absolute
from tithe.transforms.losses import ColumnLosses, LossSource, ModelLosses
from tithe.transforms.usercode import UserCode
from tithe.workspace import fingerprint


def user_code(reference: str, code: str | None, key: str) -> UserCode:
    """Returns the code that a section names, its file read; UsageError where the file cannot be."""
    if code is None:
        return UserCode(reference, None, key)
    try:
        return UserCode(reference, Path(code).read_text(encoding="utf-8"), key)
    except (OSError, UnicodeDecodeError) as error:
        section = key.partition(".")[0]
        raise UsageError(f"{section}.code: cannot read {code}: {error}; it must be a Python file") from error


def embedder(config: Config) -> tuple[Embedder, str]:
    """Returns the embedder of the configuration, and a fingerprint of what it is."""
    embed = config.embed
    if isinstance(embed, ColumnEmbed):
        made: Embedder = ColumnEmbedder(embed.column, embed.dtype)
    elif isinstance(embed, HashingEmbed):
        made = HashingEmbedder(tuple(embed.fields), embed.dimension)
    elif isinstance(embed, TfhubEmbed):
        handle = embed.handle if "://" in embed.handle else absolute(embed.handle)
        made = TfhubEmbedder(handle, (embed.field,), embed.signature, embed.input, embed.output, embed.batch)
        return made, f"{made!r} {fingerprint(_folder_content(handle))}"
    else:
        code = user_code(embed.handler, embed.code, "embed.handler")
        code.load()
        return ModelEmbedder(code, embed.field, embed.batch), f"model {embed.field} {embed.batch} {code.fingerprint}"
    return made, repr(made)


def _folder_content(folder: str) -> list[list[str | int]]:
    """What tells another model in the same folder: its files with sizes and modification times."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def loss_source(config: Config, work: str) -> tuple[LossSource | None, str]:
    """Returns where losses come from (None where nothing is asked), and a fingerprint of it."""
    loss = config.loss
    if isinstance(loss, ColumnLoss):
        return ColumnLosses(loss.column), f"column {loss.column}"
    if isinstance(loss, ModelLoss):
        code = user_code(loss.function, loss.code, "loss.function")
        code.load()
        cache = f"{work}/loss-cache-{fingerprint(code.fingerprint)}"
        return ModelLosses(code, loss.batch, loss.retries, cache), f"model {loss.batch} {code.fingerprint}"
    return None, loss.kind
