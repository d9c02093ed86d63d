"""The Client's command on a machine whose strongSwan has IKEv1 alone.

strongSwan has both, and a Client that has IKEv2 gets nothing older: so a test that must
see IKEv1 has the driver say less.
"""

from carnet.ipsec import strongswan
from token_client.cli import main

if __name__ == "__main__":
    strongswan.IKE_VERSIONS = (1,)
    main()
