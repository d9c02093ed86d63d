"""An agent for the tables that does what a test laid down."""


class Script:
    """Answers each action with the event laid down for it; `done` are their names in order."""

    def __init__(self, **answers):
        self.answers = {name: list(events) for name, events in answers.items()}
        self.actions = []

    @property
    def done(self):
        return [type(action).__name__ for action in self.actions]

    def perform(self, action):
        self.actions.append(action)
        events = self.answers.get(type(action).__name__)
        return events.pop(0) if events else None
