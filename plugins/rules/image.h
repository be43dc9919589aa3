// Image references, brought to one form before they are compared: the author of a pod
// writes `nginx`, `docker.io/nginx` or `index.docker.io/library/nginx:latest` for the same.

#ifndef RULES_IMAGE_H
#define RULES_IMAGE_H

#include "pattern.h"

// Of `registry.example:5000/team/app:1.2@sha256:...`
typedef struct reference {
    str domain, path, tag, digest; // absent: not there
} reference;

static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Whether the first part of a name is a registry's: as Docker and containerd decide it.
static bool is_domain(str part) {
    for (uint32_t i = 0; i < part.size; i++)
        if (is_any(part.at[i], ".:") || (part.at[i] >= 'A' && part.at[i] <= 'Z'))
            return true;
    return str_is(part, "localhost");
}

static reference reference_split(str text, bool pattern) {
    reference r = {0};
    str rest = text;
    str name = str_cut(&rest, '@');
    if (name.size < text.size)
        r.digest = rest;
    for (uint32_t i = name.size; i-- > 0 && name.at[i] != '/';)
        if (name.at[i] == ':') {
            r.tag = str_from(name, i + 1);
            name.size = i;
            break;
        }
    rest = name;
    str first = str_cut(&rest, '/');
    bool wild = false;
    for (uint32_t i = 0; pattern && i < first.size; i++)
        wild |= is_any(first.at[i], "*?");
    if (first.size < name.size && (wild || is_domain(first)))
        r.domain = first, r.path = rest;
    else
        r.path = name;
    return r;
}

