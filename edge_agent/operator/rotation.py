"""Changes the trusted keys: the next link of the trust chain (fleet_protocol/trust)."""

import math
from collections.abc import Mapping
from typing import Any, cast

from edge_agent import strictjson
from edge_agent.config.units import Validity
from edge_agent.errors import CryptoError, KeyFormatError, OperatorError, RefusedError
from edge_agent.fleet_protocol import topics, trust
from edge_agent.fleet_protocol.keys import PublicKey
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator import fleet_toml
from edge_agent.operator.deploy import NOT_KEPT, NotKeptError, settled
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.folder import FLEET_FILE
from edge_agent.operator.keyring import Signed


def validity(valid_s: float | None, now: float) -> Validity | None:
    """A validity of `valid_s` from `now`, in whole seconds as in documents; None: no expiry."""
    issued = math.floor(now)
    return None if valid_s is None else Validity(issued, issued + max(1, math.floor(valid_s)))


def following(
    fleet: Fleet,
    add: Mapping[str, PublicKey],
    remove: list[str],
    threshold: int | None,
    new_epoch: bool = False,
    *,
    validity: Validity | None,
    renew: bool = False,
) -> tuple[TrustSet, list[str]]:
    """The next key set, and its names. OperatorError: nothing would change, or an invalid set.

    `renew`: the keys stay, and their validity is extended.
    """
    named = dict(zip(fleet.settings.keys, fleet.trust.keys, strict=True))
    for name in remove:
        if name not in named:
            raise OperatorError(f"{name} is none of the trusted keys: {', '.join(named)}")
        del named[name]
    for name, key in add.items():
        if name in named and named[name] != key:
            raise OperatorError(f"{name} names another key already; give the new one another name")
        named[name] = key
    threshold = threshold or fleet.trust.threshold
    try:
        version, keys = fleet.trust.version + 1, tuple(named.values())
        new = TrustSet(fleet.trust.fleet, version, threshold, keys, validity)
    except KeyFormatError as error:
        raise OperatorError(f"no such set of keys: {error}") from error
    alike = new.keys == fleet.trust.keys and new.threshold == fleet.trust.threshold
    if alike and not new_epoch and not renew:
        raise OperatorError(
            "nothing would change: give --add, --remove, --threshold or --new-epoch; to extend"
            " the validity of the same keys: edge-agent fleet trust renew"
        )
    return new, list(named)


def sign(fleet: Fleet, new: TrustSet) -> Signed:
    """Sign with every old and new key that is available here."""
    wanted = all_keys(fleet.trust, new)
    keys = fleet.keyring.at_hand(wanted)
    if not keys:
        raise OperatorError(f"{fleet.keyring.folder}: none of the private keys needed is here")
    return Signed.sign(trust.PAYLOAD_TYPE, trust.to_payload(new), wanted, keys)


def lacking(signed: Signed, old: TrustSet, new: TrustSet) -> list[str]:
    """Why nodes would not accept it; empty: they would."""
    found = []
    for what, each in (("the present", old), ("the new", new)):
        good = len(signed.signers & frozenset(each.keys))
        if good < each.threshold:
            found.append(f"{good} of {each.threshold} signatures of {what} keys")
    return found


def put(
    fleet: Fleet, signed: Signed, new: TrustSet, names: list[str], new_epoch: bool = False
) -> None:
    """Publish the chain with its new link, and write fleet.toml and trust/. OperatorError.

    NotKeptError: connected nodes have it; the link is in the folder, to be published again.
    `new_epoch`: deployments count their generations anew from now on.
    """
    if problems := lacking(signed, fleet.trust, new):
        raise OperatorError(f"there are only {' and '.join(problems)}")
    before = fleet.client.kept(fleet.topics.trust)
    raw = chained(before, signed.raw)
    if before is not None and _leads_to(before, fleet.trust, new):
        raw = before  # published before, and kept only now (NotKeptError)
    try:
        taken = trust.rotated(raw, fleet.trust)
    except RefusedError as error:
        raise OperatorError(f"nodes would refuse it: {error} ({error.reason})") from error
    if taken != new:
        version = taken.version if taken else "another version"
        raise OperatorError(
            f"the broker's chain leads to {version}: another operator rotated; bring the folder"
            " up to date (git pull)"
        )
    fleet.client.publish(fleet.topics.trust, raw, retain=True)
    kept = settled(fleet.client, fleet.topics.trust, raw, before)
    if kept not in (raw, before):
        raise OperatorError(
            "another operator rotated at the same moment; look at the broker's chain"
        )
    if kept != raw:
        path = fleet.folder.path / f"trust-{new.version}.dsse.json"
        fleet.folder.write(path, signed.raw.decode() + "\n")
        epoch = " --new-epoch" if new_epoch else ""  # which the set of keys does not say
        raise NotKeptError(
            f"{fleet.client.url}: {NOT_KEPT}, then publish the same document again, with"
            f" the same --add: edge-agent fleet trust rotate --signed {path}{epoch}"
        )
    named = dict(zip(names, new.keys, strict=True))
    fleet.folder.write_trust(named, new.version, new.validity)
    path = fleet.folder.path / FLEET_FILE
    fleet.folder.write(path, fleet_toml.set_trust(path, names, new, new_epoch=new_epoch))


def _leads_to(raw: bytes, old: TrustSet, new: TrustSet) -> bool:
    try:
        return trust.rotated(raw, old) == new
    except (RefusedError, CryptoError):
        return False


def chained(before: bytes | None, link: bytes) -> bytes:
    """The chain at the broker with one more link; a long chain loses its oldest links."""
    links: list[bytes] = []
    if before is not None:
        try:
            value = strictjson.loads(before)
        except ValueError:
            value = []  # invalid: nodes that are behind cannot follow it anyway
        each: Any
        for each in value if isinstance(value, list) else [value]:
            links.append(strictjson.dumps(cast(dict[str, Any], each)))
    links = [*links, link][-trust.MAX_CHAIN :]
    while len(raw := trust.chain(links)) > topics.MAX_MESSAGE_BYTES and len(links) > 1:
        del links[0]
    return raw


def all_keys(old: TrustSet, new: TrustSet) -> tuple[PublicKey, ...]:
    """The keys whose signatures count for a rotation."""
    return tuple({key.keyid: key for key in (*old.keys, *new.keys)}.values())
