"""The Host's Tunnel Agent: the trusted machine that knows the key pairs."""
