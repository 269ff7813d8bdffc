"""`manage.py user_data`: export or delete all that belongs to a user."""

import argparse
import os
from pathlib import Path
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import BaseCommand, CommandError

from chat.errors import ChatError
from chat.management.options import user_named
from chat.services.accounts.user_export import export_user
from chat.services.accounts.users import belongings_of, delete_user


class Command(BaseCommand):
    help = (
        "Exports a user's conversations, memories, keys (without their text) and usage as one JSON file, or deletes "
        "the user with all of them; the worker then removes their traces (`manage.py purge_status`)."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        export = actions.add_parser("export", help="write everything to a file")
        export.add_argument("user", help="name of the user")
        export.add_argument("file", help='the file, readable for its owner alone; "-": standard output')
        delete = actions.add_parser("delete", help="delete the user and everything")
        delete.add_argument("user", help="name of the user")
        delete.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: object, action: str, user: str, **options: Any) -> None:  # noqa: ANN401  argparse's values
        owner = user_named(user)
        if action == "export":
            self.export(owner, options["file"])
        else:
            self.delete(owner, is_sure=options["yes"])

    def export(self, user: AbstractBaseUser, file: str) -> None:
        if file == "-":
            for part in export_user(user):
                self.stdout.write(part, ending="")
            return
        path = Path(file).expanduser()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as output:
                output.writelines(export_user(user))
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}") from error
        self.stdout.write(f"written to {path}")

    def delete(self, user: AbstractBaseUser, *, is_sure: bool) -> None:
        owned = belongings_of(user)
        summary = f"{owned.n_conversations} conversations, {owned.n_transcripts} transcripts, {owned.n_notes} notes"
        if not is_sure:
            raise CommandError(f"{user} has {summary}; add --yes to delete everything")
        try:
            delete_user(user)
        except ChatError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"deleted: {user} with {summary}")
