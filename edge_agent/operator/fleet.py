"""One fleet: its folder, its broker, the operator's keys. For commands and other programs.

publish -> prepare (what would change) -> sign -> put
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import OperatorError, RefusedError
from edge_agent.fleet_protocol import deployment, form, trust
from edge_agent.fleet_protocol.deployment import CodeOffer, Deployment, place
from edge_agent.fleet_protocol.topics import fleet_topics
from edge_agent.operator import (
    blobs,
    deploy,
    enrolment,
    fleet_toml,
    plan,
    releases,
)
from edge_agent.operator.blobs import Progress, Published, pack
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.deploy import Current
from edge_agent.operator.deployment_file import Draft, load, read
from edge_agent.operator.folder import DIRTY, FleetFolder
from edge_agent.operator.keyring import Keyring, Signed
from edge_agent.operator.node_state import Node
from edge_agent.operator.releases import Made
from edge_agent.operator.rollout import Reach
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View, read_nodes
from edge_agent.store.release import Code


class Prepared(NamedTuple):
    """A deployment before signing, and the changes that it makes."""

    deployment: Deployment
    current: Current
    changes: list[plan.Change]
    view: View
    text: str | None = None  # the new text of deployment.toml, where the command changes it
    ahead: tuple[str, ...] = ()  # nodes that report a later generation


class Fleet:
    """The methods wait for the broker; they print nothing and ask no questions."""

    def __init__(self, folder: FleetFolder, client: BrokerClient, keyring: Keyring) -> None:
        """`client` is connected. ConfigError, OperatorError: fleet.toml or a key is wrong."""
        self.folder = folder
        self.client = client
        self.keyring = keyring
        self.reload()
        self.topics = fleet_topics(self.settings.name)
        self.nodes_topic = self.topics.nodes

    def reload(self) -> None:
        """Read fleet.toml and trust/, which a rotation changes. ConfigError, OperatorError."""
        self.settings = self.folder.settings()
        self.trust = self.folder.trust_set()
        self.enrolment = enrolment.of_fleet(self.folder)

    def follow_trust(self, raw: bytes) -> None:
        """Trust the folder's keys, and the later keys to which the broker's chain leads."""
        self.reload()
        try:
            self.trust = trust.rotated(raw, self.trust) or self.trust
        except RefusedError:  # the chain does not lead on from the keys trusted here
            pass

    # --- what there is

    def view(self, *, proven: bool = True) -> View:
        """The nodes' present status and state; `proven` as in `BrokerClient.proof`."""
        view = View(self.enrolment)
        found = read_nodes(self.client, self.nodes_topic, proven=proven)
        for topic, payload in found.items():
            view.feed(Received(topic, payload, True))
        return view

    def current(self, *, proven: bool = True) -> Current:
        """The deployment at the broker; `proven` as in `BrokerClient.proof`."""
        return self.believed(self.client.kept(self.topics.deployment, proven=proven))

    def believed(self, raw: bytes | None) -> Current:
        """The deployment in a message of the broker."""
        return deploy.believed(raw, self.trust, deploy.last_deployed(self.folder))

    def numbers(self, now: Current) -> deploy.Numbers:
        """The generations that the next deployment may have."""
        return deploy.numbers(now, deploy.last_deployed(self.folder), self.settings.epoch)

    def draft(self) -> Draft:
        """deployment.toml."""
        return load(self.folder)

    # --- changing it

    def publish(
        self,
        plugin: Path,
        name: str,
        version: str,
        progress: Progress = lambda _done, _all: None,
    ) -> Published:
        """Check a module, publish it and note it as `version` of plugin `name`.

        ModuleError, LinkError, OperatorError: also for another module under a known version.
        """
        packed = pack(blobs.read_module(plugin))
        releases.check_names(name, version)
        before = releases.find(self.folder, name, version)
        if before is not None and before.digest != packed.digest:
            raise OperatorError(
                f"{name} {version} was published as another module ({before.digest[:19]}...); a"
                " version never changes its content, give this one a new number"
            )
        done = blobs.upload(self.client, self.topics, packed, progress)
        releases.save(self.folder, name, version, done.blob)
        return done

    def publish_code(
        self,
        name: str,
        version: str,
        made: Made,
        progress: Progress = lambda _done, _all: None,
    ) -> Published:
        """Publish machine code of a published version, and note it beside the version."""
        blob = releases.load(self.folder, name, version)
        done = blobs.upload(self.client, self.topics, pack(made.data), progress)
        code = Code(
            *(made.engine, made.version, made.target, made.settings, made.features),
            digest=done.blob.digest,
            size=done.blob.size,
        )
        releases.save(self.folder, name, version, blob, [CodeOffer(code, done.blob, ("mqtt",))])
        return done

    def rolled_out(
        self,
        name: str,
        version: str,
        percent: int,
        index: str | None = None,
        *,
        config_file: str | None = None,
        mode: str | None = None,
        instance: str | None = None,
        permissions: Sequence[str] | None = None,
        remembered: Mapping[str, object] = {},
    ) -> Draft:
        """deployment.toml with `version` for `percent` of the nodes; not written yet.

        `config_file` is the release's own configuration, in the folder, `mode` and `instance` are
        its own (None: those of the newest release of the same module, else of the plugin).
        `permissions` are those of a new plugin. `remembered` are further keys of its rollout
        (draft.ROLLOUT).
        """
        given = {"config_file": config_file, form.MODE: mode, form.INSTANCE: instance}
        own: dict[str, object] = {key: each for key, each in given.items() if each is not None}
        module = self._module(name, version)
        if module != version:
            own["module"] = module
        rollout: dict[str, object] | None = None
        if percent < 100:
            seed = self._seed(name, version)
            rollout = {"percent": percent, "seed": seed, "paused": None, **remembered}
        text = fleet_toml.edited(
            self.folder.deployment_file,
            lambda document: fleet_toml.set_release(
                document, name, version, index, rollout, own, permissions
            ),
        )
        return read(self.folder, text)

    def reaching(self, name: str, version: str, reach: Reach) -> Draft:
        """deployment.toml with a larger reach of a release that it has already."""
        named = {"nodes": list(reach.nodes) or None, "rings": list(reach.rings) or None}
        return self.rolled_out(name, version, reach.percent, remembered=named)

    def canaries(self, name: str, version: str, count: int) -> list[str]:
        """`count` online nodes that the plugin is for: those that a small percentage would choose
        first. OperatorError: there are fewer."""
        seed = self._seed(name, version)
        found = [
            node.name for node in self.view().sorted() if node.online and self._for(name, node)
        ]
        if len(found) < count:
            raise OperatorError(
                f"{count} nodes were asked for, and only {len(found)} that {name} is for are online"
            )
        return sorted(sorted(found, key=lambda node: place(seed, node))[:count])

    def check_nodes(self, name: str, names: Sequence[str]) -> None:
        """OperatorError unless all of them are known, and the plugin is for them."""
        view = self.view()
        for each in names:
            if each not in view.nodes:
                raise OperatorError(f"no node {each} has reported; see edge-agent fleet nodes")
            if not self._for(name, view.nodes[each]):
                raise OperatorError(f"{name} is not for {each}: its labels do not fit `select`")

    def prepare(
        self,
        draft: Draft,
        *,
        onto: int | None = None,
        generation: int | None = None,
        first: bool = False,
        check_base: bool = True,
    ) -> Prepared:
        """The deployment of `draft` and its changes. OperatorError: it cannot be deployed.

        `onto` is the generation of another operator's deployment that may be replaced,
        `generation` the operator's choice for the new one; `first`: the broker has none.
        """
        # Without `check_base` the result is only shown.
        if check_base:
            self.check_trust()
        now, view = self.current(proven=check_base), self.view(proven=check_base)
        numbers = self.numbers(now)
        number = deploy.chosen(numbers, generation)
        ahead = deploy.ahead(view, numbers.epoch, number)
        if check_base:
            deploy.check_base(now, deploy.last_deployed(self.folder), onto, first)
            if generation is None:
                deploy.check_followed(view, numbers, ahead)
        document = draft.document(
            self.settings.name, number, time.time(), self._commit(draft), numbers.epoch
        )
        self._check_published(document, now.deployment)
        changed = plan.changes(view, now.deployment, document)
        named = tuple(node.name for node in ahead)
        return Prepared(document, now, changed, view, draft.text, named)

    def check_trust(self) -> None:
        """OperatorError: the trusted keys expired, so nodes would refuse their signatures."""
        try:
            self.trust.check_in_force(time.time())
        except RefusedError as error:
            raise OperatorError(f"{error} ({error.reason})") from error

    def sign(self, prepared: Prepared) -> Signed:
        """Sign with every trusted key that is available here. OperatorError: there is none."""
        keys = self.keyring.at_hand(self.trust.keys)
        if not keys:
            named = ", ".join(self.settings.keys)
            raise OperatorError(
                f"{self.keyring.folder}: none of the private keys that the fleet trusts is here"
                f" ({named}); sign where one is, or name another folder with --keys"
            )
        try:
            return Signed.sign(
                deployment.PAYLOAD_TYPE, prepared.deployment.payload, self.trust.keys, keys
            )
        except RefusedError as error:
            raise OperatorError(f"{self.folder.deployment_file}: {error}") from error

    def put(self, prepared: Prepared, signed: Signed) -> None:
        """Write deployment.toml and publish. OperatorError: also if another operator deployed.

        deploy.NotKeptError: connected nodes have it; deployed.toml is written.
        """
        if not signed.enough(self.trust.threshold):
            raise OperatorError(
                f"{len(signed.signers)} of {self.trust.threshold} signatures needed are there"
            )
        self.keep(prepared)
        try:
            deploy.put(self.client, self.topics, signed.raw, prepared.current.raw)
        except deploy.NotKeptError:
            deploy.note_deployed(self.folder, prepared.deployment, self.folder.commit())
            raise
        deploy.note_deployed(self.folder, prepared.deployment, self.folder.commit())

    def deploy(
        self, draft: Draft | None = None, *, onto: int | None = None, first: bool = False
    ) -> Prepared:
        """`prepare`, `sign` and `put` in one, for programs."""
        prepared = self.prepare(draft or self.draft(), onto=onto, first=first)
        self.put(prepared, self.sign(prepared))
        return prepared

    def keep(self, prepared: Prepared) -> None:
        """Write deployment.toml, where a command changed it."""
        if prepared.text is not None:
            self.folder.write(self.folder.deployment_file, prepared.text)

    # --- inside

    def _commit(self, draft: Draft) -> str | None:
        """The commit that `draft` comes from; a command may have changed it since."""
        commit = self.folder.commit()
        if commit is None or commit.endswith(DIRTY) or draft.text == self.draft().text:
            return commit
        return f"{commit}{DIRTY}"

    def _seed(self, name: str, version: str) -> str:
        """The seed of a rollout: each version has first nodes of its own, always the same."""
        plugin = self.draft().plugin(name)
        for each in self.draft().releases(name) if plugin else ():
            rollout = each.get("rollout")
            if each.get("version") == version and isinstance(rollout, dict):
                return str(rollout.get("seed", version))
        return f"{name} {version}"[:64]

    def _module(self, name: str, version: str) -> str:
        """The published version that a release runs: its own, or that before its "+".

        OperatorError: none was published.
        """
        known = self.draft().releases(name) if self.draft().plugin(name) else []
        for each in known:
            if each.get("version") == version and "module" in each:
                return str(each["module"])
        before, plus, _ = version.partition("+")
        if plus and releases.find(self.folder, name, version) is None:
            releases.check_names(name, version)
            version = before
        releases.load(self.folder, name, version)
        return version

    def _for(self, name: str, node: Node) -> bool:
        """Whether the plugin is for a node, by the labels of its `select`."""
        select = (self.draft().plugin(name) or {}).get("select", {})
        labels = select.get("labels", {}) if isinstance(select, Mapping) else {}
        wanted = labels if isinstance(labels, Mapping) else {}
        return all(node.labels.get(label) == value for label, value in wanted.items())

    def _check_published(self, document: Deployment, before: Deployment | None) -> None:
        """OperatorError unless the broker has the last part of each new blob, and so all parts."""
        known = blobs.named(before)
        lasts = {
            self.topics.blob_part(blob.digest, blob.parts - 1): (
                entry.name,
                offer.release.version,
                option,
            )
            for entry in document.plugins
            for offer in entry.offers
            for blob, sources, option in (
                (offer.blob, offer.sources, ""),
                *((each.blob, each.sources, " --code") for each in offer.codes),
            )
            if blob.parts and blob.digest not in known and "mqtt" in sources
        }
        if not lasts:
            return
        kept = self.client.retained(lasts)
        for topic, (name, version, option) in lasts.items():
            if topic not in kept:
                raise OperatorError(
                    f"{name} {version} is not, or not wholly, at the broker; publish it again:"
                    f" edge-agent fleet publish FILE.wasm --name {name} --version {version}{option}"
                )
