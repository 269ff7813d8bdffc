"""Installs llama-cpp-python, built for this machine and with our matrix products, into the environment of this Python.

A build takes minutes, so its wheel is kept in a cache of our own: pip's cache ignores both the CMake arguments and
the CPU, and would hand out a wheel that another machine or another option made. Standard library only.

    python tools/install_llama.py              install (build when the cache has no fitting wheel)
    CMAKE_ARGS="-DGGML_CUDA=on" python ...     the same for NVIDIA GPUs; such arguments come last and win
"""

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
PROJECT = Path(__file__).resolve().parent.parent
CONSTRAINTS = PROJECT / "constraints.txt"
INSTALLED_KEY = Path(sys.prefix) / "llama-cpp-python.key"

# The vision library is not used.
SMALLER = ["-DLLAVA_BUILD=OFF"]
# Our additions to the build; the reasons are in their files.
OURS = PROJECT / "tools" / "llama"
# For images that run elsewhere than where they are built.
PORTABLE = ["-DGGML_NATIVE=OFF"]

# Virtual machines and sandboxes may advertise AMX, grant the permission to use it, and still lose the contents of the
# tile registers at a context switch: llama.cpp then dies with SIGILL. So: everything this CPU has, but not AMX.
NO_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
# With GGML_NATIVE off, ggml switches these on whatever the CPU has.
GGML_OPTION_OF_CPU_FLAG = {
    "sse4_2": "GGML_SSE42",
    "avx": "GGML_AVX",
    "avx2": "GGML_AVX2",
    "bmi2": "GGML_BMI2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
}
STEP = re.compile(rb"^\s*\[(\d+)/(\d+)\]")
SILENCE_SECS = 10.0
LOG_TAIL_LINES = 40


def main() -> int:
    parser = argparse.ArgumentParser(description="Install llama-cpp-python, built for this machine.")
    parser.add_argument("--rebuild", action="store_true", help="build even if the cache has a fitting wheel")
    parser.add_argument(
        "--wheel-only", type=Path, metavar="FOLDER", help="put the wheel there instead of installing it"
    )
    parser.add_argument("--portable", action="store_true", help="for any x86-64 CPU with AVX2, not just this one")
    parser.add_argument("--print-key", action="store_true", help="print the folder of the fitting wheel and end")
    options = parser.parse_args()
    arguments = cmake_arguments(portable=options.portable)
    folder = cache_folder() / key(arguments)
    if options.print_key:
        print(folder)
        return 0
    if not options.rebuild and not options.wheel_only and is_installed(folder.name):
        print(f"{PACKAGE} {VERSION} is installed")
        return 0
    wheel = None if options.rebuild else cached_wheel(folder)
    if wheel is None:
        wheel = build(arguments, folder)
    if options.wheel_only:
        options.wheel_only.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, options.wheel_only)
        return 0
    return install(wheel, folder.name)


def cmake_arguments(*, portable: bool) -> list[str]:
    """Ours for this machine, then those of CMAKE_ARGS, which win because CMake takes the last."""
    ours = PORTABLE if portable else machine_arguments()
    return [*SMALLER, *ours, *shlex.split(os.environ.get("CMAKE_ARGS", ""))]


def machine_arguments() -> list[str]:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return []
    flags = " ".join(["-march=native", *(flag for flag in NO_AMX if compiler_knows(flag))])
    has = cpu_flags()
    lacking = [f"-D{option}=OFF" for flag, option in GGML_OPTION_OF_CPU_FLAG.items() if flag not in has]
    return ["-DGGML_NATIVE=OFF", f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}", *lacking]


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def compiler_knows(flag: str) -> bool:
    """A compiler too old for the flag is too old for AMX as well."""
    command = [*compiler(), "-x", "c++", flag, "-E", "-"]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    except OSError:
        sys.exit(f"error: no C++ compiler ({compiler()[0]}); install one (Debian: apt install g++) or set CXX")


