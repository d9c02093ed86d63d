"""The rows of the report, each with its floor beside it."""
