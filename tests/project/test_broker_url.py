"""The addresses of Redis: the socket of a data directory, the spellings of the clients, hidden passwords."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import redis
from django.conf import settings
from kombu import Connection

from gemma_project.broker_url import SOCKET_PATH_BYTES, for_celery, socket_url, valkey_socket


def test_the_socket_lies_in_the_data_directory() -> None:
    assert valkey_socket(Path("/srv/gemma")) == Path("/srv/gemma/run/valkey.sock")


def test_a_data_directory_too_deep_for_a_socket_gets_a_private_one_elsewhere() -> None:
    deep = Path("/srv") / ("ü" * 60)  # 120 bytes, though only 65 characters
    path = valkey_socket(deep)
    assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES
    assert path == valkey_socket(deep)
    assert path != valkey_socket(deep.with_name("ä" * 60))


def test_the_longest_path_that_fits_is_used() -> None:
    room = SOCKET_PATH_BYTES - len("/run/valkey.sock")
    fits = Path("/" + "d" * (room - 1))
    assert valkey_socket(fits).parent.parent == fits
    assert valkey_socket(Path("/" + "d" * room)).parent.parent != Path("/" + "d" * room)


@pytest.mark.parametrize("name", ["plain.sock", "with space, ü and %40.sock"])
def test_both_clients_arrive_at_the_same_socket(tmp_path: Path, name: str) -> None:
    link = tmp_path / name
    link.symlink_to(unquote(urlsplit(settings.REDIS_URL).path))
    url = socket_url(link)
    assert redis.Redis.from_url(url).ping()
    with Connection(for_celery(url)) as connection:
        connection.ensure_connection(max_retries=1)
        assert connection.connected


def test_a_database_number_survives() -> None:
    assert for_celery("unix:///run/redis.sock?db=3") == "redis+socket:///run/redis.sock?virtual_host=3"
    assert for_celery("redis://cache:6379/2") == "redis://cache:6379/2"
