"""Transactions that are repeated when the database rolls them back in favour of others.

On PostgreSQL one of two transactions that lock rows in different orders is ended as a deadlock. Work that is marked
here can be run again: it does nothing outside of the database, and does not depend on what a first attempt has changed
in its arguments.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from django.db import connection, transaction

from chat.error_translation import translated
from inference.runtime.database import retry_transaction

P = ParamSpec("P")
T = TypeVar("T")


def one_transaction(work: Callable[P, T]) -> Callable[P, T]:
    """Run ``work`` as one transaction, again when it was rolled back for others; errors come translated.

    Within a transaction it is a part of that one, whose owner repeats the whole.
    """

    @wraps(work)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if connection.in_atomic_block:
            return work(*args, **kwargs)
        with translated():
            return retry_transaction(partial(transaction.atomic(work), *args, **kwargs))

    return wrapper
