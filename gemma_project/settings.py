"""Django's settings, and the service's own: each has the name of the environment variable it is read from.

Rules about one variable are checked while it is parsed (environment.py), rules about several by checks.py.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from gemma_project.broker_url import for_celery, socket_url, valkey_socket
from gemma_project.environment import Environment, SettingError, without_password
from gemma_project.secret_files import make_private, read_or_create
from inference.engine.config import MAX_DEVICES, BackendKind, FlashAttention, KvType

BASE_DIR = Path(__file__).resolve().parent.parent
ENVIRONMENT = env = Environment(dict(os.environ))

# Where things are
GEMMA_DATA_DIR = env.path("GEMMA_DATA_DIR") or BASE_DIR / "var"
GEMMA_HOST = env.text("GEMMA_HOST", "127.0.0.1")
GEMMA_PORT = env.integer("GEMMA_PORT", 8001, minimum=1, maximum=65_535)
GEMMA_SHM_DIR = env.path("GEMMA_SHM_DIR") or Path("/dev/shm")  # noqa: S108  # nosec B108  # a tmpfs, not a guessable name

# The model and the runner
DEFAULT_MODEL_NAME = "gemma-3-270m-q4_k_m.gguf"
GEMMA_MODEL_PATH = env.path("GEMMA_MODEL_PATH")
GEMMA_MODEL_FILE = GEMMA_MODEL_PATH or GEMMA_DATA_DIR / "models" / DEFAULT_MODEL_NAME
GEMMA_BACKEND = env.choice("GEMMA_BACKEND", BackendKind.LLAMA)
GEMMA_GPU_LAYERS = env.integer("GEMMA_GPU_LAYERS", 25, minimum=-1, maximum=10_000)  # -1: all
GEMMA_MAIN_GPU = env.integer("GEMMA_MAIN_GPU", 0, minimum=0, maximum=15)
GEMMA_TENSOR_SPLIT = env.proportions("GEMMA_TENSOR_SPLIT", at_most=MAX_DEVICES)
GEMMA_CONTEXT_SIZE = env.integer("GEMMA_CONTEXT_SIZE", 65_536, minimum=64, maximum=16_777_216)
GEMMA_BATCH_SIZE = env.integer("GEMMA_BATCH_SIZE", 512, minimum=1, maximum=65_536)
GEMMA_UBATCH_SIZE = env.integer("GEMMA_UBATCH_SIZE", GEMMA_BATCH_SIZE, minimum=1, maximum=65_536)
GEMMA_PARALLEL = env.integer("GEMMA_PARALLEL", 4, minimum=1, maximum=64)
GEMMA_THREADS = env.integer("GEMMA_THREADS", len(os.sched_getaffinity(0)), minimum=1, maximum=1024)
GEMMA_CHAT_FORMAT = env.one_of("GEMMA_CHAT_FORMAT", "auto", ("auto", "template", "gemma", "transcript"))
GEMMA_CHAT_TEMPLATE = env.text_or_file("GEMMA_CHAT_TEMPLATE")
GEMMA_FLASH_ATTENTION = env.choice("GEMMA_FLASH_ATTENTION", FlashAttention.AUTO)
GEMMA_KV_TYPE_K = env.choice("GEMMA_KV_TYPE_K", KvType.F16)
GEMMA_KV_TYPE_V = env.choice("GEMMA_KV_TYPE_V", KvType.F16)
GEMMA_MLOCK = env.flag("GEMMA_MLOCK", False)
GEMMA_STEP_BUDGET_MS = env.decimal("GEMMA_STEP_BUDGET_MS", 200.0, minimum=1.0, maximum=60_000.0)
GEMMA_DRAFT_MAX = env.integer("GEMMA_DRAFT_MAX", 7, minimum=0, maximum=31)
GEMMA_CACHE_RAM_MB = env.integer("GEMMA_CACHE_RAM_MB", 512, minimum=0, maximum=1_048_576)
GEMMA_CACHE_DISK_MB = env.integer("GEMMA_CACHE_DISK_MB", 2048, minimum=0, maximum=16_777_216)
MODEL_ALIASES = env.items("MODEL_ALIASES", "")
GEMMA_SYSTEM_PROMPT = env.text_or_file("GEMMA_SYSTEM_PROMPT")

# Long conversations
HISTORY_SUMMARY_AT = env.decimal("HISTORY_SUMMARY_AT", 0.75, minimum=0.5, maximum=0.95)
HISTORY_SUMMARY_TOKENS = env.integer("HISTORY_SUMMARY_TOKENS", 768, minimum=16, maximum=65_536)

# The GPU, and sharing it
GEMMA_GPU = env.one_of("GEMMA_GPU", "auto", ("auto", "off", "simulated"))
GEMMA_GPU_LOAD_DELAY_MS = env.integer("GEMMA_GPU_LOAD_DELAY_MS", 0, minimum=0, maximum=600_000)
GEMMA_GPU_GRANT_DELAY_MS = env.integer("GEMMA_GPU_GRANT_DELAY_MS", 0, minimum=0, maximum=600_000)
GPU_MIN_HOLD_SECS = env.decimal("GPU_MIN_HOLD_SECS", 2.0, minimum=0.0, maximum=3600.0)
GPU_MAX_HOLD_SECS = env.decimal("GPU_MAX_HOLD_SECS", 120.0, minimum=0.1, maximum=86_400.0)
GPU_LINGER_SECS = env.decimal("GPU_LINGER_SECS", 3.0, minimum=0.0, maximum=3600.0)
GPU_LEASE_TTL_SECS = env.decimal("GPU_LEASE_TTL_SECS", 10.0, minimum=0.3, maximum=600.0)
GPU_UNRENEWED_LEASE_SECS = env.decimal("GPU_UNRENEWED_LEASE_SECS", 600.0, minimum=1.0, maximum=86_400.0)
GPU_WATCHER_SECS = env.decimal("GPU_WATCHER_SECS", 120.0, minimum=0.0, maximum=86_400.0)
GPU_PAUSE_TIMEOUT = env.decimal("GPU_PAUSE_TIMEOUT", 10.0, minimum=0.05, maximum=600.0)
GPU_FREED_TIMEOUT = env.decimal("GPU_FREED_TIMEOUT", 60.0, minimum=0.05, maximum=3600.0)
GPU_BREAKER_FAILURES = env.integer("GPU_BREAKER_FAILURES", 3, minimum=1, maximum=1000)
GPU_BREAKER_PAUSE_SECS = env.decimal("GPU_BREAKER_PAUSE_SECS", 30.0, minimum=0.1, maximum=3600.0)

# Other services
GPU_COORDINATOR_URL = env.url("GPU_COORDINATOR_URL", ("http", "https"))
RAG_SERVICE_URL = env.url("RAG_SERVICE_URL", ("http", "https"))
# Services whose new chats are stored unless they send store: false; those of others only with store: true.
STORING_SERVICES = frozenset(env.items("STORING_SERVICES", "gateway"))
RAG_DEFAULT = env.flag("RAG_DEFAULT", False)
AUTO_TITLES = env.flag("AUTO_TITLES", True)
RAG_TIMEOUT_SECS = env.decimal("RAG_TIMEOUT_SECS", 3.0, minimum=0.05, maximum=60.0)
RAG_BREAKER_FAILURES = env.integer("RAG_BREAKER_FAILURES", 3, minimum=1, maximum=1000)
RAG_BREAKER_PAUSE_SECS = env.decimal("RAG_BREAKER_PAUSE_SECS", 30.0, minimum=0.1, maximum=3600.0)
RAG_RECENCY_HALF_LIFE_DAYS = env.decimal("RAG_RECENCY_HALF_LIFE_DAYS", 30.0, minimum=0.01, maximum=36_500.0)
RAG_MIN_SIMILARITY = env.decimal("RAG_MIN_SIMILARITY", 0.2, minimum=-1.0, maximum=1.0)
RAG_EMBEDDING_PATH = env.path("RAG_EMBEDDING_PATH")
RAG_EMBEDDING_MODEL = env.one_of("RAG_EMBEDDING_MODEL", "auto", ("auto", "multilingual-e5-small", "all-MiniLM-L6-v2"))
RAG_EMBEDDING_THREADS = env.integer("RAG_EMBEDDING_THREADS", min(4, GEMMA_THREADS), minimum=1, maximum=64)

# Queue, streams and deadlines
QUEUE_MAX = env.integer("QUEUE_MAX", 256, minimum=1, maximum=1_000_000)
QUEUE_MAX_PER_CALLER = env.integer("QUEUE_MAX_PER_CALLER", 64, minimum=1, maximum=1_000_000)
# Of each user, and of all callers without credentials together; groups may have others. 0: no limit.
LIMIT_REQUESTS_PER_MINUTE = env.integer("LIMIT_REQUESTS_PER_MINUTE", 0, minimum=0, maximum=1_000_000)
LIMIT_TOKENS_PER_MINUTE = env.integer("LIMIT_TOKENS_PER_MINUTE", 0, minimum=0, maximum=1_000_000_000)
LIMIT_TOKENS_PER_DAY = env.integer("LIMIT_TOKENS_PER_DAY", 0, minimum=0, maximum=1_000_000_000_000)
LIMIT_ANSWERS_AT_ONCE = env.integer("LIMIT_ANSWERS_AT_ONCE", 0, minimum=0, maximum=1_000_000)
LIMIT_CONVERSATIONS = env.integer("LIMIT_CONVERSATIONS", 0, minimum=0, maximum=1_000_000_000)
LIMIT_MEMORIES = env.integer("LIMIT_MEMORIES", 0, minimum=0, maximum=1_000_000_000)
# Conversations are deleted so many days after they were last continued, unless marked to be kept. 0: never.
RETENTION_DAYS = env.integer("RETENTION_DAYS", 0, minimum=0, maximum=36_500)
CLAIM_TTL_SECS = env.decimal("CLAIM_TTL_SECS", 10.0, minimum=0.5, maximum=3600.0)
HEARTBEAT_SECS = env.decimal("HEARTBEAT_SECS", 2.0, minimum=0.05, maximum=600.0)
STREAM_GRACE_SECS = env.decimal("STREAM_GRACE_SECS", 5.0, minimum=0.0, maximum=3600.0)
JSON_PATIENCE_SECS = env.decimal("JSON_PATIENCE_SECS", 2.5, minimum=0.01, maximum=3600.0)
STREAM_PING_SECS = env.decimal("STREAM_PING_SECS", 15.0, minimum=0.05, maximum=3600.0)
TOKEN_LOG_TTL_SECS = env.integer("TOKEN_LOG_TTL_SECS", 600, minimum=1, maximum=604_800)
DRAIN_SECS = env.decimal("DRAIN_SECS", 5.0, minimum=0.0, maximum=600.0)
REQUEST_TIMEOUT_SECS = env.decimal("REQUEST_TIMEOUT_SECS", 600.0, minimum=1.0, maximum=86_400.0)
REQUEST_MAX_BYTES = env.integer("REQUEST_MAX_BYTES", 1_048_576, minimum=1024, maximum=67_108_864)
TRANSCRIPT_MAX_BYTES = env.integer("TRANSCRIPT_MAX_BYTES", 16_777_216, minimum=1024, maximum=268_435_456)

# Access
JWT_ONLY = env.flag("JWT_ONLY", False)
ANONYMOUS_NETWORKS = env.networks("ANONYMOUS_NETWORKS", "127.0.0.0/8,::1/128")
ALLOWED_HOSTS = env.items("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.items("CSRF_TRUSTED_ORIGINS", "")
# Proxies whose X-Forwarded-For is believed where callers are counted; they never make a caller anonymous.
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES", "")
# The service is reached by https: a proxy ends TLS and redirects http.
GEMMA_HTTPS = env.flag("GEMMA_HTTPS", False)
# Pages elsewhere that may call the API from a browser, with a token: no cookie is accepted from them.
CORS_ALLOWED_ORIGINS = env.origins("CORS_ALLOWED_ORIGINS")
CORS_ALLOW_HEADERS = (
    "accept",
    "authorization",
    "cache-control",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "x-request-id",
)
CORS_EXPOSE_HEADERS = ("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID")


def _own_secret(name: str) -> str:
    try:
        return read_or_create(GEMMA_DATA_DIR / name)
    except OSError as error:
        expected = f"a directory that this user may write to ({error.strerror})"
        raise SettingError("GEMMA_DATA_DIR", str(GEMMA_DATA_DIR), expected) from None


SECRET_KEY = env.text_or_file("SECRET_KEY") or _own_secret("secret_key")
JWT_SIGNING_KEY = env.text_or_file("JWT_SIGNING_KEY") or _own_secret("jwt_signing_key")
JWT_SIGNING_KEY_PREVIOUS = env.text_or_file("JWT_SIGNING_KEY_PREVIOUS")
for _name, _key in (("JWT_SIGNING_KEY", JWT_SIGNING_KEY), ("JWT_SIGNING_KEY_PREVIOUS", JWT_SIGNING_KEY_PREVIOUS)):
    if _key is not None and len(_key.encode()) < 32:
        raise SettingError(_name, f"({len(_key.encode())} bytes)", "at least 32 bytes")
JWT_ACCESS_SECS = env.integer("JWT_ACCESS_SECS", 300, minimum=30, maximum=86_400)
JWT_REFRESH_SECS = env.integer("JWT_REFRESH_SECS", 86_400, minimum=60, maximum=31_536_000)
# Keys of the service token (X-Service-Token); without any, no other service is let in by token.
JWT_SECRET = env.text_or_file("JWT_SECRET")
JWT_SECRET_PRIMARY = env.text_or_file("JWT_SECRET_PRIMARY")
JWT_SECRET_PREVIOUS = env.text_or_file("JWT_SECRET_PREVIOUS")

# The secret in the link of the page that makes the first user; `serve` writes it while there is none.
FIRST_USER_TOKEN_FILE = GEMMA_DATA_DIR / "first_user_token"

# Bearers of it may read /metrics, as staff and this machine may.
METRICS_TOKEN = env.text_or_file("METRICS_TOKEN")
DEBUG = env.flag("DEBUG", False)
LOG_LEVEL = env.one_of("LOG_LEVEL", "info", ("debug", "info", "warning", "error"))

# Redis: without an address, the Valkey that `manage.py serve` starts in the data directory
REDIS_SCHEMES = ("redis", "rediss", "unix")
REDIS_URL_GIVEN = env.url_or_file("REDIS_URL", REDIS_SCHEMES)
REDIS_URL = REDIS_URL_GIVEN or socket_url(valkey_socket(GEMMA_DATA_DIR))
# Redis of the coordinator and the tenants of the GPU.
GPU_REDIS_URL = env.url_or_file("GPU_REDIS_URL", REDIS_SCHEMES) or REDIS_URL

# Database
DATABASE_URL = env.text_or_file("DATABASE_URL")
SQLITE_OPTIONS = {
    # A deferred transaction that turns into a writer fails at once whatever the timeout; an immediate one waits.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    # What is deleted is overwritten with zeros, also where a file is too large for the purge to vacuum it.
    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA secure_delete=ON;",
}


def _database(url: str | None) -> dict[str, Any]:
    if url is None:
        url = f"sqlite:///{GEMMA_DATA_DIR / 'gemma.sqlite3'}"
    try:
        config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    except (ImproperlyConfigured, ValueError):  # their texts quote the URL
        raise SettingError("DATABASE_URL", without_password(url), "a database URL") from None
    if config.get("ENGINE") not in {"django.db.backends.sqlite3", "django.db.backends.postgresql"}:
        raise SettingError("DATABASE_URL", without_password(url), "sqlite:///... or postgres://...")
    config["CONN_MAX_AGE"] = 0  # under ASGI a connection must not outlive its request
    if config["ENGINE"] == "django.db.backends.sqlite3":
        config["OPTIONS"] = {**SQLITE_OPTIONS, **config.get("OPTIONS", {})}
        if url.startswith("sqlite:///"):
            # SQLite would create it for everybody to read, in a directory that was made beforehand.
            make_private(Path(config["NAME"]))
        # A file, since an in-memory database is not shared between threads and processes.
        config["TEST"] = {"NAME": str(GEMMA_DATA_DIR / "test.sqlite3")}
    return config


DATABASES = {"default": _database(DATABASE_URL)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Django
INSTALLED_APPS = [
    # Its app is for this command alone, and imports Twisted.
    *(["daphne"] if "runserver" in sys.argv[1:2] else []),
    "gemma_project",
    "gemma_project.apps.GemmaAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "corsheaders",
    "rest_framework",
    "rest_framework_simplejwt",
    "rest_framework_simplejwt.token_blacklist",
    "inference",
    "chat",
    "chat.rag",
    "chat.pages",
]
MIDDLEWARE = [
    "chat.api.middleware.cors.Cors",
    "chat.api.middleware.json_errors.JsonErrorMiddleware",
    "chat.api.middleware.event_loop.Security",
    "compat.whitenoise_files.StaticFiles",
    "chat.api.middleware.event_loop.Sessions",
    "chat.api.middleware.event_loop.Common",
    "chat.api.middleware.event_loop.Csrf",
    "chat.api.middleware.event_loop.Authentication",
    "chat.api.middleware.event_loop.Messages",
    "chat.api.middleware.event_loop.FrameOptions",
]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = GEMMA_HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if GEMMA_HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if GEMMA_HTTPS else 0
# W001 to W003 look for Django's own middleware; here are subclasses of it (chat/api/middleware/event_loop.py).
# W008: the proxy redirects; this port serves it alone. W005, W021: about other hosts of the domain, which are not ours.
SILENCED_SYSTEM_CHECKS = [f"security.W{number}" for number in ("001", "002", "003", "005", "008", "021")]
if not GEMMA_HTTPS and GEMMA_HOST in {"127.0.0.1", "::1", "localhost"}:
    # On loopback there is no TLS, without which a browser would not send such cookies.
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W010", "security.W012", "security.W016"]
ROOT_URLCONF = "gemma_project.urls"
CSRF_FAILURE_VIEW = "chat.api.middleware.error_views.csrf_failure"
ASGI_APPLICATION = "gemma_project.asgi.application"
APPEND_SLASH = True
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LANGUAGE_CODE = "en-us"
# The zone of "yesterday" in questions and of times without a zone.
TIME_ZONE = env.time_zone("GEMMA_TIME_ZONE", "UTC")
GEMMA_LANGUAGE = env.language("GEMMA_LANGUAGE", "en-US")
USE_TZ = True
STATIC_URL = "/static/"
# The admin's files are served from where the packages hold them, so that nothing must be collected first.
WHITENOISE_USE_FINDERS = True
# Enforced by the views with the service's own error; Django's limit must not strike first.
DATA_UPLOAD_MAX_MEMORY_SIZE = REQUEST_MAX_BYTES + 1

# API
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "UNAUTHENTICATED_USER": None,
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": JWT_SIGNING_KEY,
    "AUDIENCE": "gemma-service",
    "ISSUER": "gemma-service",
    "ACCESS_TOKEN_LIFETIME": timedelta(seconds=JWT_ACCESS_SECS),
    "REFRESH_TOKEN_LIFETIME": timedelta(seconds=JWT_REFRESH_SECS),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "CHECK_REVOKE_TOKEN": True,
    "LEEWAY": 5,
}

# No CHANNEL_LAYERS: the token log carries everything; with a layer every idle socket would poll Redis and end with it.

# Celery carries wake-up messages only. The row is the truth, so a message is acknowledged early and may be lost.
CELERY_BROKER_URL = for_celery(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 86_400,
    "socket_connect_timeout": 2,
    "socket_timeout": 30,
}
CELERY_TASK_DEFAULT_QUEUE = "gpu"
CELERY_TASK_ROUTES = {"chat.*": {"queue": "chat"}, "inference.*": {"queue": "gpu"}}
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_RESULT_BACKEND = "disabled"
CELERY_RESULT_BACKEND_THREAD_SAFE = True  # else Celery searches all packages for a backend, once per thread
CELERY_TASK_ACKS_LATE = False
# The reaper repeats a wake-up message that was not delivered; a request does not wait for an unavailable broker.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_POOL = "threads"
CELERY_WORKER_CONCURRENCY = GEMMA_PARALLEL
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_DISABLE_PREFETCH = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_TIMEZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "gemma_project.log_filters.OneLineFormatter",
            "fmt": "{asctime} {levelname:<7} {name}: {message}{context}",
            "style": "{",
            # For records of a handler without the filter.
            "defaults": {"context": ""},
        },
    },
    "filters": {
        "context": {"()": "gemma_project.log_filters.RequestContext"},
        "unexpected": {"()": "gemma_project.log_filters.UnexpectedOnly"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL.upper()},
    "loggers": {
        # A line per request or per wake-up message would repeat the rows.
        "daphne": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "django.request": {"level": "ERROR", "filters": ["unexpected"]},
        "httpx": {"level": "WARNING"},
    },
}
