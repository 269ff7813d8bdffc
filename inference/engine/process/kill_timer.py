"""A timer of the kernel that kills this process, also one that is stopped (SIGSTOP, a frozen container)."""

import ctypes
import errno
import math
import os
import signal
import time

_TIMER_ABSTIME = 1  # <time.h>
_NO_TIME = (0, 0)  # disarms a timer


class _SignalEvent(ctypes.Structure):
    """``struct sigevent`` of Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * (64 - ctypes.sizeof(ctypes.c_void_p) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


class _Time(ctypes.Structure):
    _fields_ = (("secs", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerTime(ctypes.Structure):
    _fields_ = (("interval", _Time), ("first", _Time))


class KillTimer:
    """Sends SIGKILL to this process at an instant of the monotonic clock; not armed at first."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._library, "timer_create"):  # glibc before 2.34
            self._library = ctypes.CDLL("librt.so.1", use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SignalEvent(signal=signal.SIGKILL, notify=0)  # SIGEV_SIGNAL
        self._check(self._library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)))

    def arm(self, at: float) -> None:
        """``at``: on ``time.monotonic``; one that has passed kills at once, an infinite one disarms. Raises OSError."""
        secs, part = _NO_TIME if math.isinf(at) else (int(at), int(at % 1 * 1e9))
        when = _TimerTime(first=_Time(secs, part))
        self._check(self._library.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(when), None))

    def _check(self, status: int) -> None:
        if status:
            number = ctypes.get_errno() or errno.ENOSYS
            raise OSError(number, os.strerror(number))
