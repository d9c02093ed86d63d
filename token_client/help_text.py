"""What `carnet --help` tells; written by `make help-text`."""

TEXT = """\
Usage: carnet [OPTIONS] COMMAND [ARGS]...

  Carnet: a tunnel into your work network, opened by the token in your hand.

Options:
  --version  Show the version and exit.
  --help     Show this message and exit.

Commands:
  agent       Watch over TUNNEL and its token, as `carnet connect` has it...
  connect     Open a tunnel to TARGET with the next one-time key pair.
  disconnect  End TUNNEL (a name or a Target), or all tunnels.
  doctor      Say what is right, and what to do where something is not.
  objectives  Show the paper's Tables 1 to 3, and what this machine can do.
  resume      Bring TUNNEL back that was lost, or all tunnels, without a...
  status      Show the tunnels of this machine.
  tokens      List the tokens that are plugged in, as far as they tell...
"""
