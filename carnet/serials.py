"""Serial numbers of tokens: some kinds have none, and every token of the kind says the same."""


def is_own(serial: str) -> bool:
    """Tell whether a serial number is one token's alone: a TPM's and NSS's are zeros."""
    return bool(serial.strip("0 "))


NOBODYS = (
    "A serial number of zeros is not one token's: TPMs and NSS's databases all have it; revoke by "
    "--user, or by --key."
)
"""To who would revoke by it."""
