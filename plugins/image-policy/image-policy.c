// Refuses containers whose image is on no list; README.md tells the list's form.

#include "../rules/image.h"

// ---- the list ----

#define MAX_LIST 65536   // bytes of a configuration
#define MAX_ENTRIES 1024 // images

typedef struct word {
    struct word *next;
    pattern text;
} word;

// One line: an image, and the arguments that it may have.
typedef struct entry {
    struct entry *next;
    const word *namespaces; // null: of every namespace
    bool any_image;         // `*`, also one that is not told
    image_pattern image;    // without its digest
    str digest;             // a glob, or absent
    const word *arguments;
    bool restricted, open; // to these arguments; and any further ones
} entry;

static buf list_text; // what the entries point into
static entry *entries;

// The next word of the line, as a place for errors.
static node next_word(conf *c) {
    str text = str_word(&c->line);
    node n = {.kind = TEXT, .line = c->number, .column = 1, .text = text};
    for (const char *at = text.at; at > list_text.at && at[-1] != '\n'; at--)
        n.column += (at[-1] & 0xC0) != 0x80;
    return n;
}

// Patterns to the line's end, `...` not among them: false when one is wrong.
static bool words_of(conf *c, const word **first, bool *open, buf *error) {
    const word **last = first;
    while (c->line.size) {
        node *at = arena_take(sizeof *at);
        word *one = arena_take(sizeof *one);
        if (at == NULL || one == NULL)
            return false;
        *at = next_word(c);
        *open = c->line.size == 0 && str_is(at->text, "...");
        if (*open)
            break;
        if (!pattern_of(at, at->text, &one->text, error))
            return false;
        *last = one;
        last = (const word **)&one->next;
    }
    return true;
}

// [namespace PATTERN ...]
static bool section_of(conf *c, const word **namespaces, buf *error) {
    node head = next_word(c);
    bool closed = c->line.size && c->line.at[c->line.size - 1] == ']', open = false;
    c->line.size -= closed;
    *namespaces = NULL;
    bool good = str_is(head.text, "[namespace") && closed;
    if (good && !words_of(c, namespaces, &open, error))
        return false;
    return (good && *namespaces) ||
           node_wrong(error, &head, "a section is [namespace PATTERN ...]");
}

static bool entry_of(conf *c, entry *e, buf *error) {
    node *at = arena_take(sizeof *at);
    if (at == NULL)
        return false;
    *at = next_word(c);
    e->any_image = str_is(at->text, "*");
    if (!image_pattern_of(at, at->text, &e->image, error))
        return false;
    e->digest = e->image.digest;
    if (e->digest.at) // it says all; a tag before it is for readers
        e->image.digest = e->image.tag = (str){0};
    e->restricted = c->line.size;
    return words_of(c, &e->arguments, &e->open, error);
}

static bool list_of(str config, entry **last, buf *error) {
    const word *namespaces = NULL;
    uint32_t count = 0;
    if (config.size > MAX_LIST)
        return nri_error(error, "line 1: the list has ", config.size,
                         " bytes, at most " DIGITS(MAX_LIST));
    buf_put_str(&list_text, config);
    for (conf c = conf_of(buf_str(&list_text)); conf_next(&c);) {
        if (c.line.at[0] == '[') {
            if (!section_of(&c, &namespaces, error))
                return false;
            continue;
        }
        if (++count > MAX_ENTRIES)
            return conf_error(error, c, "more than " DIGITS(MAX_ENTRIES) " images");
        entry *e = arena_take(sizeof *e);
        if (e == NULL || !entry_of(&c, e, error))
            return false;
        e->namespaces = namespaces;
        *last = e;
        last = &e->next;
    }
    return count || nri_error(error, "line 1: the list names no image; the line * allows every ",
                              "image");
}

