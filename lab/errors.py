"""What goes wrong in the lab itself."""


class LabError(Exception):
    """The lab cannot do what it was asked; the message says why, with the output seen."""
