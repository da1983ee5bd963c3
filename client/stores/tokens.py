"""Names for contents: tokens of a value's encoding, made where its bytes are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import xxhash
from dask.base import normalize_token, tokenize

from holdfast.client.packing.keys import content_token
from holdfast.client.stores.access import StoreAccess
from holdfast.client.stores.location import Location
from holdfast.objectstore import Encoded, ObjectID

#: Contents up to this size are copied for hashing; larger ones are hashed where they are stored.
HASH_COPY_NBYTES = 1 << 20


def fingerprint(stores: StoreAccess, encoded: Encoded) -> str | None:
    """A token of the encoded bytes, before they are stored; None if they would have to be made for that.

    It is not the token that `content_token` makes. Hashing takes a tenth of the time that writing takes, and without
    the cluster's token no user can make two values that have the same one.
    """
    sources = encoded.sources()
    if sources is None and encoded.nbytes > HASH_COPY_NBYTES and stores.local is not None:
        return None
    return _fingerprint(stores, encoded.type_name, (encoded.to_bytes(),) if sources is None else sources)


def fingerprint_of(stores: StoreAccess, encoded: Encoded, location: Location) -> str:
    """The token of bytes that have been stored. They are read where they lie, if that is this host's store."""
    local = stores.local
    if local is None or local[1] not in location.nodes:
        return _fingerprint(stores, encoded.type_name, (encoded.to_bytes(),))
    return _fingerprint(stores, encoded.type_name, (memoryview(local[0].get_buffer(ObjectID(location.object_id))),))


def _fingerprint(stores: StoreAccess, type_name: str, parts: Iterable[memoryview | bytes]) -> str:
    hasher = xxhash.xxh3_128(type_name.encode(), seed=stores.hash_seed)
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def token_of_content(stores: StoreAccess, encoded: Encoded, location: Location | None = None) -> str:
    """A token of the encoded bytes; ``location`` where they lie in this host's store already, to read them there."""
    local = stores.local
    if location is None or local is None or local[1] not in location.nodes:
        return content_token(encoded.type_name.encode(), *encoded.blocks())
    buffer = local[0].get_buffer(ObjectID(location.object_id))
    return content_token(encoded.type_name.encode(), memoryview(buffer))


def registered_token(value: Any) -> str | None:
    """The token that a value's class has chosen: with dask's `normalize_token`, or by a method `__dask_tokenize__`.

    None for all other classes, and for those that dask itself knows, which the content names as well.
    """
    kind = type(value)
    if not hasattr(kind, "__dask_tokenize__"):
        dispatch: Callable[[type], Any] = normalize_token.dispatch
        normalize = dispatch(kind)
        if getattr(normalize, "__module__", "").partition(".")[0] == "dask":
            return None
    token: str = tokenize(value)
    return token


def hashes_in_place(stores: StoreAccess, encoded: Encoded, targets: Sequence[str]) -> bool:
    """Whether it is better stored first and hashed there."""
    local = stores.local
    return encoded.nbytes > HASH_COPY_NBYTES and local is not None and local[1] in targets
