"""Parsing of environment variables: accepted and refused values, and refusals that contain name and value."""

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_project.environment import Environment, SettingError, without_password
from gemma_project.settings import _database
from inference.engine.config import KvType


def test_an_empty_variable_counts_as_unset() -> None:
    env = Environment({"GEMMA_PORT": "  "})
    assert env.integer("GEMMA_PORT", 8001, minimum=1, maximum=65_535) == 8001
    assert not env.is_set("GEMMA_PORT")


@pytest.mark.parametrize("value", ["8001x", "80.5", "0", "70000", "-1", "1_000 000", "0x50", "1e3"])
def test_a_bad_number_is_named_with_its_value_and_bounds(value: str) -> None:
    with pytest.raises(SettingError) as caught:
        Environment({"GEMMA_PORT": value}).integer("GEMMA_PORT", 8001, minimum=1, maximum=65_535)
    assert str(caught.value) == f"GEMMA_PORT={value!r}: expected a whole number from 1 to 65535"


@given(st.integers(min_value=1, max_value=65_535))
def test_every_number_in_the_bounds_is_taken(number: int) -> None:
    assert Environment({"N": str(number)}).integer("N", 7, minimum=1, maximum=65_535) == number


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_text_makes_parsing_fail_with_anything_but_a_setting_error(text: str) -> None:
    env = Environment({"X": text})
    for read in (
        lambda: env.integer("X", 1, minimum=0, maximum=9),
        lambda: env.decimal("X", 1.0, minimum=0.0, maximum=9.0),
        lambda: env.flag("X", False),
        lambda: env.networks("X", "127.0.0.0/8"),
        lambda: env.url("X", ("http",)),
        lambda: env.choice("X", KvType.F16),
        lambda: env.file_text("X"),
        lambda: env.time_zone("X", "UTC"),
    ):
        try:
            read()
        except SettingError as error:
            assert str(error).startswith("X=")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "0.4", "ten"])
def test_decimals_are_finite_and_in_bounds(value: str) -> None:
    with pytest.raises(SettingError, match="expected a number from 0.5 to 10"):
        Environment({"CLAIM_TTL_SECS": value}).decimal("CLAIM_TTL_SECS", 5.0, minimum=0.5, maximum=10.0)


def test_choices_are_listed() -> None:
    with pytest.raises(SettingError, match="GEMMA_KV_TYPE_V='q5': expected one of f16, q8_0, q4_0"):
        Environment({"GEMMA_KV_TYPE_V": "q5"}).choice("GEMMA_KV_TYPE_V", KvType.F16)


def test_choices_and_flags_ignore_case() -> None:
    env = Environment({"KV": "Q8_0", "FLAG": "True", "OFF": "no"})
    assert env.choice("KV", KvType.F16) is KvType.Q8_0
    assert env.flag("FLAG", False) is True
    assert env.flag("OFF", True) is False


@pytest.mark.parametrize("value", ["Europe/Atlantis", "Europe", "../../etc/passwd", "/etc/passwd", "GMT+25", "CEST"])
def test_a_time_zone_that_is_none_is_named(value: str) -> None:
    with pytest.raises(SettingError, match=f"GEMMA_TIME_ZONE='{re.escape(value)}': expected a time zone such as"):
        Environment({"GEMMA_TIME_ZONE": value}).time_zone("GEMMA_TIME_ZONE", "UTC")
    assert Environment({"GEMMA_TIME_ZONE": "Europe/Berlin"}).time_zone("GEMMA_TIME_ZONE", "UTC") == "Europe/Berlin"


def test_a_flag_is_not_just_any_text() -> None:
    with pytest.raises(SettingError, match="JWT_ONLY='ture': expected true or false"):
        Environment({"JWT_ONLY": "ture"}).flag("JWT_ONLY", False)


def test_shares_are_numbers_with_commas_between() -> None:
    assert Environment({"S": " 3, 1,0 "}).proportions("S", at_most=3) == (3.0, 1.0, 0.0)
    assert Environment({"S": ""}).proportions("S", at_most=3) == ()


@pytest.mark.parametrize("value", ["3;1", "3,,1", "-1,2", "0,0", "nan,1", "inf", "a,b", ",", "1,1,1,1"])
def test_shares_that_share_nothing_out_are_refused(value: str) -> None:
    with pytest.raises(SettingError, match="GEMMA_TENSOR_SPLIT='.*expected comma-separated numbers"):
        Environment({"GEMMA_TENSOR_SPLIT": value}).proportions("GEMMA_TENSOR_SPLIT", at_most=3)


