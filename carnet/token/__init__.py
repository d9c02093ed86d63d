"""PKCS#11 tokens and the one-time key pairs on them."""
