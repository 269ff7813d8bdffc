"""Celery's worker loop. Internals used: ``Consumer.hub``, the name of the bootstep that starts tasks."""

from celery import Celery, bootsteps
from celery.worker.consumer import Consumer

# Celery's event loop handles its signals only when something happens: otherwise every ten seconds.
SIGNAL_CHECK_SECS = 0.25
TASKS_STEP = "celery.worker.consumer.tasks:Tasks"


class SignalCheck(bootsteps.StartStopStep):
    """Turns Celery's loop regularly. Started again with each connection, whose loss clears all timers."""

    requires = (TASKS_STEP,)

    def start(self, parent: Consumer) -> None:
        hub = getattr(parent, "hub", None)  # the type stubs do not know it; None without an event loop
        if hub is not None:
            hub.call_repeatedly(SIGNAL_CHECK_SECS, _no_work)


def _no_work() -> None:
    """The turn of the loop is all that is needed."""


def handle_signals_soon(app: Celery) -> None:
    """Let workers of this application see SIGTERM within SIGNAL_CHECK_SECS."""
    app.steps["consumer"].add(SignalCheck)
