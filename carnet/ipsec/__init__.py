"""One TunnelSpec, one small driver for each IPsec implementation."""
