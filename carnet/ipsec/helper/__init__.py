"""The interface between the traveller's command and carnet-helper, which has privileges.

One call a connection, over a Unix socket that keeps messages apart (SOCK_SEQPACKET). What
can be said is in messages.py, field by field: no configuration, no file, no command.
"""
