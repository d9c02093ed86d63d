"""What all parts of the Key Database stand on."""

import secrets

from sqlalchemy import Connection, Engine

from carnet import audit
from carnet.database import for_reading
from host_agent import schema


class Store:
    """One open database; its methods may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = for_reading(engine)
        self.holder = secrets.token_hex(8)
        """This process, among all of the Host's, as leases name it."""

    def _audit(self, connection: Connection, event: str, **facts: object) -> None:
        audit.append(connection, schema.audit, event, **facts)
