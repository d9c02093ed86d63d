"""What the end of a tunnel waits for, in words."""

from carnet.errors import AwayError, HelperAwayError


def waits_for(error: AwayError) -> str:
    """Return what the end of a tunnel waits for, as the end of a sentence without its stop."""
    if isinstance(error, HelperAwayError):
        return (
            "carnet-helper is away; it ends as soon as that is started (systemctl start"
            " carnet-helper)"
        )
    return (
        "the IPsec daemon does not answer; until then it may go on, and it ends as soon as that"
        " does: if it stays so, have it restarted (systemctl restart strongswan, or ipsec)"
    )
