"""The ten steps as state machines: events in, actions out. No I/O."""
