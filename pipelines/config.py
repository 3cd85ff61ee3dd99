"""The configuration of a selection: one frozen, strict model for each section of the YAML file.

Every key has its help text here and nowhere else; `example` and `schema` print it. Nothing heavy is imported, so that a
mistake in a configuration is told at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tithe import config_checks, config_errors, config_help, config_source
from tithe.transforms.errors import UsageError

MIB = 1 << 20

Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
# `module:name`, both of them dotted names
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]


class Section(BaseModel):
    """A mapping of known keys whose values have exactly the stated types; an integer serves as a number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Input(Section):
    """Where the records are and how they are read."""

    files: Name | Annotated[list[Name], Field(min_length=1)] = Field(
        examples=["corpus/*.jsonl"],
        description="A glob or a list of them: local (relative to the current folder), gs://, s3:// or hdfs://.",
    )
    format: Literal["parquet", "jsonl", "csv", "text"] | None = Field(
        default=None, description="The format of the files; null tells it from their suffix."
    )
    id: Name | None = Field(
        default=None,
        description="A field with a unique id, so that the sample outlives a new division into files; "
        "null: file and position.",
    )
    split_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=64 * MIB,
        description="Bytes of input that one worker reads at a time; fewer for more parallelism, more for fewer parts.",
    )
    max_record_bytes: Count = Field(
        default=16 * MIB, description="A longer record is a dead letter; raise it where long records are right."
    )
    max_bad_fraction: Share = Field(
        default=0.01, description="The run fails above this share of bad records; 0 allows none, 1 any number."
    )
    on_bad_file: Literal["error", "skip"] = Field(
        default="error", description="A truncated or unreadable file ends the run (error) or is set aside (skip)."
    )

    @property
    def patterns(self) -> list[str]:
        """The globs as a list, in the order of the configuration."""
        return [self.files] if isinstance(self.files, str) else list(self.files)


class Labelled(Section):
    """A target beside the input: clusters then hold records that are alike in both."""

    label: Name | None = Field(
        default=None, description="The field of the target; give it wherever there is one, it decides what is gained."
    )
    label_kind: Literal["class", "text", "number"] = Field(
        default="class", description="How the label is read: a class, a text for the same embedder, or a number."
    )
    label_weight: NotNegative = Field(
        default=1.0, description="Weight of the label beside the vector; 1: as much spread as the vectors have."
    )


class ColumnEmbed(Labelled):
    """Vectors that are in the input already."""

    kind: Literal["column"] = Field(description="`column`: the vectors are in the input already.")
    column: Name = Field(
        examples=["vector"],
        description="The column of the vectors: lists or fixed-size binary of float16, float32 or float64.",
    )
    dtype: Literal["float16", "float32", "float64"] = Field(
        default="float32", description="What a column of fixed-size binary holds; a list says so itself."
    )


class HashingEmbed(Labelled):
    """Hashed words and word pairs of text fields: no model, no download."""

    kind: Literal["hashing"] = Field(description="`hashing`: hashed words and word pairs; no model, no download.")
    fields: Annotated[list[Name], Field(min_length=1)] = Field(
        examples=[["docstring", "source"]],
        description="The text fields, joined; a missing one counts as empty, a record without any is bad.",
    )
    dimension: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=256, description="Length of a vector; more tells more words apart and takes more time and disk."
    )


class TfhubEmbed(Labelled):
    """A TF-Hub model or SavedModel that maps strings to vectors."""

    kind: Literal["tfhub"] = Field(description="`tfhub`: a TF-Hub model or SavedModel (extra `tithe[tfhub]`).")
    handle: Name = Field(
        examples=["https://tfhub.dev/google/universal-sentence-encoder/4"],
        description="A hub handle or the folder of a SavedModel that maps strings to vectors.",
    )
    field: Name = Field(examples=["text"], description="The text field that is embedded.")
    signature: Name | None = Field(
        default=None, description="The signature to call; null where the model can be called as it is."
    )
    input: Name | None = Field(
        default=None, description="The signature's argument for the strings; null where it has just one."
    )
    output: Name | None = Field(
        default=None, description="The signature's result that holds the vectors; null where it has just one."
    )
    batch: Count = Field(default=32, description="Texts in a call of the model; more is faster while memory lasts.")


