"""The Flink manifests: against the operator's own resource definition, Kubernetes' own schemas, and Compose itself.

Nothing is run: there is neither a cluster nor a container engine here.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from places import BEAM, CRD, DEPLOY, TOOLS, commands, documents, run_tool

from tithe import __version__
from tithe.beam_options import parse_beam_options
from tithe.cli import _parser
from tithe.visibility import workers_are_here

FLINK = DEPLOY / "flink"
KUBERNETES = "1.31"  # restartPolicy of init containers is on by default from 1.29 on


def deployment() -> dict[str, Any]:
    [found] = documents(FLINK / "flinkdeployment.yaml")
    return found


def closed(schema: Any) -> Any:
    """A schema that refuses what it does not name; Kubernetes would drop such a field without a word."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    kept = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not kept:
        made["additionalProperties"] = False
    return made


def deployment_errors(resource: dict[str, Any]) -> list[str]:
    """What the operator's definition finds wrong with a FlinkDeployment."""
    [definition] = documents(CRD)
    [version] = [one for one in definition["spec"]["versions"] if resource["apiVersion"].endswith(f"/{one['name']}")]
    schema = closed(version["schema"]["openAPIV3Schema"])
    # What every resource has, and a definition leaves out.
    schema["properties"] |= {"apiVersion": {}, "kind": {"const": definition["spec"]["names"]["kind"]}, "metadata": {}}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(resource)]


def check_kubernetes(path: Path) -> None:
    """Kubernetes' schemas, which refuse a field that they do not name."""
    run_tool(TOOLS / "python", "-m", "kubernetes_validate", "--strict", "-k", KUBERNETES, path)


def checked_options(words: list[str]) -> list[str]:
    """Beam's options of a `tithe` command, after the whole of it has been checked."""
    split = words.index("--")
    assert _parser().parse_args(words[:split]).command == "select"
    run = parse_beam_options(words[split + 1 :])
    assert run.runner == "FlinkRunner" and not workers_are_here(run)
    return words[split + 1 :]


def select_job() -> dict[str, Any]:
    [job] = [one for one in documents(FLINK / "select.yaml") if one["kind"] == "Job"]
    return job


def compose() -> dict[str, Any]:
    """The file as Compose reads it; an AssertionError for a key that it does not know."""
    file = FLINK / "compose.yaml"
    text = run_tool(
        *(TOOLS / "docker-compose", "-f", file, "--profile=command", "config", "--format=json"), TITHE_DATA="/data"
    )
    return dict(json.loads(text)["services"])


def compose_command() -> list[str]:
    shell, flag, script, name = compose()["select"]["entrypoint"]
    assert (shell, flag, name) == ("/bin/sh", "-c", "select")
    words = shlex.split(script.replace("$$", "$").replace('"$@"', "/data/select.yaml"))
    assert words[:2] == ["exec", "tithe"]
    return words[2:]


def test_the_deployment_is_what_the_operator_knows() -> None:
    assert deployment_errors(deployment()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.flinkVersion", "v2_2"),
        ("spec.taskManager.replica", 2),
        ("spec.taskManager.podTemplate.spec.initContainers", [{"name": "workers", "restart": "Always"}]),
        ("spec.flinkConfiguration", {"taskmanager.numberOfTaskSlots": 4}),
        ("kind", "FlinkSessionJob"),
    ],
)
def test_a_deployment_that_it_does_not_know_is_found(path: str, value: Any) -> None:
    wrong = copy.deepcopy(deployment())
    *way, last = path.split(".")
    place: dict[str, Any] = wrong
    for key in way:
        place = place[key]
    place[last] = value
    assert len(deployment_errors(wrong)) == 1


def test_the_pods_are_what_kubernetes_knows(tmp_path: Path) -> None:
    """The operator's definition asks for less than Kubernetes does of the pods that come of it."""
    spec = deployment()["spec"]["taskManager"]["podTemplate"]["spec"]
    pod = tmp_path / "pod.yaml"
    pod.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}))
    check_kubernetes(pod)
    check_kubernetes(FLINK / "select.yaml")
    pod.write_text(pod.read_text().replace("startupProbe", "startupProb"))
    with pytest.raises(AssertionError, match="startupProb"):
        check_kubernetes(pod)


def test_the_command_of_the_job_fits_the_cluster() -> None:
    spec = select_job()["spec"]["template"]["spec"]
    [select], [server] = spec["containers"], spec["initContainers"]
    options = checked_options(select["args"])
    slots = deployment()["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    [workers] = deployment()["spec"]["taskManager"]["podTemplate"]["spec"]["initContainers"]
    assert f"--sdk_worker_parallelism={slots}" in options
    assert f"--environment_config=localhost:{workers['ports'][0]['containerPort']}" in options
    assert f"--job_endpoint=localhost:{server['startupProbe']['tcpSocket']['port']}" in options
    assert f"--flink-master={deployment()['metadata']['name']}-rest:8081" in server["args"]
    assert workers["image"] == select["image"] == f"REGISTRY/tithe:{__version__}"
    assert workers["envFrom"] == select["envFrom"]


def test_compose_reads_its_file() -> None:
    services = compose()
    assert services["workers"]["network_mode"] == "service:taskmanager"
    assert services["workers"]["volumes"] == services["select"]["volumes"]
    assert services["workers"]["image"] == services["select"]["image"] == f"tithe:{__version__}"
    assert services["select"]["profiles"] == ["command"]
    options = checked_options(compose_command())
    slots = re.search(r"numberOfTaskSlots: (\d+)", services["taskmanager"]["environment"]["FLINK_PROPERTIES"])
    assert slots and f"--parallelism={slots[1]}" in options


def test_compose_asks_for_the_folder() -> None:
    with pytest.raises(AssertionError, match="name the folder of the corpus"):
        run_tool(TOOLS / "docker-compose", "-f", FLINK / "compose.yaml", "config", TITHE_DATA="")


def test_a_graph_stages_no_file() -> None:
    """What is staged lies on the job server's disk, and task managers on others could not read it."""
    import apache_beam as beam
    from apache_beam.runners.portability.portable_runner import PortableRunner

    [container] = select_job()["spec"]["template"]["spec"]["containers"]
    for words in (container["args"], compose_command()):
        run = parse_beam_options(checked_options(words))
        environment = PortableRunner._create_environment(run.options())
        assert isinstance(environment, beam.transforms.environments.ExternalEnvironment)
        assert not environment.to_runner_api(None).dependencies


def test_versions_are_those_of_beam_and_of_each_other() -> None:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    major = deployment()["spec"]["flinkVersion"].removeprefix("v").replace("_", ".")
    assert major in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    services = compose()
    [server] = select_job()["spec"]["template"]["spec"]["initContainers"]
    assert {server["image"], services["jobserver"]["image"]} == {f"apache/beam_flink{major}_job_server:{BEAM}"}
    clusters = {deployment()["spec"]["image"], services["jobmanager"]["image"], services["taskmanager"]["image"]}
    assert len(clusters) == 1 and clusters.pop().startswith(f"flink:{major}.")
    for version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS:
        assert version in (FLINK / "README.md").read_text()


def test_the_page_names_files_that_there_are() -> None:
    for line in [*commands(FLINK / "README.md", "kubectl apply"), *commands(FLINK / "README.md", "docker compose")]:
        for file in re.findall(r"-f (\S+)", line):
            assert (DEPLOY.parent / file).is_file(), line
