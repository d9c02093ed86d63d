"""What each call does, as far as it is the caller's to ask: `uid` is who the kernel says she is.

Of what is another's she is told what she is told where there is none. Each raises IPsecError.
"""
