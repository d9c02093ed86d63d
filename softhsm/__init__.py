"""SoftHSM2 as the embedded default token: its configuration and set-up."""
