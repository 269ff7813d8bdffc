"""`manage.py serve`: everything on one machine, with nothing to install beside the Python packages."""

import os
import shutil
import sys
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from setproctitle import setproctitle

from gemma_project.admin_site import has_operator
from gemma_project.broker_url import valkey_socket
from gemma_project.environment import without_password
from gemma_project.secret_files import read_or_create
from gemma_project.startup import NotReady, check_callers, migrate, prepare_model, wait_for_redis
from gemma_project.supervisor import valkey
from gemma_project.supervisor.errors import StartupError
from gemma_project.supervisor.listener import open_listener, reachable_url
from gemma_project.supervisor.lock import DataDirLock
from gemma_project.supervisor.part import Part
from gemma_project.supervisor.signals import SignalPipe
from gemma_project.supervisor.supervisor import StopRequested, Supervisor
from inference.engine.backends.gguf_header import check_model_file
from inference.engine.config import BackendKind
from inference.gpu.sdk.addresses import GpuAddresses, remove_addresses, write_addresses

MANAGE = str(Path(settings.BASE_DIR) / "manage.py")
VALKEY_START_SECS = 30.0
FIRST_TOKEN_SECS = 600.0
REDIS_WAIT_SECS = 10.0
# With the default DRAIN_SECS of 5 all parts together end within 10 s, the killed ones included.
WORKER_STOP_MARGIN_SECS = 2.0
WEB_STOP_SECS = 1.5
VALKEY_STOP_SECS = 1.0


class Command(BaseCommand):
    help = (
        "Starts the whole service and keeps it running: Valkey (unless REDIS_URL is set), the worker with the model, "
        "and the web process on GEMMA_HOST:GEMMA_PORT. Ctrl-C stops everything within 10 s. Each part can be started "
        "alone: `manage.py migrate`, `manage.py worker`, `manage.py web`; `manage.py probe` asks for one token."
    )

    addresses: GpuAddresses | None = None  # as written

    def handle(self, *args: object, **options: object) -> None:
        setproctitle("gemma-serve")
        host, port = settings.GEMMA_HOST, settings.GEMMA_PORT
        try:
            with DataDirLock(settings.GEMMA_DATA_DIR), open_listener(host, port) as listener, SignalPipe() as signals:
                supervisor = Supervisor(signals, self.say)
                try:
                    self.start(supervisor, listener.fileno())
                    self.print_summary()
                    supervisor.watch()
                    self.say("stopping")
                finally:
                    supervisor.stop()
        except (StartupError, NotReady) as error:
            raise CommandError(str(error)) from error
        except StopRequested:
            self.say("stopped before the service was up")
            sys.exit(1)
        if self.addresses is not None:
            remove_addresses(self.addresses)
        self.say("stopped")

    def start(self, supervisor: Supervisor, listener_fd: int) -> None:
        """Start all parts in the order of their dependencies; return after a first token was produced."""
        if settings.REDIS_URL_GIVEN is None:
            self.start_valkey(supervisor)
        wait_for_redis(REDIS_WAIT_SECS)
        migrate()
        check_callers()
        prepare_model()
        # The checks have just run here; their warnings need not be printed three times.
        web = [sys.executable, MANAGE, "web", "--skip-checks", "--listen-fd", str(listener_fd)]
        supervisor.add(Part("gemma-web", web, WEB_STOP_SECS, pass_fds=(listener_fd,)))
        worker_stop_secs = settings.DRAIN_SECS + WORKER_STOP_MARGIN_SECS
        supervisor.add(Part("gemma-worker", [sys.executable, MANAGE, "worker", "--skip-checks"], worker_stop_secs))
        self.say("loading the model and waiting for a first token")
        url = reachable_url(settings.GEMMA_HOST, settings.GEMMA_PORT)
        probe = [sys.executable, MANAGE, "probe", "--skip-checks", "--url", url]
        probe += ["--timeout-secs", str(FIRST_TOKEN_SECS)]
        supervisor.run_to_end(Part("gemma-probe", probe, 1.0))

    def start_valkey(self, supervisor: Supervisor) -> None:
        socket_path = valkey_socket(settings.GEMMA_DATA_DIR)
        data_dir = settings.GEMMA_DATA_DIR / "valkey"
        try:
            valkey.prepare_directories(socket_path, data_dir)
        except OSError as error:
            raise NotReady(f"no place for Valkey's socket or data: {error}") from error
        hint = f"see {data_dir / valkey.LOG_NAME}"
        supervisor.add(Part("gemma-valkey", valkey.command(socket_path, data_dir), VALKEY_STOP_SECS, hint=hint))
        supervisor.wait_until(
            lambda: valkey.answers(socket_path), what="gemma-valkey did not answer", timeout_secs=VALKEY_START_SECS
        )

    def print_summary(self) -> None:
        url = reachable_url(settings.GEMMA_HOST, settings.GEMMA_PORT)
        database = settings.DATABASES["default"]
        model = (
            "scripted answers (GEMMA_BACKEND=fake)" if settings.GEMMA_BACKEND == "fake" else settings.GEMMA_MODEL_FILE
        )
        self.say(f"ready: {url}  (chat: POST {url}/chat, admin: {url}/admin/, state: {url}/health)")
        self.say(f"model     {model}")
        self.say(f"context   {context_text()}")
        self.say(f"database  {database['ENGINE'].rpartition('.')[2]} {database['NAME']}")
        self.say(f"redis     {without_password(settings.REDIS_URL)}")
        self.say(f"gpu       {self._publish_gpu_addresses(url)}")
        self.say(f"data      {settings.GEMMA_DATA_DIR} ({free_gib(settings.GEMMA_DATA_DIR):.0f} GiB free)")
        if not has_operator():
            token = read_or_create(settings.FIRST_USER_TOKEN_FILE)
            self.say(f"users     none yet; this link makes the first one, once: {url}/admin/first-user/{token}/")
        self.say(f"processes {os.getpid()} gemma-serve; the others: ps -ef | grep gemma-. Ctrl-C stops all.")

    def _publish_gpu_addresses(self, url: str) -> str:
        """Write the addresses for tenants of the GPU; return what to do about them."""
        redis_url = settings.GPU_REDIS_URL
        self.addresses = GpuAddresses(redis_url, settings.GPU_COORDINATOR_URL or url)
        elsewhere = f"GPU_REDIS_URL={without_password(redis_url)} GPU_COORDINATOR_URL={self.addresses.coordinator_url}"
        try:
            return f"tenants of this user find it in {write_addresses(self.addresses)}; others: {elsewhere}"
        except OSError as error:
            return f"tenants need {elsewhere} (not written: {error})"

    def say(self, text: str) -> None:
        self.stderr.write(f"serve: {text}", style_func=str)
        self.stderr.flush()


def context_text() -> str:
    """Describe the size of the context, with the reason when it is less than the setting."""
    configured = settings.GEMMA_CONTEXT_SIZE
    is_fake = settings.GEMMA_BACKEND is BackendKind.FAKE
    trained = 0 if is_fake else check_model_file(settings.GEMMA_MODEL_FILE).trained_context
    if 0 < trained < configured:
        return f"{trained} tokens, not GEMMA_CONTEXT_SIZE={configured}: the model was trained for no more"
    return f"{configured} tokens"


def free_gib(directory: Path) -> float:
    return shutil.disk_usage(directory).free / 2**30
