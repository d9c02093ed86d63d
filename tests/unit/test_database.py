"""The embedded database, as far as neither agent's tables matter."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import import_module, resources

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from carnet.database import opened_database
from carnet.errors import DatabaseError, UsageError
from host_agent.schema import cursors


def test_an_error_of_the_database_names_no_value(tmp_path):
    row = insert(cursors).values(target="what-no-log-may-tell", number=1)
    with opened_database(tmp_path / "keys.sqlite", "host_agent") as engine:
        with engine.begin() as connection:
            connection.execute(row)
        with pytest.raises(IntegrityError) as caught, engine.begin() as connection:
            connection.execute(row)
    assert "what-no-log-may-tell" not in str(caught.value)
    assert "INSERT INTO cursors" in str(caught.value)


@pytest.mark.parametrize("package", ["host_agent", "target_agent"])
def test_the_newest_revision_is_the_migrations_last(package):
    with resources.as_file(resources.files(package) / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        newest = ScriptDirectory.from_config(config).get_current_head()
    assert newest == import_module(f"{package}.migrations").NEWEST


def test_alembic_is_not_loaded_for_a_schema_that_is_the_newest(tmp_path):
    path = tmp_path / "target.sqlite"
    with opened_database(path, "target_agent"):
        pass
    opening = (
        "import sys; from pathlib import Path; from carnet.database import opened_database\n"
        f"with opened_database(Path({str(path)!r}), 'target_agent'):\n"
        "    print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", opening], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_file_that_is_cut_short_in_use_is_not_taken_for_a_new_one(tmp_path):
    place = tmp_path / "carnet.sqlite"
    with opened_database(place, "target_agent"):
        pass
    with closing(sqlite3.connect(place)) as used:
        used.execute("UPDATE alembic_version SET version_num = version_num")
        used.commit()
        os.truncate(place, 5000)
        with (
            pytest.raises(DatabaseError, match="does not say any more which version made it"),
            opened_database(place, "target_agent"),
        ):
            pass


def test_a_schema_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "target.sqlite"
    with opened_database(path, "target_agent") as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = r"does not know \(.*'9999'\), as a newer one makes it; install that version"
    with pytest.raises(UsageError, match=said), opened_database(path, "target_agent"):
        pass
