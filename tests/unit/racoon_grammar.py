"""racoon.conf(5) and setkey(8), as much of their documented syntax as a tunnel may use.

racoon is in no distribution that these tests run on, so what is rendered is parsed with a
grammar after its manual pages: every keyword and every algorithm is spelled out.
"""

from lark import Lark, Token, Tree

_CONF = Lark(r"""
start: (path | remote | sainfo)+
path: "path" "pre_shared_key" STRING ";"
remote: "remote" ADDRESS "{" (remote_line | proposal)+ "}"
?remote_line: "exchange_mode" MODE ";" -> exchange_mode
    | "my_identifier" "address" ";" -> my_identifier
    | "peers_identifier" "address" ";" -> peers_identifier
    | "verify_identifier" SWITCH ";" -> verify_identifier
    | "proposal_check" LEVEL ";" -> proposal_check
    | "nat_traversal" NAT ";" -> nat_traversal
    | "dpd_delay" NUMBER ";" -> dpd_delay
    | lifetime
lifetime: "lifetime" "time" NUMBER UNIT ";"
proposal: "proposal" "{" proposal_line+ "}"
?proposal_line: "encryption_algorithm" cipher ";" -> encryption
    | "hash_algorithm" HASH ";" -> hash
    | "authentication_method" "pre_shared_key" ";" -> method
    | "dh_group" GROUP ";" -> group
sainfo: "sainfo" "address" selector "any" "address" selector "any" "{" sainfo_line+ "}"
selector: ADDRESS ["/" NUMBER]
?sainfo_line: "pfs_group" GROUP ";" -> group
    | lifetime
    | "encryption_algorithm" cipher ("," cipher)* ";" -> encryption
    | "authentication_algorithm" HMAC ("," HMAC)* ";" -> integrity
    | "compression_algorithm" "deflate" ";" -> compression
cipher: CIPHER [NUMBER]
MODE: "main" | "aggressive" | "base"
LEVEL: "obey" | "strict" | "claim" | "exact"
SWITCH: "on" | "off"
NAT: "on" | "off" | "force"
UNIT: /sec(ond)?s?|min(ute)?s?|hours?/
CIPHER: "aes" | "3des" | "blowfish" | "camellia" | "null_enc"
HASH: "md5" | "sha1" | "sha256" | "sha384" | "sha512"
HMAC: "hmac_" HASH
GROUP: /1[4-8]?|2|5/
NUMBER: /[0-9]+/
STRING: /"[^"]*"/
ADDRESS: /[0-9a-fA-F]*[:.][0-9a-fA-F:.]*/
%ignore /\s+|#[^\n]*/
""")

_SETKEY = Lark(r"""
start: (add | delete)+
add: "spdadd" selector selector "any" "-P" DIRECTION "ipsec" rule+ ";"
delete: "spddelete" selector selector "any" "-P" DIRECTION ";"
selector: ADDRESS ["/" NUMBER]
rule: PROTOCOL "/" MODE "/" [ADDRESS "-" ADDRESS] "/" LEVEL
DIRECTION: "in" | "out" | "fwd"
PROTOCOL: "esp" | "ah" | "ipcomp"
MODE: "transport" | "tunnel"
LEVEL: "default" | "use" | "require" | "unique"
NUMBER: /[0-9]+/
ADDRESS: /[0-9a-fA-F]*[:.][0-9a-fA-F:.]*/
%ignore /\s+|#[^\n]*/
""")


def parse_conf(text: str) -> Tree:
    """Return the tree of a racoon.conf; raises lark's UnexpectedInput."""
    return _CONF.parse(text)


def parse_setkey(text: str) -> Tree:
    """Return the tree of what setkey reads; raises lark's UnexpectedInput."""
    return _SETKEY.parse(text)


def words(tree: Tree, name: str) -> list[str]:
    """Return what stands in the one statement of that name, its words joined."""
    (found,) = tree.find_data(name)
    return [_joined(child) for child in found.children]


def _joined(part: Tree | Token | None) -> str:
    if isinstance(part, Tree):
        return " ".join(filter(None, map(_joined, part.children)))
    return str(part or "")
