"""What is said of a Target that does not answer IKE, not to the end, or not by itself."""

NO_ANSWER = (
    "Target does not answer IKE on UDP ports 500 and 4500;"
    " check that this network lets them through, and try again."
)
NO_ANSWER_ON_4500 = (
    "Target answers IKE on UDP port 500, and not on UDP port 4500;"
    " check that this network lets UDP port 4500 through, and try again."
)
HALF_AN_ANSWER = (
    "Target began to answer IKE and then fell silent;"
    " check that this network lets UDP ports 500 and 4500 through, and try again."
)
SAID_NO = (
    "What answers IKE in Target's place refuses the tunnel, and does not prove to be Target;"
    " try `carnet resume` again, or run `carnet connect` for a new one, with the next key pair."
)
BUSY = (
    "Target has begun too many negotiations, and does not go on with this one (COOKIE);"
    " try again in half a minute."
)
LEFT = (
    "The tunnel stands at an address that this machine has no more, and nothing is left to bring it"
    " back with; run `carnet connect` for a new one, with the next key pair."
)
"""What is said of one that does not move, and has no pre-shared key any more."""
