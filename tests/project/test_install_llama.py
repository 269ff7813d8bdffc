"""The builder of llama-cpp-python: the choice of a wheel for a machine, and its cache. Nothing is built here."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_stack import PROJECT
from tools import install_llama

AMX_CPU = "model name\t: Some CPU\nflags\t\t: fpu sse4_2 avx avx2 bmi2 fma f16c amx_tile amx_int8\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Linux x86-64 machine with AVX2 and AMX and a compiler that knows both."""
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(install_llama, "compiler_knows", lambda flag: True)
    monkeypatch.setattr(install_llama, "cpu_flags", lambda: set(AMX_CPU.split()))
    monkeypatch.setattr(install_llama, "cpu_identity", lambda: AMX_CPU)
    return monkeypatch


def test_amx_is_never_used(machine: pytest.MonkeyPatch) -> None:
    arguments = install_llama.cmake_arguments(portable=False)
    assert "-DGGML_NATIVE=OFF" in arguments
    for language in ("C", "CXX"):
        assert f"-DCMAKE_{language}_FLAGS=-march=native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16" in arguments


def test_an_old_compiler_is_not_given_flags_it_does_not_know(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(install_llama, "compiler_knows", lambda flag: False)
    assert "-DCMAKE_C_FLAGS=-march=native" in install_llama.cmake_arguments(portable=False)


def test_a_cpu_without_avx2_does_not_get_it(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(install_llama, "cpu_flags", lambda: {"sse4_2", "avx"})
    arguments = install_llama.cmake_arguments(portable=False)
    assert {"-DGGML_AVX2=OFF", "-DGGML_FMA=OFF", "-DGGML_F16C=OFF", "-DGGML_BMI2=OFF"} <= set(arguments)
    assert not {"-DGGML_AVX=OFF", "-DGGML_SSE42=OFF"} & set(arguments)


def test_other_machines_get_llama_cpps_defaults(machine: pytest.MonkeyPatch) -> None:
    machine.setattr("platform.machine", lambda: "aarch64")
    assert install_llama.machine_arguments() == []


def test_an_image_gets_no_flags_of_the_machine_that_builds_it(machine: pytest.MonkeyPatch) -> None:
    assert "native" not in " ".join(install_llama.cmake_arguments(portable=True))


def test_the_users_arguments_come_last(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("CMAKE_ARGS", '-DGGML_CUDA=on -DCMAKE_CXX_FLAGS="-O2 -g"')
    assert install_llama.cmake_arguments(portable=False)[-2:] == ["-DGGML_CUDA=on", "-DCMAKE_CXX_FLAGS=-O2 -g"]


def test_a_key_changes_with_everything_that_makes_a_wheel_fit(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = install_llama.cmake_arguments(portable=False)
    keys = [install_llama.key(arguments), install_llama.key([*arguments, "-DGGML_CUDA=on"])]
    machine.setattr(install_llama, "cpu_identity", lambda: AMX_CPU.replace("amx_tile", ""))
    keys.append(install_llama.key(arguments))
    machine.setattr("platform.libc_ver", lambda: ("glibc", "2.99"))
    keys.append(install_llama.key(arguments))
    machine.setattr(install_llama, "VERSION", "0.3.37")
    keys.append(install_llama.key(arguments))
    machine.setenv("CXXFLAGS", "-flto")
    keys.append(install_llama.key(arguments))
    machine.setattr(install_llama, "OURS", tmp_path)
    keys.append(install_llama.key(arguments))
    (tmp_path / "product.cpp").write_text("int main() {}")
    (tmp_path / ".product.cpp.swp").write_bytes(b"\xff")
    keys.append(install_llama.key(arguments))
    assert len(set(keys)) == 8
    assert install_llama.key(arguments) == keys[-1]


def test_the_key_does_not_depend_on_where_the_project_lies(machine: pytest.MonkeyPatch) -> None:
    assert str(PROJECT) not in "".join(install_llama.cmake_arguments(portable=False))


def test_the_version_is_the_pinned_one() -> None:
    assert f"llama-cpp-python=={install_llama.VERSION}\n" in (PROJECT / "constraints.txt").read_text()


def test_a_wheel_in_the_cache_is_installed_without_a_build(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = install_llama.cache_folder() / install_llama.key(install_llama.cmake_arguments(portable=False))
    folder.mkdir(parents=True)
    (folder / "llama.whl").write_bytes(b"")
    installed: list[tuple[Path, str]] = []
    machine.setattr(install_llama, "is_installed", lambda key: False)
    machine.setattr(install_llama, "build", lambda *_: pytest.fail("built"))

    def note(wheel: Path, key: str) -> int:
        installed.append((wheel, key))
        return 0

    machine.setattr(install_llama, "install", note)
    machine.setattr(sys, "argv", ["install_llama.py"])
    assert install_llama.main() == 0
    assert installed == [(folder / "llama.whl", folder.name)]


def test_what_is_installed_is_not_installed_again(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stamp = tmp_path / "key"
    machine.setattr(install_llama, "INSTALLED_KEY", stamp)
    machine.setattr(sys, "argv", ["install_llama.py"])
    machine.setattr(install_llama, "install", lambda *_: pytest.fail("installed"))
    stamp.write_text(install_llama.key(install_llama.cmake_arguments(portable=False)) + "\n")
    assert install_llama.main() == 0
    machine.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert not install_llama.is_installed(install_llama.key(install_llama.cmake_arguments(portable=False)))


def test_a_build_shows_its_steps_and_keeps_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install_llama, "SILENCE_SECS", 0.0)
    code = "print('  [7/83] building', flush=True); print('noise'); raise SystemExit(5)"
    log = tmp_path / "build.log"
    assert install_llama.run_with_progress([sys.executable, "-c", code], {}, log) == 5
    assert "step 7 of 83" in capsys.readouterr().out
    assert "noise" in log.read_text()


def test_a_failed_build_ends_with_the_logs_tail_and_leaves_no_wheel(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(command: list[str], environment: dict[str, str], log_path: Path) -> int:
        assert "--no-cache-dir" in command
        assert "-DLLAVA_BUILD=OFF" in environment["CMAKE_ARGS"]
        log_path.write_text("error: expected ';'\n")
        return 1

    machine.setattr(install_llama, "run_with_progress", fail)
    with pytest.raises(SystemExit, match=r"(?s)expected ';'.*could not be built.*build\.log"):
        install_llama.build(install_llama.cmake_arguments(portable=False), tmp_path / "key")
    assert install_llama.cached_wheel(tmp_path / "key") is None


def test_no_compiler_is_said_before_anything_is_built(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tools" / "install_llama.py"), "--rebuild"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no C++ compiler" in done.stderr
    assert "Traceback" not in done.stderr
