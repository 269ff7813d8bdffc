"""A refusal is one in both forms, 200 and an error status, and nothing is released after it."""

import os
import subprocess
import sys

import pytest
from pytest_django import Settings

from inference.gpu.device.port import SimulatedGpu
from inference.gpu.sdk.client import GpuRefused, TenantClient
from inference.worker import gpu_setup
from tests.live_stack import PROJECT
from tests.neighbours.coordinator import NeighbourCoordinator


@pytest.mark.parametrize("coordinator", ["v2"], indirect=True)
class TestTenantLibrary:
    @pytest.mark.parametrize("status", [200, 409, 503])
    def test_a_refusal_gives_its_reason(self, coordinator: NeighbourCoordinator, status: int) -> None:
        coordinator.grant_to("theirs")
        coordinator.refusal_status = status
        client = TenantClient(coordinator.url, "ml-service")
        with pytest.raises(GpuRefused, match="GPU busy: gemma"):
            client.acquire("ours", priority=1, timeout_secs=1.0)
        client.close()
        assert (coordinator.session, coordinator.n_calls("release")) == ("theirs", 0)

    @pytest.mark.parametrize("status", [401, 403, 422])
    def test_an_answered_error_of_the_caller_is_not_in_doubt(
        self, coordinator: NeighbourCoordinator, status: int
    ) -> None:
        coordinator.grant_to("theirs")
        coordinator.token_status = status
        client = TenantClient(coordinator.url, "ml-service")
        with pytest.raises(GpuRefused, match=str(status)):
            client.acquire("ours", priority=1, timeout_secs=1.0)
        client.close()
        assert (coordinator.session, coordinator.n_calls("release")) == ("theirs", 0)


def test_minus_one_means_all_layers(settings: Settings) -> None:
    settings.GEMMA_GPU_LAYERS = -1
    maker = gpu_setup._maker(SimulatedGpu(), None, is_simulated=True)
    assert maker.config().gpu_layers == gpu_setup.ALL_LAYERS
    environment = os.environ | {"GEMMA_GPU_LAYERS": "-1"}
    command = [
        sys.executable,
        "manage.py",
        "shell",
        "-v0",
        "-c",
        "from django.conf import settings as s; print(s.GEMMA_GPU_LAYERS)",
    ]
    started = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert started.stdout.split()[-1:] == ["-1"], started.stderr
