"""The command `tithe`.

Exit codes: 0 done; 1 the run failed; 2 wrong use or configuration; 3 waiting for losses. Imports are made where they
are needed: `tithe --help` must not wait for Beam.
"""

import argparse
import gc
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tithe import __version__
from tithe.transforms.errors import EngineLost, TitheError, UsageError

FAILED, WRONG_USE, WAITING = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, beam = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    options = _parser().parse_args(own)
    if beam and options.command != "select":
        print("tithe: Beam options go with `tithe select` only", file=sys.stderr)
        return WRONG_USE
    try:
        return int(options.call(options, beam))
    except UsageError as error:
        print(f"tithe: {error}", file=sys.stderr)
        return error.exit_code
    except TitheError as error:
        print(f"tithe: {error}", file=sys.stderr)
        if error.exit_code:
            _say_how_to_go_on(options, given)
        if isinstance(error, EngineLost):
            from tithe.runner import exit_now

            exit_now(error.exit_code)  # threads of this process may wait without end for what is gone
        return error.exit_code
    except KeyboardInterrupt:
        from tithe.runner import exit_now

        print("\ntithe: interrupted; the finished stages are kept", file=sys.stderr)
        _say_how_to_go_on(options, given)
        exit_now(FAILED)  # threads that a cancelled pipeline has left behind may go on for long


def _say_how_to_go_on(options: argparse.Namespace, given: list[str]) -> None:
    if options.command in ("select", "evaluate"):
        print(f"tithe: to go on from there: tithe {shlex.join(given)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tithe",
        description="Choose a small weighted subset of a corpus that stands for the whole.",
        epilog="exit codes: 0 done; 1 the run failed; 2 wrong use or configuration; 3 waiting for losses",
    )
    parser.add_argument("--version", action="version", version=f"tithe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    select = commands.add_parser(
        "select",
        help="draw the sample that a configuration describes",
        usage="tithe select CONFIG [--set KEY=VALUE ...] [-- BEAM OPTIONS]",
    )
    select.add_argument("config", metavar="CONFIG", help="a YAML file; `tithe config` prints an example")
    select.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as in sample.size=500"
    )
    select.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="STAGE",
        help="make a stage again: embed, cluster, losses, score or sample",
    )
    select.add_argument("--quiet", action="store_true", help="tell warnings and errors only")
    select.set_defaults(call=_select)
    estimate = commands.add_parser("estimate", help="estimate the total of a value over the corpus from its sample")
    estimate.add_argument("output", metavar="OUT", help="an output folder (output.path) with a finished sample")
    estimate.add_argument(
        "--losses",
        required=True,
        metavar="COLUMN|FILE",
        help="a column of the sample, or a .parquet, .csv or .jsonl file with the sample's ids and a column `loss`",
    )
    estimate.add_argument("--column", metavar="NAME", help="the column of the file, where it is not `loss`")
    estimate.add_argument("--json", action="store_true", help="print JSON")
    estimate.set_defaults(call=_estimate)
    evaluate = commands.add_parser(
        "evaluate", help="compare the errors of ways to draw, on a corpus whose losses are all known"
    )
    evaluate.add_argument("config", metavar="CONFIG", help="a configuration with loss.kind column or model")
    evaluate.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as in cluster.count=500"
    )
    evaluate.add_argument("--seeds", type=int, default=200, help="draws for each error without a closed form (200)")
    evaluate.add_argument("--sizes", metavar="S,S,...", help="sizes of the samples (300,1000,3000)")
    evaluate.add_argument("--json", metavar="FILE", help="write the numbers to this file")
    evaluate.add_argument("--picture", metavar="FILE.png", help="draw error against size (needs tithe[report])")
    evaluate.add_argument("--quiet", action="store_true", help="tell warnings, errors and the tables only")
    evaluate.set_defaults(call=_evaluate)
    config = commands.add_parser("config", help="print a commented configuration with every key")
    config.add_argument("--schema", action="store_true", help="print the JSON schema instead; editors use it")
    config.set_defaults(call=_config)
    clean = commands.add_parser("clean", help="remove stages that the current result does not use")
    clean.add_argument("output", metavar="OUT", help="an output folder (output.path)")
    clean.add_argument(
        "--work", metavar="FOLDER", help="its work folder (output.work), where the manifest does not tell"
    )
    clean.add_argument("--all", action="store_true", help="remove every stage; the sample and the manifest stay")
    clean.set_defaults(call=_clean)
    return parser


@contextmanager
def _importing() -> Iterator[None]:
    """Around imports that bring Beam with them, which warns of extras that are not there.

    What they make lives for good: without the collector, which would walk it over and over, they and the end of the
    process take a third less.
    """
    from tithe.beam_options import silence_root_logger

    silence_root_logger()
    first = "apache_beam" not in sys.modules
    if first:
        gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
            gc.enable()


def _config(options: argparse.Namespace, _: list[str]) -> int:
    from tithe import config

    print(
        json.dumps(config.schema(), indent=2) if options.schema else config.example(),
        end="\n" if options.schema else "",
    )
    return 0