class ModelEmbed(Labelled):
    """Any Beam `ModelHandler` that returns vectors."""

    kind: Literal["model"] = Field(description="`model`: any Beam ModelHandler that returns vectors.")
    handler: Reference = Field(
        examples=["encoders:handler"], description="module:object, where the object is a ModelHandler."
    )
    field: Name = Field(examples=["text"], description="The field that the model is given.")
    code: Name | None = Field(
        default=None, description="A Python file that holds the module and is sent along; null: it is installed."
    )
    batch: Count = Field(default=32, description="Records in a call of the model; more is faster while memory lasts.")


class Cluster(Section):
    """How the vectors are clustered."""

    count: Count | Literal["auto"] = Field(
        default=200,
        description="Number of clusters, and of losses asked for; more fit better and cost more. auto: by "
        "loss.max_calls.",
    )
    rounds: Count = Field(default=8, description="Rounds of mini-batch k-means; after some ten little changes.")
    batch: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="Share of the vectors that a round reads; never fewer than 10,000, and ten a cluster."
    )
    seed: Seed = Field(default=1, description="Seed of the clustering, apart from the seed of the draw.")


class NoLoss(Section):
    """No losses and no calls: equal probabilities, drawn along the clusters."""

    kind: Literal["none"] = Field(description="`none`: no losses, no calls; equal probabilities along the clusters.")


class ConstantLoss(Section):
    """The same loss for every record: only the distances count."""

    kind: Literal["constant"] = Field(description="`constant`: no losses; the distances alone decide.")


class AskedLoss(Section):
    """Losses that are asked for: those of the representatives and of the pilot."""

    pilot: Annotated[int, Field(ge=0)] = Field(
        default=200, description="Records drawn uniformly whose losses fit and check the proxy; 200 are enough."
    )
    max_calls: Count | None = Field(
        default=None,
        description="Losses asked for at most, pilot included; `cluster.count: auto` makes the most of it.",
    )


class ColumnLoss(AskedLoss):
    """Losses that are in the input already."""

    kind: Literal["column"] = Field(description="`column`: the losses are in the input already.")
    column: Name = Field(
        examples=["loss"], description="The column of the losses: finite, not negative; read where they are asked for."
    )


class FileLoss(AskedLoss):
    """Losses that somebody fills into a file; the run waits for them with exit code 3."""

    kind: Literal["file"] = Field(description="`file`: the run writes the records, you fill in their losses.")
    path: Name = Field(
        examples=["out/losses.parquet"],
        description="The file with the records and an empty column `loss` to fill: .parquet, .csv or .jsonl.",
    )


class ModelLoss(AskedLoss):
    """Losses from the user's own model, asked for the representatives and the pilot alone."""

    kind: Literal["model"] = Field(description="`model`: a function or ModelHandler, called for few records.")
    function: Reference = Field(
        examples=["losses:loss"],
        description="module:name, a function from a list of records to their losses, or a ModelHandler.",
    )
    code: Name | None = Field(
        default=None, description="A Python file that holds the module and is sent along; null: it is installed."
    )
    batch: Count = Field(default=32, description="Records in a call of the function.")
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=3, description="Times that a failed batch is tried again, after a pause that doubles."
    )


class Score(Section):
    """How losses and distances become the proxy loss."""

    kind: Literal["smoothed", "plain"] | None = Field(
        default=None,
        description="`smoothed` over the nearest anchors (null: so where there are losses), or `plain`, the paper's.",
    )
    lipschitz: NotNegative | Literal["balanced"] | None = Field(
        default=None,
        description="Weight of the distance: a number, `balanced` (equal totals, for plain), null: chosen by the "
        "pilot.",
    )
    power: Literal[1, 2] = Field(
        default=2, description="Power of the distance in a plain proxy: 2, or 1, the safe reading of a smooth loss."
    )
    floor: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Share of the probability that is uniform; null: chosen by the pilot (plain: 0)."
    )
    neighbors: Annotated[int, Field(ge=1, le=32)] | None = Field(
        default=None, description="Anchors that a smoothed proxy looks at; null: 5. Three to ten are much alike."
    )


