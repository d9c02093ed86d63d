"""Key stores: where Host keeps its half of paired keys.

With `token` each private key is an object on the HSM. With `wrapped` they stay in the
Key Database as the traveller's token wrapped them, and the HSM holds one key-encryption
key a batch. Each pair's record says where its key is: a setting concerns new ones only.
"""
