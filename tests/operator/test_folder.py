"""A fleet's folder and the keys that stay out of it."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.errors import ConfigError, OperatorError
from edge_agent.fleet_protocol.form import Blob
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.operator import deployment_file, fleet_toml, folder, releases
from edge_agent.operator.fleet_toml import load_settings
from edge_agent.operator.folder import DEPLOYMENT, FleetFolder, fleet_text
from edge_agent.operator.keyring import Keyring, read_public
from edge_agent.store.digest import Digest

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed")


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "keys")
    made.generate("alice")
    return made


@pytest.fixture
def fleet(tmp_path: Path, keyring: Keyring) -> FleetFolder:
    keys = {"alice": read_public(keyring.public_file("alice"))}
    url = "mqtts://broker.example:8883"
    return folder.create(
        tmp_path / "f", name="f", url=url, keys=keys, threshold=1, ca_file="ca.pem"
    )


def git(fleet: FleetFolder, *words: str) -> str:
    assert GIT is not None
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = [GIT, "-C", str(fleet.path), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_private_key_is_for_its_owner_only(keyring: Keyring) -> None:
    private, public = keyring.private_file("alice"), keyring.public_file("alice")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(keyring.folder.stat().st_mode) == 0o700
    assert keyring.load("alice").public == read_public(public)
    with pytest.raises(OperatorError, match="there is a key of this name"):
        keyring.generate("alice")
    private.chmod(0o640)
    with pytest.raises(OperatorError, match="others can read this private key: chmod 600"):
        keyring.load("alice")


@pytest.mark.parametrize("mark", ["fleet.toml", ".git"])
def test_no_private_key_is_made_in_a_shared_folder(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).mkdir()
    with pytest.raises(OperatorError, match="private keys stay apart"):
        Keyring(tmp_path / "below" / "keys").generate("alice")
    assert not (tmp_path / "below").exists()


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "x" * 64])
def test_odd_names_for_keys_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OperatorError, match="cannot name a key"):
        Keyring(tmp_path / "keys").generate(name)


def test_only_keys_that_count_are_taken(keyring: Keyring) -> None:
    bob = keyring.generate("bob")
    keyring.generate("carol")
    assert [key.public for key in keyring.at_hand([bob])] == [bob]
    keyring.private_file("carol").write_text("rubbish")
    assert [key.public for key in keyring.at_hand([bob])] == [bob]  # carol.pem is another's
    keyring.private_file("bob").write_text("rubbish")
    with pytest.raises(OperatorError, match=r"bob.key: .*PEM"):
        keyring.at_hand([bob])


def test_a_new_folder_can_be_read_and_deployed_as_it_is(fleet: FleetFolder) -> None:
    settings = fleet.settings()
    assert (settings.name, settings.keys, settings.threshold) == ("f", ("alice",), 1)
    assert settings.mqtt.ca_file == fleet.path / "ca.pem"
    assert settings.mqtt.brokers[0].url == "mqtts://broker.example:8883"
    document = deployment_file.load(fleet).document("f", 1, 1_800_000_000.0)
    assert document.plugins == ()
    assert document.expires - document.issued == 30 * 86_400


def test_the_example_in_deployment_toml_is_a_deployment(fleet: FleetFolder) -> None:
    lines = DEPLOYMENT.split("\n\n")[-1].splitlines()
    example = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
    for version in ("1.0.0", "1.1.0"):
        blob = f'digest = "sha256:{version[2] * 64}"\nsize = 100\nencoding = "zlib"\n'
        fleet.write(
            fleet.release_file("resource-guard", version), blob + "parts = 1\npart_size = 65536\n"
        )
    (fleet.path / "resource-guard.conf").write_text("memory = 1")
    (entry,) = deployment_file.read(fleet, example).document("f", 1, 0.0).plugins
    assert (entry.identity, entry.offers[0].release.config, entry.select) == (
        "20-resource-guard",
        "memory = 1",
        {"board": "rpi4"},
    )
    assert [(each.release.version, bool(each.rollout)) for each in entry.offers] == [
        ("1.1.0", True),
        ("1.0.0", False),
    ]


def test_an_existing_folder_is_not_overwritten(fleet: FleetFolder) -> None:
    with pytest.raises(OperatorError, match="is there already; nothing was changed"):
        folder.create(fleet.path, name="g", url="mqtt://a", keys={}, threshold=1)
    assert fleet.settings().name == "f"


def test_a_folder_is_found_from_below(fleet: FleetFolder) -> None:
    assert folder.find(fleet.path / "releases").path == fleet.path


def test_a_private_key_in_the_folder_stops_everything(fleet: FleetFolder) -> None:
    (fleet.trust_folder / "alice.key").write_text(SigningKey.generate().to_pem())
    with pytest.raises(OperatorError, match=r"alice.key: is a private key in a folder"):
        fleet.public_keys(["alice"])


@needs_git
def test_git_ignores_secrets_and_names_the_commit(fleet: FleetFolder) -> None:
    for name in ("x.key", "operator-key.pem", "password", "y.p12"):
        (fleet.path / name).write_text("secret")
    (fleet.path / ".edge-agent").mkdir()
    (fleet.path / ".edge-agent" / "results.json").write_text("{}")
    git(fleet, "add", "-A")
    files = git(fleet, "ls-files").split()
    assert files == [
        ".gitignore",
        "deployment.toml",
        "fleet.toml",
        "trust/alice.pem",
        "trust/version",
    ]
    assert fleet.commit() is None  # there is none yet
    git(fleet, "commit", "-qm", "first")
    commit = fleet.commit()
    assert commit == git(fleet, "rev-parse", "--short=12", "HEAD").strip()
    (fleet.path / "deployment.toml").write_text("plugins = []\n")
    assert fleet.commit() == f"{commit}-dirty"


def test_without_git_it_works_all_the_same(
    fleet: FleetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert fleet.commit() is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('name = "F F"', "fleet.toml:1: name"),
        ('name = "f"\ntypo = 1', "typo: unknown key"),
        ('name = "f"\n[mqtt]\nurl = "http://a"', "mqtt.url"),
        ('name = "f"\n[mqtt]\nurl = "mqtt://a"\nca_file = "x"', "ca_file"),
        ('name = "f"\n[mqtt]\nurl = "mqtt://a"\n[trust]\nkeys = ["../a"]', "no key's name"),
        ('name = "f"\n[mqtt]\nurl = "mqtt://a"\n[trust]\nthreshold = 0', "trust.threshold"),
        ("name = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_fleet_toml_is_named(tmp_path: Path, wrong: str, said: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(wrong)
    with pytest.raises(ConfigError, match=r"fleet\.toml") as error:
        load_settings(file)
    assert said in str(error.value)


def test_a_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    text = fleet_text("f", "mqtt://a", [], 1, None, {"username": "u", "password_file": "~/pw"})
    (tmp_path / "fleet.toml").write_text(text)
    assert load_settings(tmp_path / "fleet.toml").mqtt.password_file == Path("/home/alice/pw")


def test_paths_below_home_are_written_for_every_operator(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--broker", "mqtts://a", "--ca-file", f"{tmp_path}/certs/ca.pem"]
    assert main(["fleet", "init", str(tmp_path / "g"), *words, "--keys", str(keyring.folder)]) == 0
    text = (tmp_path / "g" / "fleet.toml").read_text()
    assert 'ca_file = "~/certs/ca.pem"' in text
    assert FleetFolder(tmp_path / "g").settings().mqtt.ca_file == tmp_path / "certs" / "ca.pem"


def test_of_several_keys_those_that_the_fleet_trusts_are_named(
    tmp_path: Path, keyring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    keyring.generate("bob")
    words = ["--broker", "mqtt://a", "--keys", str(keyring.folder)]
    assert main(["fleet", "init", str(tmp_path / "g"), *words]) == 1
    said = capsys.readouterr().err
    assert f"{keyring.folder}: several keys (alice, bob); say with --key NAME" in said
    assert "which the fleet trusts" in said
    assert not (tmp_path / "g").exists()
    assert main(["fleet", "init", str(tmp_path / "g"), *words, "--key", "bob"]) == 0
    trusted = FleetFolder(tmp_path / "g").trust_set()
    assert trusted.keys == (read_public(keyring.public_file("bob")),)


def releases_after(fleet: FleetFolder, *rollouts: tuple[str, int | None]) -> list[str]:
    for version, percent in rollouts:
        rollout = None if percent is None else {"percent": percent, "seed": "s"}

        def change(document: object, version: str = version, rollout: object = rollout) -> None:
            fleet_toml.set_release(document, "x", version, "10", rollout)  # type: ignore[arg-type]

        fleet.deployment_file.write_text(fleet_toml.edited(fleet.deployment_file, change))
    return [str(each["version"]) for each in deployment_file.load(fleet).releases("x")]


def test_older_releases_stay_as_long_as_a_node_may_need_them(fleet: FleetFolder) -> None:
    assert releases_after(fleet, ("1", None)) == ["1"]
    assert releases_after(fleet, ("2", 10), ("2", None), ("3", 10)) == ["3", "2", "1"]
    assert releases_after(fleet, ("3", None), ("4", 10)) == ["4", "3", "2"]
    assert releases_after(fleet, ("5", 10), ("6", 10)) == ["6", "5", "4", "3", "2"]


def test_taking_back_the_only_release_ends_the_plugin_and_keeps_what_was_written(
    fleet: FleetFolder,
) -> None:
    releases_after(fleet, ("1", None))
    text = fleet_toml.edited(
        fleet.deployment_file, lambda document: fleet_toml.remove_release(document, "x", "1")
    )
    assert deployment_file.read(fleet, text).document("f", 1, 0.0).plugins == ()
    assert deployment_file.read(fleet, text).plugin("x") == {
        "name": "x",
        "index": "10",
        "permissions": ["*"],
        "releases": [{"version": "1"}],
        "enabled": False,
    }
    fleet.deployment_file.write_text(text)
    assert releases_after(fleet, ("1", 10)) == ["1"]
    assert "enabled" not in fleet.deployment_file.read_text()


def test_a_digest_of_a_release_that_is_none_is_named(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path)
    blob = Blob(Digest.of(b"x"), 1, "zlib", 1, 65536)
    path = releases.save(folder, "guard", "1.0.0", blob)
    found = releases.load(folder, "guard", "1.0.0")
    assert (found, found.digest.hex) == (blob, blob.digest.hex)
    path.write_text(path.read_text().replace("sha256:", "sha1:"))
    with pytest.raises(OperatorError, match=r"1\.0\.0\.toml: .* is not a digest"):
        releases.load(folder, "guard", "1.0.0")
