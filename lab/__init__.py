"""A network of hosts on one machine, for the demo and the tests.

Each host is a process tree in namespaces of its own that dies with its maker.
"""
