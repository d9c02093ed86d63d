"""The commands of `carnet`, one module each."""
