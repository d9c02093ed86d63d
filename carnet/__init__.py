"""What Carnet's three Tunnel Agents share; imports none of them."""

VERSION = "0.1.0"
