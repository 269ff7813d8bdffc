"""Dockerfile and compose file: their variables, commands, files and addresses exist. No engine runs here."""

import re
import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from django.core.management import get_commands
from pytest_django.fixtures import Settings

from gemma_project.checks import check_settings
from gemma_project.environment import Environment
from tests.live_stack import PROJECT

COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("gemma-service", "gpu-worker")
DOCKERFILE = (PROJECT / "Dockerfile").read_text()


def environment_of(service: str) -> dict[str, str]:
    """A service's variables as the container sees them when the shell sets none but the password."""
    return {name: resolved(str(value)) for name, value in SERVICES[service]["environment"].items()}


def resolved(value: str) -> str:
    """Compose's interpolation: ${NAME:-default}, ${NAME-default}, ${NAME:?message}."""
    value = re.sub(r"\$\{\w+:\?[^}]*\}", "secret", value)
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", value)


def test_the_services_have_the_names_that_others_call() -> None:
    assert set(SERVICES) == {"gemma-service", "gpu-worker", "redis", "postgres"}


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_one_that_the_settings_read(service: str, settings: Settings) -> None:
    assert set(environment_of(service)) <= settings.ENVIRONMENT.names


@pytest.mark.parametrize("service", OURS)
def test_every_value_can_be_parsed(service: str) -> None:
    env = Environment(environment_of(service))
    assert env.url("REDIS_URL", ("redis",)) == "redis://:secret@redis:6379/0"
    assert env.url("GPU_REDIS_URL", ("redis",)) == "redis://:secret@redis:6379/1", "tenants see no token logs"
    assert env.url("RAG_SERVICE_URL", ("http",)) == "http://rag-service:8004"
    assert env.url("GPU_COORDINATOR_URL", ("http",)) == "http://gpu-coordinator:8002"
    assert env.integer("GEMMA_GPU_LAYERS", 0, minimum=0, maximum=1000) == 25
    assert env.integer("GEMMA_CONTEXT_SIZE", 0, minimum=0, maximum=100_000) == 65_536
    assert env.integer("GEMMA_BATCH_SIZE", 0, minimum=0, maximum=1000) == 512
    assert str(env.path("GEMMA_MODEL_PATH")) == "/app/models/gemma-3-4b-it-UD-Q4_K_XL.gguf"


def test_both_containers_see_the_same_data() -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "GEMMA_MODEL_PATH", "GEMMA_CONTEXT_SIZE", "GEMMA_PARALLEL"):
        assert len({environment_of(service)[name] for service in OURS}) == 1
    # The secrets that the service makes for itself lie in the data directory.
    assert SERVICES["gemma-service"]["volumes"] == SERVICES["gpu-worker"]["volumes"]
    assert "gemma-data:/var/lib/gemma" in SERVICES["gpu-worker"]["volumes"]


@pytest.mark.parametrize("service", OURS)
def test_the_command_exists_with_its_options(service: str) -> None:
    python, manage, command, *options = SERVICES[service]["command"]
    assert (python, manage) == ("python", "manage.py")
    assert get_commands()[command] == "gemma_project"
    source = (PROJECT / "gemma_project" / "management" / "commands" / f"{command}.py").read_text()
    for option in options:
        assert not option.startswith("--") or f'"{option}"' in source


def test_ports_are_published_to_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8001:8001"]


def test_callers_on_the_host_need_no_credentials_and_nobody_else_is_let_in(settings: Settings) -> None:
    env = Environment(environment_of("gemma-service"))
    networks = env.networks("ANONYMOUS_NETWORKS", "")
    bridge = COMPOSE["networks"]["gemma"]["ipam"]["config"][0]
    beyond = [network for network in networks if not network.is_loopback]
    assert [str(network) for network in beyond] == [f"{bridge['gateway']}/32"]
    settings.GEMMA_HOST = env.text("GEMMA_HOST", "")
    settings.ANONYMOUS_NETWORKS = networks
    assert settings.GEMMA_HOST == "0.0.0.0"
    assert [message.id for message in check_settings()] == ["gemma.W007"]


def test_the_worker_has_the_card_and_room_for_its_files() -> None:
    worker = SERVICES["gpu-worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert worker["shm_size"] == "4gb"
    assert environment_of("gpu-worker")["GEMMA_SHM_DIR"] == "/dev/shm"
    assert "deploy" not in SERVICES["gemma-service"]


def test_stopping_gives_running_answers_their_time(settings: Settings) -> None:
    grace_secs = int(SERVICES["gpu-worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_secs >= settings.DRAIN_SECS + 5


def test_redis_keeps_everything_and_forgets_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "redis-data:/data" in SERVICES["redis"]["volumes"]


def test_every_volume_and_dependency_is_declared() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            name = volume.split(":")[0]
            assert name.startswith("./") or name in COMPOSE["volumes"]
        for dependency, condition in service.get("depends_on", {}).items():
            assert dependency in SERVICES
            assert condition["condition"] != "service_healthy" or "test" in SERVICES[dependency]["healthcheck"]


def test_no_password_is_written_down() -> None:
    text = (PROJECT / "docker-compose.yml").read_text()
    assert re.findall(r"PASSWORD: (.*)", text) == [
        "${REDIS_PASSWORD:?set a password for Redis}",
        "${POSTGRES_PASSWORD:?set a password for the database}",
    ]


def test_the_final_stage_has_no_compiler_and_no_root() -> None:
    final = DOCKERFILE.split("FROM run-${ACCELERATOR}\n")[1]
    assert not re.search(r"g\+\+|gcc|make|cmake|devel", final)
    assert "USER gemma" in final
    assert "HEALTHCHECK" in final
    assert final.index("USER gemma") < final.index("CMD [")


def test_cpu_is_the_default_and_cuda_a_build_argument() -> None:
    assert DOCKERFILE.count("ARG ACCELERATOR=cpu") == 1
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", DOCKERFILE, flags=re.MULTILINE)
    names = {name for _, name in stages}
    assert {"build-cpu", "build-cuda", "run-cpu", "run-cuda", "builder"} <= names
    assert "-DGGML_CUDA=on" in DOCKERFILE
    # The builder's files must run in the final stage: the same distribution, hence the same C library.
    bases = [base for base, _ in stages if not base.startswith(("build-", "run-"))]
    assert all("ubuntu24.04" in base or base == "ubuntu:24.04" for base in bases)


def test_everything_copied_exists_and_reaches_the_build() -> None:
    let_in = [line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (PROJECT / source).exists(), source
            assert any(PurePosixPath(source).is_relative_to(path) for path in let_in), source


def test_the_health_check_asks_the_published_port() -> None:
    assert "http://127.0.0.1:8001/health" in DOCKERFILE
    assert "EXPOSE 8001" in DOCKERFILE
    assert environment_of("gemma-service")["GEMMA_PORT"] == "8001"


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_can_gain_privileges(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    added = SERVICES[service].get("cap_add", [])
    assert not added or service == "postgres", "the others do not run as root"


def test_redis_needs_its_password_and_shows_it_to_no_list_of_processes() -> None:
    redis = SERVICES["redis"]
    assert redis["user"] == "redis"
    *shell, script = redis["command"]
    assert shell == ["sh", "-c"]
    assert script.startswith("printf 'requirepass %s\\n' \"$$REDIS_PASSWORD\" | exec redis-server - ")
    assert "$$REDIS_PASSWORD" in redis["healthcheck"]["test"][1]
    assert "?" in redis["environment"]["REDIS_PASSWORD"], "compose refuses to start without it"
