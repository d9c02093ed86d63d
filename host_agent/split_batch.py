"""A batch in custody `split`: public keys, and which of the Host's keys they go with."""

from carnet.errors import RefusedError
from carnet.token.host_keys import HostKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import BatchHead
from carnet.wire.keys import key_id_of
from host_agent.keydb import KeyDatabase


def check_split_batch(head: BatchHead, session: TokenSession) -> None:
    """Refuse the whole batch, before anything is changed, unless this HSM can serve it.

    Raises RefusedError.
    """
    couples = HostKeys(session).couples()
    if not couples:
        raise RefusedError(
            "The batch is in custody split, and this Host has no keys for that yet; make them by "
            "`carnet-host host-keys` and have key pairs minted for these."
        )
    wanted = key_id_of(head.host_transport_key)
    if wanted not in {couple.key_id for couple in couples}:
        raise RefusedError(
            f"The batch was minted for key {wanted.hex()}, which is another Host's, or was "
            f"destroyed here; have it minted anew for those that `carnet-host host-keys` prints."
        )


def missing_host_keys(database: KeyDatabase, session: TokenSession) -> dict[bytes, int]:
    """Return how many valid pairs there are for each of the Host's keys that the HSM lacks.

    Raises TokenError if the token fails.
    """
    in_use = database.host_keys_in_use()
    held = {couple.key_id for couple in HostKeys(session).couples()} if in_use else set()
    return {key_id: pairs for key_id, pairs in in_use.items() if key_id not in held}
