"""The whole of Carnet at work on real parts, shown to a person."""
