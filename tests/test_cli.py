"""The command: its exit codes, its options, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import configure, digest, made, manifest, part_paths, sample, select, table, write_parquet

from tithe import __version__
from tithe.cli import main

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration c.yaml and its finished run in out/."""
    folder = tmp_path_factory.mktemp("cli run")
    write_parquet(folder / "corpus", table())
    assert select(configure(folder, f"{folder}/corpus/*.parquet"), "--quiet") == 0
    return folder


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m tithe` in a process of its own."""
    command = [sys.executable, "-m", "tithe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_version_and_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tithe {__version__}\n"
    assert run("--version").stdout == f"tithe {__version__}\n"


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "exit codes: 0 done; 1 the run failed; 2 wrong use or configuration" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["selct", "c.yaml"], ["select"], ["select", "c.yaml", "--sett", "a=b"], ["clean"], ["config", "--scheme"]],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_help_does_not_wait_for_beam() -> None:
    code = "import sys; from tithe.cli import main; sys.exit(main(sys.argv[1:]))"
    for arguments in (["--help"], ["select", "--help"], ["config"]):
        loud = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code, *arguments], capture_output=True, text=True
        )
        assert loud.returncode == 0
        assert "tithe.cli" in loud.stderr and "apache_beam" not in loud.stderr, arguments


def test_config_prints_an_example_that_is_valid_and_a_schema(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tithe.config import load

    assert main(["config"]) == 0
    path = tmp_path / "example.yaml"
    path.write_text(capsys.readouterr().out)
    load(path)
    assert main(["config", "--schema"]) == 0
    assert "sample" in json.loads(capsys.readouterr().out)["properties"]


def test_mistakes_in_the_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["select", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    path = configure(tmp_path, "corpus/*.parquet", sample={"sise": 3})
    assert main(["select", path]) == 2
    told = capsys.readouterr().err
    assert "sise" in told and "size" in told
    assert not (tmp_path / "out").exists()


def test_options_of_beam(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(finished / "c.yaml")
    assert select(config, "--", "--direct_num_worker=2") == 2
    assert "the nearest one is --direct_num_workers" in capsys.readouterr().err
    assert main(["clean", str(finished / "out"), "--", "--direct_num_workers=2"]) == 2
    assert "`tithe select` only" in capsys.readouterr().err
    assert select(config, "--", "--runner=DirectRunner", "--direct_num_workers=1") == 0
    assert "FnApiRunner (what DirectRunner means here), in_memory: 1 process, 1 thread" in capsys.readouterr().err


def test_a_stage_that_does_not_exist_cannot_be_redone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert select(str(finished / "c.yaml"), "--redo", "clusters") == 2
    assert "--redo clusters: no such stage; there are embed, cluster, losses, score, sample" in capsys.readouterr().err


def test_a_second_run_does_nothing_and_says_so(finished: Path) -> None:
    parts = {path: path.stat().st_mtime_ns for path in [*part_paths(finished / "out"), finished / "out/manifest.json"]}
    again = run("select", "c.yaml", cwd=finished)
    assert (again.returncode, again.stdout) == (
        0,
        f"nothing to do: {finished}/out/sample/ is what this configuration asks for\n"
        "  gain           no gain shown over uniform: there is no pilot, so none was measured\n",
    )
    assert {path: path.stat().st_mtime_ns for path in parts} == parts


def test_quiet_tells_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "corpus", table(120))
    configure(tmp_path, "corpus/*.parquet", output={"path": "out"}, sample={"size": 20})
    done = run("select", "c.yaml", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert manifest(tmp_path / "out")["sample"]["records"] == 20  # relative to the current folder


@pytest.mark.slow
def test_another_size_or_seed_runs_the_draw_alone_another_count_starts_at_clustering(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "corpus", table())
    config, out = configure(tmp_path, f"{tmp_path}/corpus/*.parquet"), tmp_path / "out"
    assert select(config) == 0
    told = capsys.readouterr()
    assert f"40 of 300 records in {out}/sample/ (method pareto)" in told.out
    assert all(f"\n{stage}" in told.err for stage in ("plan", "embed", "cluster", "losses", "score", "sample"))
    assert made(out) == {"plan", "embed", "cluster", "losses", "score", "sample"}
    first, old = digest(out), part_paths(out)

    assert select(config, "--quiet", "--set", "sample.size=50", "--set", "sample.seed=3") == 0
    assert made(out) == {"sample"}
    assert manifest(out)["configuration"]["sample"]["size"] == 50 == len(sample(out))
    assert not any(path.exists() for path in old)
    assert [path for path in (out / "sample").iterdir() if path.is_file()] == part_paths(out)

    assert select(config, "--quiet", "--set", "cluster.count=5") == 0
    assert made(out) == {"cluster", "losses", "score", "sample"}
    assert manifest(out)["cluster"]["clusters"] == 5

    # The first sample's stage stands, its parts do not.
    assert select(config, "--quiet") == 0
    assert made(out) == {"sample"}
    assert digest(out) == first

    # Every stage but the current ones goes.
    assert main(["clean", str(out)]) == 0
    current = {stage["folder"] for stage in manifest(out)["stages"]} | {manifest(out)["vectors"]}
    assert {path.name for path in (out / "work").iterdir()} == current
    assert main(["clean", str(out), "--all"]) == 0
    assert list((out / "work").iterdir()) == []
    assert digest(out) == first
    assert select(config, "--quiet") == 0  # the sample stands without its stages


def test_cleaning_says_what_it_removed(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(finished / "out")]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert main(["clean", str(tmp_path)]) == 2
    assert "no output folder of tithe" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_redo_makes_a_stage_and_those_that_follow_from_it_again(finished: Path) -> None:
    out, config = finished / "out", str(finished / "c.yaml")
    before = digest(out)
    assert select(config, "--quiet", "--redo", "cluster") == 0
    assert made(out) == {"cluster", "losses", "score", "sample"}
    assert digest(out) == before
