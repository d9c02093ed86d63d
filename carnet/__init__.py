"""What Carnet's three Tunnel Agents share; imports none of them."""