class Sample(Section):
    """How many records are drawn, and how."""

    size: Count | None = Field(
        default=None,
        examples=[2000],
        description="Number of draws; the sampling error falls with its square root.",
    )
    epsilon: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="In place of size: error in units of the proxy's total, kept with probability 1 - delta.",
    )
    delta: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="With epsilon: probability that the promise fails."
    )
    standard_error: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="In place of size: relative standard error of the total loss, predicted by the pilot."
    )
    method: Literal["systematic", "pareto", "multinomial", "poisson"] = Field(
        default="systematic",
        description="`systematic` (best), `pareto`, `multinomial` (the paper's independent draws), `poisson`.",
    )
    seed: Seed = Field(default=17, description="Seed of the draw; another one draws anew without clustering again.")


class Output(Section):
    """Where the sample goes."""

    path: Name = Field(
        examples=["out/demo"],
        description="The folder for sample/, manifest.json and dead_letter/: new, or tithe's own.",
    )
    work: Name | None = Field(
        default=None, description="The folder of the stages, with room for a copy of the vectors; null: work/ in path."
    )
    keep_work: bool = Field(
        default=True, description="Keep the stages, so that the next run starts from them; false saves their space."
    )
    shared: bool = Field(
        default=False,
        description="Local paths here are on a mount that all workers have under the same name; false: they may not.",
    )


Embed = Annotated[ColumnEmbed | HashingEmbed | TfhubEmbed | ModelEmbed, Field(discriminator="kind")]
Loss = Annotated[NoLoss | ConstantLoss | ColumnLoss | FileLoss | ModelLoss, Field(discriminator="kind")]


class Config(Section):
    """The configuration of `tithe select`."""

    input: Input = Field(description="Where the records are and how they are read.")
    embed: Embed = Field(description="How a record becomes a vector.")
    cluster: Cluster = Field(default=Cluster(), description="How the vectors are clustered.")
    loss: Loss = Field(
        default=ConstantLoss(kind="constant"), description="Where the losses of the representatives come from."
    )
    score: Score = Field(default=Score(), description="How losses and distances become the proxy loss of a record.")
    sample: Sample = Field(description="How many records are drawn, and how.")
    output: Output = Field(description="Where the sample and the stages go.")

    @property
    def smoothed(self) -> bool:
        """Whether the proxy is smoothed over the nearest anchors, as it is by default where losses are asked for."""
        return isinstance(self.loss, AskedLoss) and self.score.kind != "plain"


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, after overrides of the form `section.key=value` (value: YAML).

    Raises UsageError with every mistake found, each with its key, its value, and what is allowed.
    """
    data, mistakes = config_source.read(Path(path), overrides)
    return validated(data, str(path), mistakes)


def validated(data: Mapping[Any, Any], name: str, mistakes: Sequence[str] = ()) -> Config:
    """The configuration that plain data describe; `name` is what an error calls them.

    Raises UsageError with every mistake found, those given here first.
    """
    # `cluster:` with nothing below it is a section left out
    data = {key: value for key, value in data.items() if value is not None or key not in Config.model_fields}
    mistakes = list(mistakes)
    config: Config | None = None
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        mistakes += config_errors.explain(error, Config)
    if config is not None:
        mistakes += config_checks.check(config)
    if config is None or mistakes:
        raise UsageError("\n  ".join([f"{name}: the configuration is not valid", *mistakes]))
    return config


def example() -> str:
    """A commented YAML file with every key, which `load` accepts; the other kinds of a section stand in comments."""
    return config_help.example(Config, {"embed": HashingEmbed, "loss": ConstantLoss})


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
