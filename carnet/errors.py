"""Every error that a person meets, in one hierarchy.

Each carries one sentence that says what is wrong and what to do next, and the
exit status that scripts may rely on. Anything else that reaches a command's top
is a bug, and may show its traceback.
"""


class CarnetError(Exception):
    """An error for a person: one sentence, and the command's exit status."""

    exit_status = 1

    @property
    def sentence(self) -> str:
        """What is wrong and what to do next; never a secret in it."""
        return str(self.args[0])


class UsageError(CarnetError):
    """The command, its options or a configuration file are not right."""

    exit_status = 2


class DatabaseError(UsageError):
    """The database cannot be used, or failed whoever used it."""


class DatabaseAwayError(DatabaseError):
    """The database cannot be used just now: another has its lock, or its server is away."""

    exit_status = 6  # as of whatever does not answer: to begin anew may help, and systemd does


class NothingRevokedError(UsageError):
    """Of what was to be revoked nothing is known that can be, or was before."""


class RefusedError(CarnetError):
    """Host or Target refused, in a sealed and signed answer."""

    exit_status = 3


class TokenError(CarnetError):
    """The token, its module or the PIN stands in the way."""

    exit_status = 4
    pin_given = False
    """Whether it failed as it was given a PIN: a wrong one may have cost a try, unsaid."""


class TokenCannotError(TokenError):
    """The token lacks what a type of key pair needs: a kind of key, or a way of using it."""


class TokenAwayError(TokenError):
    """The token, or the way to it, is gone; it may come back."""


class NoTokenError(TokenAwayError):
    """The module shows no token at all."""


class KeyNotSeenError(TokenError):
    """The token shows no such key; one that another process stored may show at the next login."""


class PinRefusedError(TokenError):
    """The token does not take the PIN: never to be tried again by a program itself."""


class FinalTryError(PinRefusedError):
    """One try of the PIN is left, and nobody has allowed that it be risked."""


class PinTriedError(PinRefusedError):
    """The token was given a PIN, and said no: where it was wrong, a try of it is gone."""


class IPsecError(CarnetError):
    """The IPsec daemon or the IKE negotiation failed."""

    exit_status = 5


class IKESilentError(IPsecError):
    """Nobody answers IKE: the network is in the way, and may not be for long."""


class IKEUnprovenError(IKESilentError):
    """Somebody answered IKE and said no, and nobody has proved to be the peer."""


class IKERefusedError(IPsecError):
    """The peer answered IKE, and said no."""


class AwayError(IPsecError):
    """Who drives the tunnels cannot be asked: what becomes of them is not known, they may stand."""


class HelperAwayError(AwayError):
    """carnet-helper cannot be called."""


class DaemonSilentError(AwayError):
    """The IPsec daemon is there, and did not answer in time, or cannot be reached."""


class TunnelLeftError(AwayError):
    """The IPsec daemon is gone, and the kernel may carry packets on by what it has left there."""


class DaemonGoneError(IPsecError):
    """There is no IPsec daemon: nobody listens at its socket, and none is seen to live."""


class NothingLeftError(DaemonGoneError):
    """There is none, nor anything in the kernel by which a tunnel could carry packets on."""


class TakenError(IPsecError):
    """Another user of this machine has what a tunnel would lead to, for as long as she has it."""


class UnreachableError(CarnetError):
    """The other side does not answer; the request may be sent again."""

    exit_status = 6


class NoKeyPairLeftError(CarnetError):
    """The booklet is empty: the token holds no usable one-time key pair."""

    exit_status = 7
