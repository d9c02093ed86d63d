"""What a storing that was cut off leaves on a token: objects without name and content.

SoftHSM2 writes an object's file before its attributes. Killed in between, it leaves an
object that has neither label nor identity nor value: nobody can use it, or find it.
"""

from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass

from carnet.token import keys
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_NAMES = (Attribute.LABEL, Attribute.ID)
_CONTENT: dict[ObjectClass, tuple[Attribute, ...]] = {
    ObjectClass.PRIVATE_KEY: (*_NAMES, Attribute.EC_PARAMS, Attribute.MODULUS),
    ObjectClass.PUBLIC_KEY: (*_NAMES, Attribute.EC_PARAMS, Attribute.MODULUS),
    ObjectClass.DATA: (Attribute.LABEL, Attribute.APPLICATION, Attribute.VALUE),
}


def sweep_nameless(session: TokenSession) -> int:
    """Destroy the objects that have nothing but their class; return how many.

    Needs a writable session. Raises TokenError.
    """
    swept = 0
    for object_class, content in _CONTENT.items():
        for found in session.find(object_class, {Attribute.TOKEN: True}):
            with session.token.module.undisturbed(), translated():
                if not any(_read(found, attribute) for attribute in content):
                    swept += keys.destroy(found)
    return swept


def _read(found: Any, attribute: Attribute) -> Any:
    try:
        return found[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeValueInvalid, pkcs11.AttributeSensitive):
        return None
    except pkcs11.GeneralError:  # SoftHSM2 of an attribute that the file lacks
        return None
