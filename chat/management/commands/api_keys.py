"""`manage.py api_keys`: API keys of users from the command line."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.access.api_keys import DEFAULT_DAYS, DEFAULT_SCOPES, issue_key, revoke_key
from chat.enums import KeyScope
from chat.errors import ChatError
from chat.local_time import moment_text
from chat.management.options import user_named
from chat.management.terminal import printable_line
from chat.models import ApiKey
from chat.schemas.accounts.key_bodies import MAX_LIFETIME_DAYS


class Command(BaseCommand):
    help = (
        "Makes, lists and revokes API keys of users. `create` prints the key once, on standard output; only its digest "
        "is stored."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key and print it")
        create.add_argument("user", help="name of the user")
        create.add_argument("--name", required=True, help="what the key is for")
        create.add_argument(
            "--scope",
            action="append",
            choices=[scope.value for scope in KeyScope],
            help=f"permission, repeatable (default: {' and '.join(DEFAULT_SCOPES)})",
        )
        create.add_argument("--days", type=int, default=DEFAULT_DAYS, help=f"lifetime (default: {DEFAULT_DAYS})")
        listing = actions.add_parser("list", help="show keys without their text")
        listing.add_argument("user", nargs="?", help="name of a user (default: all)")
        revoke = actions.add_parser("revoke", help="end a key for good")
        revoke.add_argument("prefix", help="beginning of the key, as listed")

    def handle(self, *args: object, action: str, **options: Any) -> None:  # noqa: ANN401  argparse's values
        match action:
            case "create":
                self.create(options)
            case "list":
                self.list_keys(options)
            case _:
                self.revoke(options["prefix"])

    def create(self, options: dict[str, Any]) -> None:
        if not 1 <= options["days"] <= MAX_LIFETIME_DAYS or not (
            1 <= len(options["name"]) <= 100 and options["name"].strip()
        ):
            raise CommandError(f"--days must be 1 to {MAX_LIFETIME_DAYS}, --name 1 to 100 characters long")
        scopes = [KeyScope(value) for value in options["scope"] or DEFAULT_SCOPES]
        user = user_named(options["user"])
        try:
            issued = issue_key(user, name=options["name"], scopes=scopes, lifetime_days=options["days"])
        except ChatError as error:
            raise CommandError(error.message) from error
        self.stdout.write(issued.text)
        self.stderr.write(f"valid until {moment_text(issued.row.expires_at)}; it is not shown again", style_func=str)

    def list_keys(self, options: dict[str, Any]) -> None:
        rows = ApiKey.objects.select_related("user")
        for row in rows if options["user"] is None else rows.filter(user_id=user_named(options["user"]).pk):
            scopes = ",".join(sorted(row.permissions))
            ends = moment_text(row.expires_at)
            # Users choose the names, an operator's terminal shows them.
            line = f"{row.prefix}  {row.state:<8} {row.user}  {scopes}  until {ends}  {row.name}"
            self.stdout.write(printable_line(line))

    def revoke(self, prefix: str) -> None:
        row = ApiKey.objects.filter(prefix=prefix).first()
        if row is None:
            raise CommandError(f"there is no API key {prefix!r}")
        self.stdout.write("revoked" if revoke_key(row) else "was revoked before")
