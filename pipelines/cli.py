"""The command `tithe`.

Exit codes: 0 done; 1 the run failed; 2 wrong use or configuration; 3 waiting for losses. Imports are made where they
are needed: `tithe --help` must not wait for Beam.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from tithe import __version__
from tithe.transforms.errors import TitheError, UsageError

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
        _say_how_to_go_on(options, given)
        return error.exit_code
    except KeyboardInterrupt:
        from tithe.runner import exit_now

        print("\ntithe: interrupted; the finished stages are kept", file=sys.stderr)
        _say_how_to_go_on(options, given)
        exit_now(FAILED)  # threads that a cancelled pipeline has left behind may go on for long


def _say_how_to_go_on(options: argparse.Namespace, given: list[str]) -> None:
    if options.command == "select":
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
    from tithe.beam_options import parse_beam_options, silence_root_logger

    silence_root_logger()  # before Beam is imported, which warns of extras that are not there
    from apache_beam.io.filesystems import FileSystems

    from tithe.progress import Progress
    from tithe.select import STAGES, Selection
    from tithe.workspace import Workspace

    for stage in options.redo:
        if stage not in STAGES:
            raise UsageError(f"--redo {stage}: no such stage; there are {', '.join(STAGES)}")
    run = parse_beam_options(beam)
    FileSystems.set_options(run.options())
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
        return
    error = sample["sum_of_weights_standard_error"]
    spread = f" +- {error:,.0f}" if error is not None else ""
    choice = manifest["choice"]
    gain = f"  gain           {choice['sentence']}\n" if choice else ""
    if manifest["guarantee"]:
        gain += f"  guarantee      {manifest['guarantee']}\n"
    print(
        f"\n{sample['records']:,} of {records:,} records in {output}/sample/ (method {sample['method']})\n"
        "  tithe_weight   how many records of the corpus a row stands for; they sum to "
        f"{sample['sum_of_weights']:,.0f}{spread}, for {records:,}\n"
        f"  use it as the weight of the row's loss in training, and of its value in any mean\n"
        f"  model calls    {manifest['losses']['model_calls']:,}\n"
        f"{gain}  manifest       {output}/manifest.json says how the sample was made\n"
        "next: another draw takes a moment: --set sample.size=... or --set sample.seed=...; another "
        "clustering: --set cluster.count=..."
    )


def _clean(options: argparse.Namespace, _: list[str]) -> int:
    from tithe.beam_options import silence_root_logger

    silence_root_logger()
    from apache_beam.io.filesystems import FileSystems

    from tithe.transforms.vectors import read_json
    from tithe.workspace import Workspace

    space = Workspace(options.output, options.work)
    if options.work is None and FileSystems.exists(space.manifest):
        # Relative to the current folder, as in the configuration.
        space = Workspace(options.output, read_json(space.manifest)["configuration"]["output"]["work"])
    with space.held(create=False):
        keep: set[str] = set()
        if not options.all:
            if not FileSystems.exists(space.manifest):
                raise UsageError(f"{options.output} has no manifest, so no stage is in use; --all removes every one")
            manifest = read_json(space.manifest)
            keep = {stage["folder"] for stage in manifest["stages"]} | {manifest["vectors"]}
            # The answers of a model cost more than the space that they take.
            keep |= {name for name in space.folders() if name.startswith("loss-cache-")}
        gone = space.clean(keep)
    print(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
    return 0
