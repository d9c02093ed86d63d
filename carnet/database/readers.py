"""Threads for those who only read: they do not stand in one queue with those who write.

Who writes may wait for the database's lock, on one of asyncio's own threads, until all of
these are taken.
"""

from carnet.threads import Threads

ask = Threads(4, "reading").do
"""Has a thread read, as asyncio.to_thread() would; raises what the question raises."""