// Appends `domain/path`: the domain in lower case, and Docker's own for a name without one.
static void put_repository(buf *out, reference r, bool pattern) {
    bool wild = pattern && r.domain.at == NULL && str_starts(r.path, STR("*"));
    uint32_t start = out->size;
    for (uint32_t i = 0; i < r.domain.size; i++)
        buf_put_char(out, (char)lower((uint8_t)r.domain.at[i]));
    str domain = str_from(buf_str(out), start);
    if (domain.size > 4 && str_is(str_from(domain, domain.size - 4), ":443")) // https anyway
        out->size -= 4, domain.size -= 4;
    bool docker = r.domain.at == NULL;
    static const char *const names[] = {"docker.io", "index.docker.io", "registry-1.docker.io"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        docker |= str_is(domain, names[i]);
    if (docker && !wild) {
        out->size = start;
        buf_put(out, "docker.io");
    }
    str rest = r.path;
    bool alone = str_cut(&rest, '/').size == r.path.size;
    bool any = pattern && str_starts(r.path, STR("*"));
    if (!wild)
        buf_put(out, "/", docker && alone && !any ? "library/" : "");
    buf_put(out, r.path);
}

static bool all_of(str text, const char *more, bool capitals) {
    for (uint32_t i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (!(is_alnum(c) || is_any(c, more)) || (!capitals && c >= 'A' && c <= 'Z'))
            return false;
    }
    return text.size > 0;
}

// The grammar of references, as far as anything else would be another image to a runtime
// than to a rule.
static bool reference_valid(reference r) {
    str rest = r.path, port = r.domain, host = r.domain;
    if (!str_starts(host, STR("[")))
        host = str_cut(&port, ':');
    if (r.domain.at && (!all_of(r.domain, ".-:[]", true) || host.size == 0 ||
                        !(is_alnum(host.at[host.size - 1]) || host.at[0] == '[')))
        return false;
    do {
        str part = str_cut(&rest, '/');
        if (!all_of(part, "._-", false) || !is_alnum(part.at[0]) || !is_alnum(part.at[part.size - 1]))
            return false;
    } while (rest.size);
    if (r.path.at[r.path.size - 1] == '/' || (r.tag.at && !all_of(r.tag, "._-", true)))
        return false;
    str hex = r.digest, kind = str_cut(&hex, ':');
    return !r.digest.at || (all_of(kind, "+._-", true) && hex.size >= 32 && all_of(hex, "", false));
}

// ---- of a container ----

typedef struct image {
    str name;            // as the runtime tells it; empty: it does not
    bool good;           // it can be compared; else only the name and the digest are there
    reference reference;
    str whole;           // domain/path, and :tag or @digest; until the next image is read
    str repository;      // domain/path
    str digest;          // what it resolved to, else that of the reference; empty: not told
} image;

// From NRI 0.13 on the runtime tells it. Before, the runtimes write the name into the
// container's annotations; where there are no pods (`alone`), so can whoever makes the container.
// CRI-O copies the pod's annotations to its own (SpecAddAnnotations), so both say that one is
// forged.
static image image_of(str container, bool alone) {
    static buf whole;
    image i = {0};
    str told = pb_bytes(container, NRI_CTR_IMAGE), name = pb_bytes(told, NRI_IMAGE_NAME);
    if (name.size == 0 && !alone) {
        name = pb_map_get(container, NRI_CTR_ANNOTATIONS, STR("io.kubernetes.cri.image-name"));
        str crio = pb_map_get(container, NRI_CTR_ANNOTATIONS, STR("io.kubernetes.cri-o.ImageName"));
        if (crio.at)
            name = name.at ? (str){0} : crio;
    }
    i.name = name, i.digest = pb_bytes(told, NRI_IMAGE_DIGEST);
    reference r = reference_split(name, false);
    bool id = (r.path.size == 64 && all_of(r.path, "", false) && !r.domain.at) ||
              str_is(r.path, "sha256"); // in place of a name
    if (name.size == 0 || name.size > MAX_VALUE || id || !reference_valid(r))
        return i;
    buf_clear(&whole);
    put_repository(&whole, r, false);
    uint32_t repository = whole.size;
    if (r.digest.at)
        buf_put(&whole, "@", r.digest);
    else
        buf_put(&whole, ":", r.tag.at ? r.tag : STR("latest"));
    i.good = !whole.full, i.reference = r, i.whole = buf_str(&whole);
    i.repository = (str){i.whole.at, repository};
    if (i.digest.size == 0)
        i.digest = r.digest;
    return i;
}

// ---- patterns ----

// What the pattern of an `image` condition is made of.
typedef struct image_pattern {
    pattern repository; // or of `re:` the whole
    str tag, digest;
} image_pattern;

static bool image_pattern_of(const node *at, str text, image_pattern *p, buf *error) {
    *p = (image_pattern){0};
    if (str_starts(text, STR("re:")))
        return pattern_of(at, text, &p->repository, error);
    reference r = reference_split(text, true);
    // `team*/app` could be Docker's users or registries.
    bool either = r.domain.at && !str_is(r.domain, "*") && !is_domain(r.domain);
    bool digest = r.domain.at == NULL && str_is(r.path, "sha256"); // without the *@ before it
    if (either || digest || r.path.size == 0 || (r.tag.at && r.tag.size == 0) ||
        (r.digest.at && r.digest.size == 0))
        return node_wrong(error, at, &text, " is no image; such are nginx, "
                          "registry.example/team/*, team/app:1.*, *@sha256:...");
    buf out = {0};
    put_repository(&out, r, true);
    p->repository = (pattern){.glob = keep(&out), .at = at};
    buf_free(&out);
    p->tag = r.digest.at ? (str){0} : r.tag, p->digest = r.digest;
    return p->repository.glob.at != NULL;
}

// An image that is told with a digest fits no pattern of a tag: the tag says nothing of what runs.
static answer image_fits(const image_pattern *p, const image *i) {
    const reference r = i->reference;
    if (p->repository.program)
        return pattern_fits(&p->repository, i->whole);
    // The registry by its own part, as a star for it would else fit a path of another one.
    str wanted = p->repository.glob, path = i->repository, domain = str_cut(&wanted, '/');
    bool apart = domain.size < p->repository.glob.size && !str_is(domain, "*");
    answer fits = apart ? glob_fits(domain, str_cut(&path, '/')) : YES;
    if (fits == YES)
        fits = pattern_fits(apart ? &(pattern){.glob = wanted} : &p->repository, path);
    if (fits != YES)
        return fits;
    if (p->digest.at && (!r.digest.at || (fits = glob_fits(p->digest, r.digest)) != YES))
        return r.digest.at ? fits : NO;
    if (p->tag.at)
        return r.digest.at ? NO : glob_fits(p->tag, r.tag.at ? r.tag : STR("latest"));
    return YES;
}

#endif
