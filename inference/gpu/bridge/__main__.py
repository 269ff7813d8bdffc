"""Command line of the bridge.

    python -m inference.gpu.bridge ollama [--url http://127.0.0.1:11434]
    python -m inference.gpu.bridge command --pause "systemctl stop comfyui" --resume "systemctl start comfyui" \
        --check "! systemctl is-active --quiet comfyui"

Start `manage.py serve` beside it. SIGTERM ends the bridge, and lets the program come back.
"""

import argparse
import logging
import os
import signal
import sys

import httpx

from inference.gpu.bridge.bridge import Bridge
from inference.gpu.bridge.command import Command, is_freeze
from inference.gpu.bridge.neighbour import Neighbour, NeighbourError
from inference.gpu.bridge.ollama import Ollama, url_of_environment
from inference.gpu.sdk.addresses import address_file
from inference.gpu.tenant import gpu_tenant

log = logging.getLogger("inference.gpu.bridge")

# Less than the minute that coordinators wait for freed memory: they hear of a failure instead of waiting.
DEFAULT_PAUSE_SECS = 50.0
MAX_SECS = 3600.0
FROZEN = (
    "--pause freezes the program, which keeps its memory of the GPU: stop it instead (docker stop, systemctl stop), or "
    "add --check with a command that succeeds when the memory is free"
)


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s bridge %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("inference.gpu.sdk.tenant").addFilter(_in_one_line)
    neighbour = _neighbour(options, parser)
    bridge = Bridge(neighbour, pause_secs=options.pause_secs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bridge.stop())
    try:
        tenant = gpu_tenant(
            options.name,
            on_pause=bridge.pause,
            on_resume=bridge.resume,
            redis_url=options.redis_url,
            coordinator_url=options.coordinator_url,
            is_loaded=True,
        )
    except (ValueError, OSError, httpx.InvalidURL) as error:
        parser.error(str(error))
    with tenant:
        log.info("bridge started neighbour=%s tenant=%s", neighbour.name, options.name)
        is_whole = bridge.serve()
    log.info("bridge ended neighbour=%s", neighbour.name)
    if not is_whole:
        log.error("not resumed, a later bridge with the same commands tries again neighbour=%s", neighbour.name)
    return 0 if is_whole else 1


def _in_one_line(record: logging.LogRecord) -> bool:
    """Replace the traceback of a program that did not leave, which is no fault of the code, by its reason."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, NeighbourError):
        record.msg, record.args = "%s: %s", (record.getMessage(), error)
        record.exc_info = None
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference.gpu.bridge",
        description="Share the GPU with a program that cannot be changed: it leaves while the chat has the GPU.",
    )
    programs = parser.add_subparsers(dest="program", required=True, metavar="ollama|command")
    ollama = programs.add_parser("ollama", help="an Ollama server: its models are unloaded")
    ollama.add_argument("--url", type=_http_url, help="its address (OLLAMA_HOST, else http://127.0.0.1:11434)")
    command = programs.add_parser("command", help="a program that commands stop and start")
    command.add_argument("--pause", required=True, type=_command, metavar="COMMAND", help="stops it (/bin/sh)")
    command.add_argument("--resume", required=True, type=_command, metavar="COMMAND", help="starts it again")
    command.add_argument(
        "--check", type=_command, metavar="COMMAND", help="succeeds when its memory is free (the end of --pause)"
    )
    for program, name in ((ollama, "ollama"), (command, "command")):
        program.add_argument("--name", default=name, type=_name, help=f"of the tenant ({name})")
        program.add_argument(
            "--pause-secs",
            type=_seconds,
            default=DEFAULT_PAUSE_SECS,
            metavar="SECS",
            help=f"how long it may take to leave ({DEFAULT_PAUSE_SECS:g})",
        )
        program.add_argument("--redis-url", help="where the coordinator talks to its tenants (GPU_REDIS_URL)")
        program.add_argument("--coordinator-url", type=_http_url, help="of the coordinator (GPU_COORDINATOR_URL)")
    return parser


def _neighbour(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Neighbour:
    if options.program == "ollama":
        return _ollama(options.url, parser)
    if is_freeze(options.pause):
        if options.check is None:
            parser.error(FROZEN)
        log.warning("the pause command freezes the program: its memory is free only when the check succeeds")
    return Command(
        options.name,
        pause=options.pause,
        resume=options.resume,
        check=options.check,
        timeout_secs=options.pause_secs,
        folder=address_file().parent,
    )


def _ollama(url: str | None, parser: argparse.ArgumentParser) -> Ollama:
    try:
        ollama = Ollama(url or _http_url(url_of_environment(os.environ.get("OLLAMA_HOST"))))
    except (argparse.ArgumentTypeError, httpx.InvalidURL) as error:
        parser.error(f"OLLAMA_HOST: {error}")
    try:
        if not ollama.is_running():
            log.warning("nothing listens there, which is taken for an ollama that is not running url=%s", ollama.url)
    except NeighbourError as error:
        log.warning("ollama does not answer as expected url=%s error=%s", ollama.url, error)
    return ollama


def _http_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// address")
    return text


def _command(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the command is empty")
    return text


def _name(text: str) -> str:
    if not text.isprintable() or not text.strip() or len(text) > 100:
        raise argparse.ArgumentTypeError("a name has 1 to 100 printable characters")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_SECS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to {MAX_SECS:g}")
    return value


if __name__ == "__main__":
    sys.exit(main())
