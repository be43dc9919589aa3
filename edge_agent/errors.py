"""Every error that crosses a room's border. This file imports nothing.

Each room raises its own kind, wrapped once at its edge; the message says who broke
which rule and, where somebody can act on it, what to do.
"""


class EdgeAgentError(Exception):
    """The root of this project's errors."""


class ConfigError(EdgeAgentError):
    """A configuration file or value is wrong; the message names file and key."""


class OperatorError(EdgeAgentError):
    """What a fleet's operator asked for cannot be done; the message says why and what to do."""


class ProtocolError(EdgeAgentError):
    """A peer on the NRI socket broke the mux, ttRPC or NRI rules; its session ends."""


class ModuleError(EdgeAgentError):
    """A plugin file is not a module that this agent can host."""


class SupersededError(ModuleError):
    """A module's file was replaced after its digest was taken: there is another to be loaded."""


class EngineError(EdgeAgentError):
    """The engine is missing or failed by itself, not through the guest."""


class NotInstalledError(EngineError):
    """The engine is not on this node; the message says how to install it."""


class GuestError(EdgeAgentError):
    """The guest answered a call with an error (the ABI's error bit); it lives on."""


class GuestFault(EdgeAgentError):
    """The guest is finished: it trapped, ran out of time or broke the ABI.

    `kind` is a word for reports: `trap`, `timeout`, `fuel`, `calls` (too many of host functions),
    `memory` (its malloc gave nothing), `abi`, `start` (it refused to be configured) or `closed`
    (called after its end). `frames` are the guest's calls at its end, the innermost first, as far
    as the engine tells them: the function's index, and an offset in the module's file.
    """

    def __init__(self, kind: str, message: str, frames: tuple[tuple[int, int], ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.frames = frames


class StoreError(EdgeAgentError):
    """A file of the agent's own could not be read, written or trusted."""


class TransferError(EdgeAgentError):
    """A blob did not come from one source: it is away, refuses, is too slow or gives up."""


class WrongBlobError(TransferError):
    """A source gave something else than the blob that was asked for; nothing of it is kept."""


class LinkError(EdgeAgentError):
    """The MQTT broker could not be reached or refused the agent."""


class ControlError(EdgeAgentError):
    """The control socket cannot be served, or what answers there is of no use."""


class NotRunningError(ControlError):
    """No agent listens on the control socket."""


class ServiceError(EdgeAgentError):
    """The agent cannot be made, or unmade, a service of this machine."""


class RequestError(EdgeAgentError):
    """A request of the fleet's cannot be carried out; `id` is its own, empty if unreadable."""

    def __init__(self, identity: str, message: str) -> None:
        super().__init__(message)
        self.id = identity


class RepeatedError(RequestError):
    """The request was carried out before: a broker sent it twice, or it was recorded and sent
    again."""


class KeyFormatError(ConfigError):
    """A text is not the PEM of an Ed25519 key."""


class CryptoError(EdgeAgentError):
    """Signatures cannot be made or checked here, such as for a library that is missing."""


class RefusedError(EdgeAgentError):
    """A document from the fleet is not taken, and changed nothing.

    `reason` is a word for reports (docs/fleet-protocol.md lists them): `oversized`, `envelope`,
    `signature`, `algorithm`, `kind`, `fleet`, `rollback`, `gap`, `jump`, `conflict`,
    `trust-expired`, `expired` or `malformed`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
