"""The processes of a system: one supervisor, which forks all others and has them run (R9).

The supervisor imports everything and then does nothing but fork, wait and restart: no thread, no event loop, no data.
So a new process is there in milliseconds, and shares with its siblings what was imported. A process that ends is
forked anew, after waits that grow; all end when the supervisor does, however that comes about.
"""
