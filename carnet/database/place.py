"""Where a database is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_SCHEME = "postgresql"


class SchemaError(Exception):
    """The database has a schema that this version does not know."""


@dataclass(frozen=True)
class FilePlace:
    """A SQLite file."""

    path: Path
    advice = (
        "see that the directory in the configuration is the right one and its disk has room; "
        "only a file that is damaged is restored from a backup"
    )

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class PostgresPlace:
    """A database on a PostgreSQL server."""

    url: URL
    """As libpq has it (PostgreSQL's manual, 34.1.1.2); SQLAlchemy shows no password of it."""
    password_file: Path | None = None
    """A file of the owner's alone with the password, where the URL has none."""
    advice = "start PostgreSQL, or correct `database` in the configuration"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `postgresql://…`; raises ValueError, without the text, since it may be secret."""
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise ValueError("expected `postgresql://USER@HOST/DATABASE`") from None
        if url.drivername != _SCHEME or not url.database:
            raise ValueError("expected `postgresql://USER@HOST/DATABASE`")
        return cls(url)

    @property
    def holds_password(self) -> bool:
        """Whether the password stands in the URL itself."""
        return self.url.password is not None or "password" in self.url.query

    def __str__(self) -> str:
        return self.url.difference_update_query(["password"]).render_as_string(hide_password=True)


Place = FilePlace | PostgresPlace
