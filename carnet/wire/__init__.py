"""Bytes and values: messages, seals and signatures. No I/O."""