def compiler_identity() -> list[str]:
    """Return the compiler's version (empty: there is none, which a build reports) and its flags."""
    try:
        version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        version = ""
    return [version, *(os.environ.get(name, "") for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"))]


def cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def cpu_identity() -> str:
    """Return the properties of the CPU that -march=native may depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def key(arguments: list[str]) -> str:
    """Names all that makes a wheel fit here: version, our sources, compiler, arguments, machine, C library, CPU."""
    parts = [
        VERSION,
        *(path.read_text(encoding="utf-8") for suffix in ("cmake", "cpp") for path in sorted(OURS.glob(f"*.{suffix}"))),
        *compiler_identity(),
        *arguments,
        platform.system(),
        platform.machine(),
        *platform.libc_ver(),
        cpu_identity(),
    ]
    return f"{VERSION}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gemma-service" / "wheels"


def cached_wheel(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)


def build(arguments: list[str], folder: Path) -> Path:
    """Build the wheel and put it into the cache in one move; ends the program with the log's tail if that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "build.log"
    print(f"building {PACKAGE} {VERSION} for this machine: 1.5 to 5 minutes on 2 cores (log: {log_path})", flush=True)
    print(f"  CMAKE_ARGS={shlex.join(arguments)}", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        # pip's own cache would return a wheel that was built with other arguments.
        command = [*pip(), "wheel", "--verbose", "--no-cache-dir", "--no-deps", "--no-binary", PACKAGE]
        command += ["--wheel-dir", draft, f"{PACKAGE}=={VERSION}"]
        started = time.monotonic()
        # Its contents are part of the key, its path is not: the project may lie anywhere.
        include = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={OURS / 'build.cmake'}"
        status = run_with_progress(command, {**os.environ, "CMAKE_ARGS": shlex.join([include, *arguments])}, log_path)
        wheels = list(Path(draft).glob("*.whl"))
        if status != 0 or len(wheels) != 1:
            tail = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
            sys.exit("\n".join([*tail, f"error: {PACKAGE} could not be built; the whole log is {log_path}"]))
        print(f"built in {time.monotonic() - started:.0f} s", flush=True)
        return wheels[0].rename(folder / wheels[0].name)


def run_with_progress(command: list[str], environment: dict[str, str], log_path: Path) -> int:
    """Run the build, its output into the log, a line here every few seconds; returns the exit status."""
    started = shown = time.monotonic()
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            step = STEP.match(line)
            now = time.monotonic()
            if step and now - shown >= SILENCE_SECS:
                shown = now
                print(f"  step {int(step[1])} of {int(step[2])}, {now - started:.0f} s", flush=True)
    return process.returncode


def install(wheel: Path, installed_key: str) -> int:
    """Install the wheel, and note which build it was so that the next call has nothing to do."""
    INSTALLED_KEY.unlink(missing_ok=True)
    # Two steps: the wheel is replaced even at the same version, its dependencies are not.
    quiet = ["--quiet", "--disable-pip-version-check", "--constraint", str(CONSTRAINTS)]
    for extra in (["--force-reinstall", "--no-deps"], []):
        status = subprocess.run([*pip(), "install", *quiet, *extra, str(wheel)], check=False).returncode
        if status != 0:
            return status
    # Loading the library finds a wheel that does not fit this machine here, not at the first chat.
    load = [sys.executable, "-c", "import llama_cpp; llama_cpp.llama_backend_init()"]
    if subprocess.run(load, check=False).returncode != 0:
        print(f"error: {wheel} cannot be loaded; try {Path(__file__).name} --rebuild", file=sys.stderr)
        return 1
    INSTALLED_KEY.write_text(installed_key + "\n", encoding="ascii")
    print(f"{PACKAGE} {VERSION} installed from {wheel}")
    return 0


def is_installed(wanted_key: str) -> bool:
    try:
        return INSTALLED_KEY.read_text(encoding="ascii").strip() == wanted_key
    except OSError:
        return False


def pip() -> list[str]:
    return [sys.executable, "-m", "pip"]


if __name__ == "__main__":
    sys.exit(main())
