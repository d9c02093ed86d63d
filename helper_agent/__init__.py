"""carnet-helper: the part of the traveller's machine that has privileges, and no more than those.

It gives tunnels to the IPsec daemon and blocks to the packet filter for ordinary users. It
knows of no token, no PIN, no Host and no protocol; each user has her own tunnels, and
neither sees nor ends another's.
"""
