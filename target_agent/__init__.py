"""The Target's Tunnel Agent: the gateway of the work network."""
