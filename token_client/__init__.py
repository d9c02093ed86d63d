"""The Client's Tunnel Agent: the traveller's command."""
