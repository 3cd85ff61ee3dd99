"""Beam's options, checked before anything runs: which runner, how many workers, and what is wrong."""

from __future__ import annotations

import sys

import pytest

from tithe.beam_options import available_cpus, parse_beam_options
from tithe.clusters import connect
from tithe.transforms.errors import UsageError

PORTABLE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")


def test_the_default_is_this_process_with_a_thread_for_each_cpu() -> None:
    run = parse_beam_options([])
    assert (run.runner, run.mode, run.processes, run.threads) == ("FnApiRunner", "in_memory", 1, available_cpus())


def test_direct_runner_is_named_for_what_it_means() -> None:
    run = parse_beam_options(["--runner=DirectRunner", "--direct_num_workers=3"])
    assert run.describe() == "FnApiRunner (what DirectRunner means here), in_memory: 1 process, 3 threads"


def test_several_processes_run_one_thread_each() -> None:
    run = parse_beam_options(["--direct_running_mode=multi_processing", "--direct_num_workers", "3"])
    assert (run.processes, run.threads) == (3, 1)
    assert run.describe() == "FnApiRunner, multi_processing: 3 worker processes"


def test_no_number_of_workers_and_zero_are_one_for_each_cpu() -> None:
    for extra in ([], ["--direct_num_workers=0"]):
        assert parse_beam_options(["--direct_running_mode=multi_processing", *extra]).processes == available_cpus()


def test_a_stage_may_choose_processes_unless_the_options_name_a_mode() -> None:
    assert parse_beam_options(["--direct_num_workers=2"]).in_processes().processes == 2
    assert parse_beam_options(["--direct_running_mode=in_memory"]).in_processes().processes == 1
    assert parse_beam_options(["--direct_num_workers=1"]).in_processes().mode == "in_memory"
    assert parse_beam_options(PORTABLE).in_processes().processes == 1


def test_other_runners_are_passed_on() -> None:
    run = parse_beam_options(["--runner=Flink", "--parallelism=4", "--flink_version=1.20"])
    assert (run.runner, run.threads, run.describe()) == ("FlinkRunner", 1, "FlinkRunner, as its options say")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--direct_num_worker=2", "the nearest one is --direct_num_workers"),
        ("--direct_num_workers=two", "invalid int value: 'two'"),
        ("--direct_num_workers=-1", "0 (one for each CPU) or more"),
        ("--direct_num_workers", "expected one argument"),
        ("--direct_running_mode=threads", "invalid choice: 'threads'"),
        ("--direct_running_mode=multi_threading", "use in_memory, which runs threads of its own, or multi_processing"),
        ("--direct_test_splits={", "direct_test_splits"),
        ("--gcs_custom_audit_entries={", "--gcs_custom_audit_entries={"),
        ("--environment_type=PROCESS", "process_command is required"),
        ("--runner=FlonkRunner", "the nearest one is FlinkRunner"),
        ("--runner=no.such.Runner", "No module named 'no'"),
        ("--runner=os.path", "cannot be made"),
        ("--runner=DaskRunner", "use FnApiRunner"),
        ("--runner=PortableRunner", "--job_endpoint"),
        ("--save_main_session", "leave it out"),
        ("--template_location=gs://a/b", "a template holds one pipeline"),
        ("--output_executable_path=a.jar", "an executable holds one pipeline"),
        ("--dry_run=True", "FnApiRunner would run all the same; only DataflowRunner knows it"),
        ("--environment_type=DOKCER", "known are DOCKER, PROCESS, EXTERNAL, LOOPBACK"),
        ("--prism_location=/no/prism", "there is no such file"),
        ("--help", "no --help here"),
        ("workers=2", "write --option=value"),
    ],
)
def test_a_wrong_option_is_told_before_anything_runs(option: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_beam_options([option])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_runner_of_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    with pytest.raises(UsageError, match=r"pip install 'tithe\[gcp\]'"):
        parse_beam_options(["--runner=DataflowRunner"])


def test_a_missing_option_of_dataflow_is_named() -> None:
    with pytest.raises(UsageError, match="Missing required option: project") as error:
        # A dry run looks for no bucket.
        options = ["--dry_run=True", "--no_auth", "--region=us-central1", "--temp_location=gs://my-bucket/tmp"]
        parse_beam_options(["--runner=DataflowRunner", *options])
    assert "\n" not in str(error.value)


def test_a_run_says_which_options_are_its_own() -> None:
    run = parse_beam_options(["--runner=Flink", "--parallelism=-1", "--flink_version", "1.20"])
    assert run.gives("parallelism") and run.gives("flink_version")
    assert not run.gives("max_parallelism") and not run.gives("flink")


def test_a_job_server_that_does_not_answer() -> None:
    run = parse_beam_options(["--runner=PortableRunner", "--job_endpoint=localhost:1", "--job_server_timeout=1"])
    with pytest.raises(UsageError) as error:
        connect(run)
    assert str(error.value) == (
        "Beam option --job_endpoint=localhost:1: no job server answers there within 1 s; start it, or give its "
        "HOST:PORT (--job_server_timeout=SECONDS waits longer)"
    )


@pytest.mark.parametrize("options", [(), PORTABLE, ("--runner=PrismRunner", f"--prism_location={sys.executable}")])
def test_what_starts_with_the_run_is_not_asked(options: tuple[str, ...]) -> None:
    run = parse_beam_options(options)
    assert connect(run) == run