static bool configure(str config, buf *error) {
    arena_reset();
    buf_clear(&list_text);
    programs_size = 0;
    entries = NULL;
    if (list_of(config, &entries, error))
        return true;
    entries = NULL;
    return false;
}

// ---- whether a container may run ----

typedef struct container {
    str pod, message, namespace;
    uint32_t fields; // of the message
    bool alone;      // Docker Engine's
    image image;
} container;

static const char *why; // of the last UNKNOWN, behind the image's name

static answer known_or(answer one, const char *reason) {
    if (one == UNKNOWN)
        why = reason;
    return one;
}

static answer any_word(const word *w, str text) {
    answer best = NO;
    for (; w && best != YES; w = w->next) {
        answer one = known_or(pattern_fits(&w->text, text),
                              " is in a namespace that takes too long to compare");
        best = one == NO ? best : one;
    }
    return best;
}

// The digest by which the image was resolved, or the image's id, which is as good.
static answer digest_fits(str wanted, const container *c) {
    str id = pb_at(c->message, NRI_CTR_IMAGE, NRI_IMAGE_CONFIG_DIGEST);
    if (id.size && glob_fits(wanted, id) == YES)
        return YES;
    answer fits = c->image.digest.size ? glob_fits(wanted, c->image.digest) : UNKNOWN;
    return known_or(fits, " is not on the list by its name, and the runtime does not tell its "
                          "digest; name it with @sha256:...");
}

static answer name_fits(const entry *e, const container *c) {
    if (!c->image.good)
        return known_or(UNKNOWN, " is no name of an image, so it is on no list");
    return known_or(image_fits(&e->image, &c->image), " takes too long to compare with the list");
}

static answer image_allowed(const entry *e, const container *c) {
    if (e->any_image)
        return YES;
    if (!e->digest.at)
        return name_fits(e, c);
    // `*@sha256:...`: the name need not be told.
    answer name = str_is(e->image.repository.glob, "*") ? YES : name_fits(e, c);
    answer digest = name == NO ? NO : digest_fits(e->digest, c);
    return digest == YES ? name : digest;
}

// Each argument by its own pattern.
static answer arguments_allowed(const entry *e, const container *c) {
    if (!e->restricted)
        return YES;
    const char *slow = " has arguments that take too long to compare";
    if (!steps(1 + 2 * c->fields))
        return known_or(UNKNOWN, slow);
    const word *w = e->arguments;
    answer all = YES;
    str rest = c->message;
    for (str argument; pb_next_of(&rest, NRI_CTR_ARGS, &argument); w = w->next) {
        answer one = w ? known_or(pattern_fits(&w->text, argument), slow) : NO;
        if (w == NULL && e->open)
            return all;
        if (one == NO)
            return NO;
        all = one == UNKNOWN ? UNKNOWN : all;
    }
    return w ? NO : all;
}

typedef enum { ALLOWED, NOT_LISTED, OTHER_ARGUMENTS, UNDECIDED } verdict;

static verdict judge(const container *c) {
    verdict best = NOT_LISTED;
    for (const entry *e = entries; e; e = e->next) {
        answer here = e->namespaces ? any_word(e->namespaces, c->namespace) : YES;
        answer listed = here == NO ? NO : image_allowed(e, c);
        answer fitting = listed == NO ? NO : arguments_allowed(e, c);
        if (here == YES && listed == YES && fitting == YES)
            return ALLOWED;
        if (here != NO && listed != NO && fitting != NO)
            best = UNDECIDED;
        else if (here == YES && listed == YES && best == NOT_LISTED)
            best = OTHER_ARGUMENTS;
    }
    return best;
}

// ---- why not ----

static void put_arguments(buf *out, str message) {
    uint32_t shown = 0;
    for (str argument; shown < 4 && pb_next_of(&message, NRI_CTR_ARGS, &argument); shown++)
        buf_put(out, " ", &argument);
    str argument;
    if (pb_next_of(&message, NRI_CTR_ARGS, &argument))
        buf_put(out, " ...");
}

