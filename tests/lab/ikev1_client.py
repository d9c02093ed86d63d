"""The Client's command on a machine whose IPsec has IKEv1 alone.

strongSwan and Libreswan have both, and a Client that has IKEv2 gets nothing older: so a test
that must see IKEv1 has their drivers say less.
"""

from carnet.ipsec import libreswan_reports, strongswan
from token_client.cli import main

if __name__ == "__main__":
    strongswan.IKE_VERSIONS = (1,)
    libreswan_reports.ike_versions_of = lambda _: (1,)
    main()
