"""Starting pipelines: the runners' modes, what is told of a failure, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import Metrics
from apache_beam.runners.worker import statesampler
from apache_beam.utils.counters import CounterFactory

from tithe import quick_beam
from tithe.beam_options import parse_beam_options
from tithe.runner import explain_failure, run_pipeline
from tithe.transforms.errors import InputError, TitheError, UsageError

pytestmark = pytest.mark.slow  # whole runs

IN_MEMORY: tuple[str, ...] = ()
PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
PORTABLE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
RUNNERS = pytest.mark.parametrize("options", [IN_MEMORY, PROCESSES, PORTABLE], ids=["memory", "processes", "portable"])
MESSAGE = "corpus/a.jsonl, row 7: 'x' is no number; mend the row"


class Act(beam.DoFn):
    """Notes the process it runs in, counts what it is given, and does at 7 what it is made for."""

    def __init__(self, deed: str, folder: Path) -> None:
        self._deed = deed
        self._folder = folder

    def process(self, number: int) -> list[int]:
        (self._folder / f"pid-{os.getpid()}").touch()
        Metrics.counter("tithe", "numbers").inc(number)
        if self._deed == "sleep":
            time.sleep(60)
        elif self._deed == "first fails":
            self._fail_if_first()
        elif number == 7:
            self._at_seven()
        return [number]

    def _at_seven(self) -> None:
        if self._deed == "input":
            raise InputError(MESSAGE)
        if self._deed == "chained":
            try:
                float("x")
            except ValueError as error:
                raise UsageError(MESSAGE) from error
        if self._deed == "value":
            raise ValueError("not\nthis")
        if self._deed == "file":
            open("/no/such/file").close()
        if self._deed == "kill":
            (self._folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._deed == "exit":
            os._exit(3)

    def _fail_if_first(self) -> None:
        try:
            (self._folder / "first").mkdir()
        except FileExistsError:
            time.sleep(60)
        else:
            time.sleep(0.5)  # by now the other worker sleeps
            raise InputError(MESSAGE)


def act(deed: str, folder: Path, options: tuple[str, ...] = IN_MEMORY) -> dict[str, int]:
    def build(pipeline: Any) -> None:
        pipeline | beam.Create(range(10)) | beam.Reshuffle() | "Act on it" >> beam.ParDo(Act(deed, folder))

    return run_pipeline(build, parse_beam_options(options), name="act", log=folder / "log.txt")


def processes(folder: Path) -> list[int]:
    """The processes in which `Act` has run."""
    return sorted(int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*"))


def assert_gone(pids: list[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_importing_the_module_does_not_import_beam() -> None:
    code = "import sys, tithe.runner; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Runs


@RUNNERS
def test_counters_are_summed_and_the_terminal_stays_clean(
    options: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert act("nothing", tmp_path, options) == {"numbers": 45}
    assert capfd.readouterr() == ("", "")
    assert (os.getpid() in processes(tmp_path)) == (options != PROCESSES)


def test_what_a_bundle_emits_at_its_end_arrives(tmp_path: Path) -> None:
    """In every mode; and two processes share the elements evenly, a bundle each."""
    for options, bundles in ((IN_MEMORY, [10]), (PROCESSES, [5, 5])):
        path = tmp_path / f"bundles-{len(bundles)}"

        def build(pipeline: Any, path: Path = path) -> None:
            numbers = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: range(10)) | beam.Reshuffle()
            sizes = numbers | beam.ParDo(CountBundle()) | beam.combiners.ToList()
            sizes | beam.Map(lambda sizes, path: path.write_text(repr(sizes)), path)

        run_pipeline(build, parse_beam_options(options), name="bundles")
        assert path.read_text() == repr(bundles)


class CountBundle(beam.DoFn):
    def start_bundle(self) -> None:
        self._count = 0

    def process(self, number: int) -> None:
        self._count += 1

    def finish_bundle(self) -> Any:
        yield beam.transforms.window.GlobalWindows.windowed_value(self._count)


# Failures


@RUNNERS
@pytest.mark.parametrize(("deed", "kind"), [("input", InputError), ("chained", UsageError)])
def test_an_error_of_ours_keeps_its_type_and_its_message(
    options: tuple[str, ...], deed: str, kind: type[TitheError], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TitheError) as error:
        act(deed, tmp_path, options)
    assert type(error.value) is kind
    assert str(error.value) == MESSAGE
    assert capfd.readouterr() == ("", "")
    assert_gone([pid for pid in processes(tmp_path) if pid != os.getpid()])


@RUNNERS
def test_any_other_error_is_one_line_with_its_step(
    options: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TitheError) as error:
        act("file", tmp_path, options)
    log = tmp_path / "log.txt"
    assert str(error.value) == (
        "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file' (in step 'Act on it'); "
        f"the traceback is in {log}"
    )
    assert capfd.readouterr() == ("", "")
    assert "Traceback (most recent call last)" in log.read_text()


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    with pytest.raises(TitheError, match=r"^ValueError: not this \(in step 'Act on it'\)"):
        act("value", tmp_path)


def test_an_error_while_the_graph_is_built_passes_through() -> None:
    def build(pipeline: Any) -> None:
        raise UsageError(MESSAGE)

    with pytest.raises(UsageError) as error:
        run_pipeline(build, parse_beam_options([]), name="build")
    assert str(error.value) == MESSAGE


def test_an_error_is_found_in_the_text_that_a_remote_runner_sends() -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in process\n'
    sent = RuntimeError(
        f"Pipeline job-001 failed in state FAILED: bundle inst003 stage-003 failed:{trace}ValueError: a\n\n"
        f"During handling of the above exception, another exception occurred:\n\n{trace}"
        f"tithe.transforms.errors.InputError: {MESSAGE} [while running 'Read/Parse']\n"
    )
    told = explain_failure(sent)
    assert (type(told), str(told)) == (InputError, MESSAGE)
    told = explain_failure(RuntimeError(f"failed: {trace}ValueError: b [while running 'ref_AppliedPTransform_Map_7']"))
    assert (type(told), str(told)) == (TitheError, "ValueError: b (in step 'Map')")


@pytest.mark.parametrize(
    ("deed", "told"), [("kill", "was killed (signal 9; out of memory?)"), ("exit", "ended by itself (exit code 3)")]
)
def test_a_dead_worker_ends_the_pipeline(deed: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TitheError) as error:
        act(deed, tmp_path, PROCESSES)
    end = time.time()
    assert f"a worker process {told}" in str(error.value)
    assert_gone(processes(tmp_path))
    if deed == "kill":
        assert end - (tmp_path / "killed").stat().st_mtime < 5


def test_a_failure_does_not_wait_for_the_other_workers(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError):
        act("first fails", tmp_path, PROCESSES)
    assert time.monotonic() - start < 30
    assert len(processes(tmp_path)) == 2
    assert_gone(processes(tmp_path))


# Ctrl-C, and where the interpreter lives: in processes of their own

SCRIPT = """
import sys
from pathlib import Path
from tithe.beam_options import silence_root_logger
silence_root_logger()  # before Beam is imported
from test_runner import act
try:
    act(sys.argv[1], Path(sys.argv[2]), tuple(sys.argv[3:]))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("options", [IN_MEMORY, PROCESSES], ids=["memory", "processes"])
def test_ctrl_c_reaches_the_caller_and_leaves_no_workers(options: tuple[str, ...], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "sleep", str(tmp_path), *options],
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parent)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    expected = 2 if options else 1
    while len(processes(tmp_path)) < expected and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert process.communicate(timeout=60) == ("interrupted\n", "")
    assert time.monotonic() - start < 10
    assert_gone(processes(tmp_path))


def test_an_interpreter_whose_path_holds_a_space(tmp_path: Path) -> None:
    home = tmp_path / "x y" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(home)], check=True)
    python = home / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    (Path(packages) / "these.pth").write_text("\n".join(path for path in sys.path if os.path.isdir(path)))
    subprocess.run([python, "-c", SCRIPT, "nothing", str(tmp_path), *PROCESSES], check=True, timeout=120)
    assert len(processes(tmp_path)) == 2


def test_a_bundle_does_not_wait_long_for_the_sampler_of_states() -> None:
    quick_beam.quicken()
    sampler = statesampler.StateSampler("prefix", CounterFactory())
    assert sampler.sampling_period_ms == quick_beam.PERIOD_MS < statesampler.DEFAULT_SAMPLING_PERIOD_MS
