"""What a storing that was cut off leaves on a token: objects without name and content.

SoftHSM2 writes an object's file before its attributes. Killed in between, it leaves an
object that has neither label nor identity nor value: nobody can use it, or find it.
A secret key is left out: cut off like this it holds none, and SoftHSM2 gives nothing of
it but an error to who searches without its type.
"""

from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass

from carnet.token import keys
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_OF_KEYS = (Attribute.LABEL, Attribute.ID, Attribute.EC_PARAMS, Attribute.MODULUS)
_CONTENT: dict[ObjectClass, tuple[Attribute, ...]] = {
    ObjectClass.PRIVATE_KEY: _OF_KEYS,
    ObjectClass.PUBLIC_KEY: _OF_KEYS,
    ObjectClass.DATA: (Attribute.LABEL, Attribute.APPLICATION, Attribute.VALUE),
}


def sweep_nameless(session: TokenSession) -> int:
    """Destroy the objects that have nothing but their class; return how many.

    Needs a writable session. Raises TokenError.
    """
    swept = 0
    for object_class, content in _CONTENT.items():
        # Not by label: SoftHSM2 does not take one that is missing for an empty one.
        for found in session.find(object_class, {}):
            with session.token.module.undisturbed(), translated():
                if not any(_has(found, attribute) for attribute in content):
                    swept += keys.destroy(found)
    return swept


def _has(found: Any, attribute: Attribute) -> bool:
    """Tell whether an attribute is there and not empty; what cannot be read may be."""
    try:
        return bool(found[attribute])
    except pkcs11.AttributeTypeInvalid:
        return False
    except pkcs11.PKCS11Error:
        return True