def test_networks_are_parsed_and_a_wrong_one_is_named() -> None:
    assert Environment({}).networks("NETS", "127.0.0.0/8,::1/128") == [
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    ]
    with pytest.raises(SettingError, match=r"NETS='10\.0\.0\.1/8'.*host bits"):
        Environment({"NETS": "127.0.0.0/8, 10.0.0.1/8"}).networks("NETS", "")


@pytest.mark.parametrize("value", ["localhost:8004", "ftp://x", "http://", "http://x:port", "http://[::1"])
def test_a_url_needs_a_scheme_and_a_host(value: str) -> None:
    with pytest.raises(SettingError, match="RAG_SERVICE_URL=.*begins with http:// or https://"):
        Environment({"RAG_SERVICE_URL": value}).url("RAG_SERVICE_URL", ("http", "https"))


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(SettingError) as caught:
        Environment({"REDIS_URL": "reddis://:hunter2@cache:6379"}).url("REDIS_URL", ("redis", "unix"))
    assert "hunter2" not in str(caught.value)


def test_a_url_loses_its_closing_slash() -> None:
    assert Environment({"U": "http://rag:8004/"}).url("U", ("http",)) == "http://rag:8004"


def test_a_text_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt"
    path.write_text("Be brief.\n")
    assert Environment({"PROMPT_FILE": str(path)}).text_or_file("PROMPT") == "Be brief."


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="PROMPT_FILE='.*nowhere': expected a readable text file"):
        Environment({"PROMPT_FILE": str(tmp_path / "nowhere")}).text_or_file("PROMPT")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="PROMPT_FILE"):
        Environment({"PROMPT_FILE": str(binary)}).text_or_file("PROMPT")


def test_variables_that_nothing_asked_for_are_unknown() -> None:
    env = Environment({"GEMMA_PORT": "1", "GEMMA_PROT": "2", "OTHER": "3"})
    env.text("GEMMA_PORT", "")
    assert env.unknown("GEMMA_") == ["GEMMA_PROT"]


def test_the_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(SettingError, match="P='~nobody-at-all/x': expected a path"):
        Environment({"P": "~nobody-at-all/x"}).path("P")


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Environment({"P": "models/x.gguf"}).path("P") == tmp_path / "models" / "x.gguf"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@cache:6379/0", "redis://***@cache:6379/0"),
        ("redis://user:hunter2@cache/0", "redis://***@cache/0"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("http://[broken", "http://[broken"),
        ("redis://:hunter/2@cache:6379/0", "redis://***@cache:6379/0"),
        ("redis://:hunter#2?x@cache:6379/0?db=3", "redis://***@cache:6379/0?db=3"),
        ("postgres://gemma:hun@ter@2@db:5432/gemma", "postgres://***@db:5432/gemma"),
        ("postgres//gemma:hunter2@db/gemma", "***@db/gemma"),
        ("gemma:hunter2@db", "***@db"),
        ("redis://cache/0?password=hunter2&db=1", "redis://cache/0?password=***&db=1"),
        ("unix:///run/x.sock?db=0&password=hunter2", "unix:///run/x.sock?db=0&password=***"),
        (
            "postgres://db/gemma?user=a&sslpassword=hunter2&sslmode=require",
            "postgres://db/gemma?user=***&sslpassword=***&sslmode=require",
        ),
        ("redis://[::1", "redis://[::1"),
    ],
)
def test_a_printed_address_has_no_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2:hunter2/hunter2@cache:6379/0",
        "redis://:hunter2#hunter2@cache:x/0",
        "redis://[hunter2@cache",
        "redis:/:hunter2@cache",
        "http://user:hunter2@cache",
        "redis://cache:99999999?password=hunter2",
    ],
)
def test_the_error_about_an_address_has_no_password(url: str) -> None:
    with pytest.raises(SettingError) as raised:
        Environment({"REDIS_URL": url}).url("REDIS_URL", ("rediss",))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://gemma:hunter2:hunter2/x@db/gemma",
        "post gres://gemma:hunter2@db",
        "mysql://gemma:hunter2@db/gemma",
        "gemma:hunter2@db",
    ],
)
def test_the_error_about_a_database_has_no_password(url: str) -> None:
    with pytest.raises(SettingError) as raised:
        _database(url)
    assert "hunter2" not in str(raised.value)