static void put_reason(buf *out, verdict v, const container *c) {
    if (c->image.name.size == 0) {
        buf_put(out, "the runtime does not tell the image, so it is on no list");
        return;
    }
    buf_put(out, str_head(c->image.name, 200));
    if (v == OTHER_ARGUMENTS) {
        buf_put(out, " is on the list, but not with the arguments");
        put_arguments(out, c->message);
    } else {
        buf_put(out, v == UNDECIDED ? why : " is not on the list of images");
    }
}

// Judged within the steps that are left; false, with the reason in `why_not`.
static bool allowed(str pod, str message, container *c, buf *why_not) {
    *c = (container){.pod = pod, .message = message, .fields = fields_of(message)};
    if (c->fields + fields_of(pod) > MAX_FIELDS)
        return nri_error(why_not, "more than " DIGITS(MAX_FIELDS) " entries");
    c->alone = nri_has_no_pod(pod, message);
    c->namespace = pb_bytes(pod, NRI_POD_NAMESPACE);
    c->image = image_of(message, c->alone);
    verdict v = judge(c);
    if (v != ALLOWED)
        put_reason(why_not, v, c);
    return v == ALLOWED;
}

static void tell(const container *c, const char *runs, str reason) {
    nri_log(NRI_WARN, c->alone ? STR("") : nri_name(c->pod, NRI_POD_NAME), c->alone ? "" : "/",
            nri_name(c->message, NRI_CTR_NAME), runs, reason);
}

static bool create_container(str request, buf *reply) {
    container c;
    steps_left = MAX_STEPS;
    states_forget();
    str pod = pb_bytes(request, NRI_REQ_POD), message = pb_bytes(request, NRI_REQ_CONTAINER);
    bool good = allowed(pod, message, &c, reply);
    if (!good)
        tell(&c, ": ", buf_str(reply));
    return good;
}

// ---- containers that run already ----

#define MAX_TOLD 20 // lines of the log

// The id is the first field of a pod as runtimes write it, and then the others need no look.
static bool has_id(str pod, str id) {
    str rest = pod;
    pb_field first = {0};
    bool known = pb_next(&rest, &first) && first.number == NRI_POD_ID;
    return str_eq(known ? first.bytes : pb_bytes(pod, NRI_POD_ID), id);
}

static str pod_of(str request, str id) {
    for (str pod; pb_next_of(&request, NRI_SYNC_PODS, &pod);)
        if (has_id(pod, id))
            return pod;
    return (str){0};
}

// They go on; the log says which of them would be refused if they were created again. All of it
// has the steps of one event, so that what runs here cannot keep the plugin from starting.
static bool synchronize(str request, buf *reply) {
    uint32_t pods = 0, beside = 0, left = 0;
    steps_left = MAX_STEPS;
    states_forget();
    for (str rest = request, pod; pb_next_of(&rest, NRI_SYNC_PODS, &pod);)
        pods++;
    buf reason = {0};
    for (str rest = request, message; pb_next_of(&rest, NRI_SYNC_CONTAINERS, &message);) {
        container c;
        if (pb_uint(message, NRI_CTR_STATE) == NRI_STATE_STOPPED)
            continue;
        if (!steps(1 + pods)) {
            left++;
            continue;
        }
        buf_clear(&reason);
        str pod = pod_of(request, pb_bytes(message, NRI_CTR_POD_ID));
        if (!allowed(pod, message, &c, &reason) && steps_left && beside++ < MAX_TOLD)
            tell(&c, " runs already: ", buf_str(&reason));
    }
    buf_free(&reason);
    if (beside > MAX_TOLD)
        nri_log(NRI_WARN, beside - MAX_TOLD, " more run that are not allowed");
    if (left || !steps_left)
        nri_log(NRI_WARN, "too many run to compare them all with the list");
    return true;
}

NRI_PLUGIN(create_container, synchronize)
