// Policies without programming: rules that say when they fit and what then comes of it.
// README.md and docs/rules.md tell the language.

#include "adjustment.h"

// ---- one event ----

// A refusal: an error, or of a validator its verdict. False where it is an error.
static bool refuse(buf *reply, const event *e, const buf *why) {
    buf_clear(&line);
    buf_put(&line, "refused: ", buf_str(why));
    tell(e, NRI_WARN, buf_str(&line), NULL);
    buf_clear(reply);
    if (e->bit != NRI_EVENTS_validate_container_adjustment)
        return nri_error(reply, buf_str(why));
    pb_put_uint(reply, 1, true);
    pb_put_str(reply, 2, buf_str(why));
    return true;
}

// Which rules fit; false when one of them cannot be decided, with `why`.
static bool judge(event *e, buf *why) {
    steps_left = MAX_STEPS;
    states_forget();
    effect_count = 0, effects_many = false;
    buf_clear(&effects_held);
    for (rule *r = rules; r; r = r->next) {
        answer fits = r->events & e->bit ? rule_fits(r, e) : NO;
        bool changes = fits == YES && e->bit == NRI_EVENTS_create_container;
        r->fits = fits == YES;
        if (changes)
            fits = collect(e, r);
        if (fits != UNKNOWN || (r->skip && !changes))
            continue;
        r->fits = false;
        if (e->bit & REFUSABLE) {
            put_undecided(why, r);
            return false;
        }
        buf_clear(&line);
        put_undecided(&line, r);
        tell(e, NRI_WARN, buf_str(&line), NULL);
    }
    const effect *part = changed_in_part(e);
    if (part) {
        (void)unknown(kind_names[part->kind], " ", &part->key, " is there twice");
        put_undecided(why, part->by);
    }
    return part == NULL;
}

// What rules say, and the last `deny`; true when there is one, with its text in `why`.
static bool speak(event *e, buf *why) {
    const rule *deny = NULL;
    buf text = {0};
    for (const rule *r = rules; r; r = r->next) {
        if (!r->fits || (r->usual && e->bit != NRI_EVENTS_create_container))
            continue;
        if (r->deny && e->bit & REFUSABLE)
            deny = text_is(r->deny, "none") ? NULL : r;
        if (r->log && !text_is(r->log, "none")) {
            buf_clear(&text);
            put_expanded(&text, e, r->log->text, SHOWN);
            tell(e, NRI_INFO, buf_str(&text), r);
        }
        if (r->report && !text_is(r->report, "none")) {
            buf_clear(&text);
            put_who(&text, e);
            put_expanded(&text, e, r->report->text, SHOWN);
            edge_report(r->name->text, buf_str(&text), STR("text/plain"));
        }
    }
    buf_free(&text);
    if (deny) {
        put_expanded(why, e, deny->deny->text, SHOWN);
        buf_put(why, " (rule ", &deny->name->text, ", line ", deny->line, ")");
    }
    return deny != NULL;
}

static bool handle(uint32_t bit, str pod, str container, str resources, buf *reply) {
    event e = {.bit = bit, .pod = pod, .container = container, .resources = resources,
               .fields = {fields_of(pod), fields_of(container)}};
    if (e.fields[0] + e.fields[1] > MAX_FIELDS)
        return nri_error(reply, "more than " DIGITS(MAX_FIELDS) " entries");
    e.alone = nri_has_no_pod(pod, container);
    e.pod_name = nri_name(pod, NRI_POD_NAME), e.name = nri_name(container, NRI_CTR_NAME);
    buf why = {0};
    if (container.at)
        e.image = image_of(container, e.alone);
    bool refused = !judge(&e, &why) || speak(&e, &why), good = true;
    if (refused)
        good = refuse(reply, &e, &why);
    else if (bit == NRI_EVENTS_create_container)
        good = adjust(reply, &e);
    else if (bit == NRI_EVENTS_update_container)
        good = update(reply, &e);
    buf_free(&why);
    return good;
}

// ---- methods ----

static bool handle_request(uint32_t bit, str request, buf *reply) {
    str container = {0}, resources = {0};
    if (!(bit & POD_EVENTS)) // field 2 is something else there
        container = pb_bytes(request, NRI_REQ_CONTAINER);
    if (bit == NRI_EVENTS_update_container)
        resources = pb_bytes(request, NRI_UPDATE_REQ_RESOURCES);
    return handle(bit, pb_bytes(request, NRI_REQ_POD), container, resources, reply);
}

#define METHOD(name)                                                                               \
    static bool name(str request, buf *reply) {                                                    \
        return handle_request(NRI_EVENTS_##name, request, reply);                                  \
    }
EVENTS(METHOD)

// Most events of runtimes before NRI 0.12.
static bool state_change(str request, buf *reply) {
    uint64_t number = pb_uint(request, NRI_STATE_EVENT);
    uint32_t bit = number > 0 && number <= 14 ? NRI_EVENT(number) : 0;
    str container = bit & POD_EVENTS ? (str){0} : pb_bytes(request, NRI_STATE_CONTAINER);
    return bit & NRI_EVENTS_state_change
               ? handle(bit, pb_bytes(request, NRI_STATE_POD), container, (str){0}, reply)
               : true;
}

// ---- configuration ----

static uint32_t policy_events;

static bool configure(str config, buf *error) { return policy_read(config, &policy_events, error); }

// Of all that is exported, what the rules ask for. A runtime takes an empty mask for all.
static uint32_t nri_events(void) {
    return policy_events ? policy_events : NRI_EVENTS_create_container;
}

static bool rules_configure(str request, buf *reply) {
    buf_clear(&policy_runtime);
    buf_put(&policy_runtime, pb_bytes(request, 2));
    return nri_configure(request, reply);
}

NRI_METHOD(configure, rules_configure)
BUF_EXPAND(NRI_EACH_METHOD(run_pod_sandbox, stop_pod_sandbox, remove_pod_sandbox,
                           update_pod_sandbox, post_update_pod_sandbox, create_container,
                           post_create_container, start_container, post_start_container,
                           update_container, post_update_container, stop_container,
                           remove_container, validate_container_adjustment, state_change))
