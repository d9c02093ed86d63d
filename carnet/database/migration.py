"""Alembic, which is loaded only where a schema is not the newest yet."""

from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from carnet.database.place import SchemaError


def upgrade(engine: Engine, package: str) -> None:
    """Bring the schema to its newest revision; raises SchemaError if it is none of ours."""
    with resources.as_file(resources.files(package) / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise SchemaError(str(error)) from error
