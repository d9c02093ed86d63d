"""The embedded database, as far as neither agent's tables matter."""

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from carnet.database import opened_database
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
