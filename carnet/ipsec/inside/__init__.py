"""What this machine has of a tunnel besides IPsec itself: how long packets may be in it."""
