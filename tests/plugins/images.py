"""Names of images in all forms, and requests that tell them; for `rules` and `image-policy`.

The list is of `nginx`, `registry.example/app:1.*` and everything with `DIGEST`.
"""

from edge_agent.pb import nri_pb2

from .guest import capture

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64

# Names of Docker's own nginx.
ONE_IMAGE = [
    *(
        "nginx",
        "nginx:latest",
        "library/nginx",
        "docker.io/nginx:1.2",
        "docker.io/library/nginx",
    ),
    *("index.docker.io/nginx", "registry-1.docker.io/library/nginx", "DOCKER.io/nginx"),
    *("docker.io:443/library/nginx", f"nginx@{OTHER}", f"nginx:1@{OTHER}"),
]

LISTED = ["registry.example/app:1.2", f"evil.example/x@{DIGEST}", "nginx"]

# No image of the list, however much it looks like one.
BESIDE = [
    *("evil/nginx", "nginx.example/nginx", "localhost/nginx", "localhost:5000/library/nginx"),
    *(
        "docker.io.example/library/nginx",
        "docker.io/library/nginx/x",
        "nginx2",
        "nginx-",
        "xnginx",
    ),
    *("registry.example:5000/app:1.2", "registry.example/app", "registry.example/app:2.1"),
    *("registry.example/app/evil:1.1", "app:1.1", "registry-example/app:1.1"),
    # The tag is one of the list, what runs is what the digest says.
    *(f"registry.example/app:1.2@{OTHER}", f"nginx2@{OTHER}"),
]

# Taken for no image at all.
NO_REFERENCE = [
    DIGEST,  # the image's id, as the kubelet may send it
    "1" * 64,
    *("nginx ", " nginx", "nginx\n", "nginx\0evil", "NGINX", "Nginx:1", "ngin\u0445", "nginx/"),
    *(
        "docker.io./nginx",
        "docker.io//nginx",
        "docker.io/../nginx",
        "/nginx",
        "nginx:",
        "nginx@",
    ),
    *(f"nginx@{DIGEST}@{DIGEST}", "nginx@sha256:11", "nginx:1:2", "", "nginx:" + "1" * 17000),
]


def image(name: str, **more: str) -> nri_pb2.CreateContainerRequest:
    """As runtimes with NRI 0.13 tell it; what a real containerd sent, but for the image."""
    made = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
    made.container.image.name = name
    for key, value in more.items():
        setattr(made.container.image, key, value)
    return made
