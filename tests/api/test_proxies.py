"""The recipes of docs/security.md with the real nginx and Caddy, where those are installed.

And those that nobody wrote for this service: what such a proxy forwards is not the local user's.
"""

import asyncio
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets

from tests.api.live import LiveUser, count
from tests.live_stack import PROJECT, LiveStack, free_port, wait_until

HOST = "chat.example.org"
RECIPES = (PROJECT / "docs" / "security.md").read_text()
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
PLAIN_SERVER = "server {{ listen {port}; location / {{ proxy_pass http://127.0.0.1:{service}; }} }}"
Start = Callable[[Path, int, int], list[str]]


def recipe(language: str) -> str:
    [block] = re.findall(rf"```{language}\n(.*?)```", RECIPES, re.DOTALL)
    return str(block)


def nginx(folder: Path, port: int, service: int) -> list[str]:
    """Return the command that serves by the recipe, with certificates and ports of this test."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}"]
    command += ["-keyout", str(folder / "chat.key"), "-out", str(folder / "chat.pem")]
    subprocess.run(command, check=True, capture_output=True)
    servers = recipe("nginx").replace("/etc/ssl", str(folder)).replace("listen 443", f"listen {port}")
    return _nginx(folder, servers.replace("127.0.0.1:8001", f"127.0.0.1:{service}"))


def _nginx(folder: Path, servers: str) -> list[str]:
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, servers=servers))
    return ["nginx", "-c", str(path), "-p", str(folder)]


def caddy(folder: Path, port: int, service: int) -> list[str]:
    path = folder / "Caddyfile"
    site = recipe("caddy").replace("127.0.0.1:8001", f"127.0.0.1:{service}").replace(HOST, f"https://{HOST}:{port}")
    path.write_text("{\n admin off\n local_certs\n skip_install_trust\n auto_https disable_redirects\n}\n" + site)
    return ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            wait_until(lambda: _listens(port), timeout_secs=30, what=f"{command[0]} listens")
            yield
        finally:
            process.terminate()
            process.wait(30)


def _listens(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=2)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:  # it speaks TLS
        return True
    return True


pytestmark = [pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")]
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
needs_caddy = pytest.mark.skipif(shutil.which("caddy") is None, reason="Caddy is not installed")


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    """A service as the text below the recipes asks for it."""
    environment = {"JWT_ONLY": "true", "ALLOWED_HOSTS": HOST, "TRUSTED_PROXIES": "127.0.0.1"}
    stack = LiveStack(backend="fake", environment=environment | {"CSRF_TRUSTED_ORIGINS": f"https://{HOST}"})
    try:
        stack.start()
        yield stack
    finally:
        stack.clean_up()


@pytest.fixture(scope="module")
def ann(stack: LiveStack) -> LiveUser:
    root, ann = ("create_superuser('root', password='p')", "create_user('ann', password='p')")
    made = stack.run(
        "shell", "-c", f"from django.contrib.auth.models import User as U; U.objects.{root}; U.objects.{ann}"
    )
    assert made.returncode == 0, made.stderr
    login = {"username": "ann", "password": "p"}
    pair = httpx.post(f"{stack.url}/api/token/", json=login, headers={"Host": HOST}, timeout=30).json()
    return LiveUser("ann", pair["access"], "")


class Proxied:
    """A client behind the proxy: it asks for the public name, and does not know the certificate."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, timeout=30)  # noqa: S501
        self.client.headers["Host"] = HOST

    def get(self, path: str, **options: object) -> httpx.Response:
        return self.client.get(path, extensions={"sni_hostname": HOST}, **options)  # type: ignore[arg-type]

    def is_ready(self) -> bool:
        try:
            return self.get("/health").status_code == httpx.codes.OK
        except httpx.TransportError:  # it listens before it has a certificate
            return False

    def post(self, path: str, **options: object) -> httpx.Response:
        return self.client.post(path, extensions={"sni_hostname": HOST}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [pytest.param(nginx, marks=needs_nginx), pytest.param(caddy, marks=needs_caddy)])
def test_a_recipe(start: Start, stack: LiveStack, ann: LiveUser, tmp_path: Path) -> None:
    port = free_port()
    with running(start(tmp_path, port, stack.port), tmp_path, port):
        proxied = Proxied(port)
        wait_until(proxied.is_ready, timeout_secs=30, what="the proxy forwards")
        assert proxied.get("/api/conversations/").status_code == 401
        assert proxied.get("/api/conversations/", headers=ann.headers).status_code == 200
        _check_stream(proxied, ann)
        asyncio.run(_check_socket(port, ann))
        _check_sign_in(proxied)


def _check_stream(proxied: Proxied, ann: LiveUser) -> None:
    """Tokens arrive one by one, not at the end."""
    arrivals = []
    with proxied.client.stream(
        "POST", "/chat/stream", json=count(8, delay_ms=100), headers=ann.headers, extensions={"sni_hostname": HOST}
    ) as response:
        assert response.status_code == 200
        arrivals += [time.monotonic() for line in response.iter_lines() if line.startswith("data:")]
    assert len(arrivals) > 8
    assert arrivals[-1] - arrivals[0] > 0.4


async def _check_socket(port: int, ann: LiveUser) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with websockets.connect(
        f"wss://{HOST}:{port}/ws/chat",
        host="127.0.0.1",
        ssl=context,
        server_hostname=HOST,
        additional_headers=ann.headers,
        proxy=None,
    ) as socket:
        await socket.send('{"type": "cancel", "generation_id": "x"}')
        assert '"not_found"' in str(await asyncio.wait_for(socket.recv(), 30))


def _check_sign_in(proxied: Proxied) -> None:
    """The admin's login, with a cookie and a form, from the public origin."""
    page = proxied.get("/admin/login/")
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    form = {"csrfmiddlewaretoken": token, "username": "root", "password": "p", "next": "/admin/"}
    for origin, status in (("https://evil.example", 403), (f"https://{HOST}", 302)):
        answer = proxied.post("/admin/login/", data=form, headers={"Origin": origin, "Referer": f"{origin}/"})
        assert answer.status_code == status


@needs_nginx
def test_a_plain_proxy_pass_is_not_the_local_user(fake_stack: LiveStack, tmp_path: Path) -> None:
    port = free_port()
    servers = PLAIN_SERVER.format(port=port, service=fake_stack.port)
    with running(_nginx(tmp_path, servers), tmp_path, port):
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/api/conversations/").status_code == 401
        assert httpx.get(f"{fake_stack.url}/api/conversations/").status_code == 200
