"""Test vectors of the protocol, and the second implementation that writes them."""
