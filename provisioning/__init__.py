"""The security officer's station: how key pairs get onto tokens."""