def _select(options: argparse.Namespace, beam: list[str]) -> int:
    from tithe.config import load

    config = load(options.config, options.set)
    with _importing():
        from apache_beam.io.filesystems import FileSystems

        from tithe.beam_options import parse_beam_options
        from tithe.clusters import connect
        from tithe.paths import check_paths
        from tithe.progress import Progress
        from tithe.select import STAGES, Selection
        from tithe.workspace import Workspace

    for stage in options.redo:
        if stage not in STAGES:
            raise UsageError(f"--redo {stage}: no such stage; there are {', '.join(STAGES)}")
    run = parse_beam_options(beam)
    FileSystems.set_options(run.options())
    check_paths(config)
    run = connect(run)
    progress = Progress(options.quiet)
    progress.line("tithe", f"{__version__}, {run.describe()}")
    space = Workspace(config.output.path, config.output.work)
    with space.held():
        manifest = Selection(config, run, space, progress, frozenset(options.redo)).select()
    if not options.quiet:
        _summary(manifest, config.output.path)
    return 0


def _summary(manifest: dict[str, Any], output: str) -> None:
    sample, records = manifest["sample"], manifest["input"]["records"]
    if manifest.get("stood"):
        print(f"nothing to do: {output}/sample/ is what this configuration asks for")
        print(_gain(manifest), end="")
        return
    error = sample["sum_of_weights_standard_error"]
    spread = f" +- {error:,.0f}" if error is not None else ""
    print(
        f"\n{sample['records']:,} of {records:,} records in {output}/sample/ (method {sample['method']})\n"
        "  tithe_weight   how many records of the corpus a row stands for; they sum to "
        f"{sample['sum_of_weights']:,.0f}{spread}, for {records:,}\n"
        f"  use it as the weight of the row's loss in training, and of its value in any mean\n"
        f"  model calls    {manifest['losses']['model_calls']:,}\n"
        f"{_gain(manifest)}  manifest       {output}/manifest.json says how the sample was made\n"
        "next: another draw takes a moment: --set sample.size=... or --set sample.seed=...; another "
        "clustering: --set cluster.count=..."
    )


def _gain(manifest: dict[str, Any]) -> str:
    """What is known of the gain over uniform sampling, and what is promised of the error."""
    choice = manifest["choice"]
    gain = choice["sentence"] if choice else "no gain shown over uniform: there is no pilot, so none was measured"
    promised = f"  guarantee      {manifest['guarantee']}\n" if manifest["guarantee"] else ""
    return f"  gain           {gain}\n{promised}"


def _estimate(options: argparse.Namespace, _: list[str]) -> int:
    with _importing():
        from tithe.estimate import estimate_from, told
        from tithe.paths import check_path

    check_path("OUT", options.output)
    check_path("--losses", options.losses)
    found = estimate_from(options.output, options.losses, options.column)
    print(json.dumps(found, indent=1) if options.json else told(found))
    return 0


def _evaluate(options: argparse.Namespace, _: list[str]) -> int:
    from tithe.config import load

    config = load(options.config, options.set)
    with _importing():
        from apache_beam.io.filesystems import FileSystems

        from tithe.beam_options import parse_beam_options
        from tithe.evaluate import evaluate
        from tithe.evaluate_report import check_picture, console, draw_picture, print_report
        from tithe.paths import check_paths
        from tithe.progress import Progress
        from tithe.transforms.files import absolute
        from tithe.transforms.vectors import write_json
        from tithe.workspace import Workspace

    sizes = _sizes(options.sizes)
    if options.picture:
        check_picture(options.picture)
    run = parse_beam_options([])
    FileSystems.set_options(run.options())
    check_paths(config)
    space = Workspace(config.output.path, config.output.work)
    with space.held():
        found = evaluate(config, run, space, Progress(options.quiet), options.seeds, sizes)
    print_report(found, console())
    if options.json:
        write_json(absolute(options.json), found)
    if options.picture:
        draw_picture(found, options.picture)
    return 0


def _sizes(given: str | None) -> list[int] | None:
    try:
        return None if given is None else [int(size) for size in given.split(",")]
    except ValueError:
        raise UsageError(f"--sizes {given}: give whole numbers, as in 300,1000,3000") from None


def _clean(options: argparse.Namespace, _: list[str]) -> int:
    with _importing():
        from tithe.paths import check_path
        from tithe.transforms.files import exists
        from tithe.transforms.vectors import read_json
        from tithe.workspace import Workspace

    check_path("OUT", options.output)
    check_path("--work", options.work or "")
    space = Workspace(options.output, options.work)
    if options.work is None and exists(space.manifest):
        # Relative to the current folder, as in the configuration.
        space = Workspace(options.output, read_json(space.manifest)["configuration"]["output"]["work"])
    with space.held(create=False):
        keep: set[str] = set()
        if not options.all:
            if not exists(space.manifest):
                raise UsageError(f"{options.output} has no manifest, so no stage is in use; --all removes every one")
            manifest = read_json(space.manifest)
            keep = {stage["folder"] for stage in manifest["stages"]} | {manifest["vectors"]}
            # The answers of a model cost more than the space that they take.
            keep |= {name for name in space.folders() if name.startswith("loss-cache-")}
        gone = space.clean(keep)
    print(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
    return 0
