"""Configurations of other plugins, said in the language of plugins/rules."""

from collections.abc import Iterable

RESOURCES = {"default": "default", "maximum": "cap"}
OF_DEVICES = ("devices.noderesource.dev", "devices.nri.io")
OF_MOUNTS = ("mounts.noderesource.dev", "mounts.nri.io")
OF_CDI = ("cdi-devices.noderesource.dev", "cdi-devices.nri.io")


def resource_guard(text: str) -> str:
    """Its sections, each as one rule."""
    lines: list[str] = []
    for number, section in enumerate(text.split("[")[1:], 1):
        head, *settings = section.splitlines()
        kind, _, pattern = head.partition("]")[0].partition(" ")
        lines.append(f"- rule: section {number}")
        if kind == "namespace":
            lines.append(f"  when: {{namespace: '{pattern}'}}")
        elif kind == "label":
            key, _, value = pattern.partition("=")
            lines.append(f"  when: {{label: {{{key}: '{value}'}}}}")
        levels: dict[str, list[str]] = {}
        for setting in settings:
            name, _, amount = setting.partition("#")[0].partition("=")
            if amount:
                resource, _, which = name.strip().partition(".")
                levels.setdefault(RESOURCES[which], []).append(f"{resource}: {amount.strip()}")
        lines += [f"  {verb}: {{{', '.join(said)}}}" for verb, said in levels.items()]
    return "\n".join(lines)


def device_injector(text: str) -> str:
    """Its rules, as what annotations are allowed to ask for."""
    said = [line.partition(" #")[0].split(None, 1) for line in text.splitlines() if line.strip()]
    allowed = {
        kind: [rest.strip() for word, rest in (each for each in said if len(each) == 2)
               if word == kind]
        for kind in ("device", "mount", "cdi-device")
    }  # fmt: skip
    return "\n".join(
        [
            "- rule: what annotations name",
            "  add:",
            f"    devices: {_annotated(OF_DEVICES, allowed['device'])}",
            f"    mounts: {_annotated(OF_MOUNTS, allowed['mount'])}",
            *(
                [f"    cdi-devices: {_annotated(OF_CDI, allowed['cdi-device'])}"]
                if allowed["cdi-device"] or not said
                else []
            ),
        ]
    )


def _annotated(prefixes: Iterable[str], allowed: Iterable[str]) -> str:
    quoted = ", ".join(f"'{each}'" for each in allowed)
    more = f", allowed: [{quoted}]" if quoted else ""
    return f"{{from-annotations: [{', '.join(prefixes)}]{more}}}"
