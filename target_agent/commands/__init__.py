"""The commands of `carnet-target`, one module a group."""
