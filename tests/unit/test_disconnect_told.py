"""What `carnet disconnect` says of what it has ended."""

import pytest

from tests.unit.test_sessions import a_session
from token_client.commands.disconnect import told
from token_client.session_states import State
from token_client.status import TunnelState


def state(target, *stage):
    session = a_session(*stage, name=f"carnet-{target}", target=target)
    return TunnelState(session.name, session, None, False, False, False)


NO_RECORD = TunnelState("carnet-1", None, None, True, False, False)
LIVED, HAD_ENDED = state("work"), state("lab", State.ENDED, "Its time was over.")
HAD = "The session to lab had ended already; nothing is kept of it here."


@pytest.mark.parametrize(
    ("ended", "sentence"),
    [
        ([], "There was no tunnel to end."),
        ([LIVED, NO_RECORD], "Ended the tunnel to work, carnet-1."),
        ([HAD_ENDED], HAD),
        ([HAD_ENDED, LIVED], f"Ended the tunnel to work. {HAD}"),
    ],
    ids=["none", "live ones", "one that had ended", "both"],
)
def test_a_session_that_had_ended_is_not_said_to_be_ended_now(ended, sentence):
    assert told(ended) == sentence
