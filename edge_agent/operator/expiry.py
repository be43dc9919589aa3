"""Warnings about expiry, each with the command that renews; given from the last third on. Pure,
except for the operator's own certificate, which is a file."""

from edge_agent.config import MqttConfig
from edge_agent.errors import ConfigError
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.mqtt import certificate
from edge_agent.validity import Validity

RENEW_TRUST = "edge-agent fleet trust renew"
# Of a checkout, in the folder with the fleet's authorities (configs/mosquitto/README.md).
RENEW_CERTIFICATE = "configs/mosquitto/certificate renew"


def of_deployment(deployment: Deployment | None, now: float) -> str:
    """The warning for a deployment, or ""."""
    if deployment is None:
        return ""
    validity = Validity(deployment.issued, deployment.expires)
    if validity.over(now):
        return "it has expired: nodes that are new or were reset take nothing; deploy again"
    told = validity.ending(now)
    return f"it {told}: deploy again" if told else ""


def of_trust(trust: TrustSet, now: float) -> str:
    """The warning for the trusted keys, or ""."""
    if trust.validity is None or not (told := trust.validity.ending(now)):
        return ""
    over = trust.validity.over(now)
    then = "nodes take no deployment before you renew it" if over else "renew it"
    return f"the set of trusted keys, version {trust.version}, {told}; {then}: {RENEW_TRUST}"


def of_certificate(name: str, validity: Validity | None, now: float) -> str:
    """The warning for a certificate, or ""; `name` is the name of its file."""
    told = validity.ending(now) if validity is not None else ""
    return f"{told}: {RENEW_CERTIFICATE} {name}" if told else ""


def of_operator(mqtt: MqttConfig, now: float) -> str:
    """The warning for the operator's own certificate, or ""."""
    if mqtt.cert_file is None:
        return ""
    told = of_certificate(mqtt.cert_file.stem, certificate_of(mqtt), now)
    return f"your certificate {mqtt.cert_file} {told}" if told else ""


def certificate_of(mqtt: MqttConfig) -> Validity | None:
    """The validity of the operator's certificate; None: it cannot be read."""
    try:
        return certificate.read(mqtt.cert_file) if mqtt.cert_file is not None else None
    except ConfigError:
        return None
