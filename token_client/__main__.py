"""`python -m token_client` is the command `carnet`."""

from token_client.entry import main

main()
