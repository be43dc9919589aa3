// What rules say: texts with $(...), and lines of the log.

#ifndef RULES_TEXTS_H
#define RULES_TEXTS_H

#include "facts.h"

enum { SHOWN = 200 }; // bytes of a value in a line of log, a report or a refusal

static void put_expanded(buf *out, const event *e, str text, uint32_t longest) {
    while (text.size) {
        str before = str_cut(&text, '$');
        bool dollar = before.at + before.size < text.at; // or the text's end
        buf_put(out, before);
        if (!str_starts(text, STR("("))) {
            buf_put(out, dollar ? "$" : "");
            continue;
        }
        text = str_from(text, 1);
        str name = str_cut(&text, ')'), words = name, first = str_word(&words), value = {0};
        if (str_is(name, "namespace"))
            value = pb_bytes(e->pod, NRI_POD_NAMESPACE);
        else if (str_is(name, "pod"))
            value = e->pod_name;
        else if (str_is(name, "container"))
            value = e->name;
        else if (str_is(name, "image"))
            value = e->image.name;
        else if (str_is(first, "label"))
            value = pb_map_get(e->pod, NRI_POD_LABELS, words);
        else
            value = pb_map_get(e->pod, NRI_POD_ANNOTATIONS, words);
        buf_put(out, str_head(value, longest));
    }
}

// "pod/container: ", or the one of them that there is.
static void put_who(buf *out, const event *e) {
    str pod = e->alone ? STR("") : e->pod_name;
    buf_put(out, pod, pod.size && e->name.size ? "/" : "", e->name, ": ");
}

static buf line; // that is put together for the log

static void tell(const event *e, uint32_t level, str text, const rule *by) {
    pb_put_uint(&nri_out, 2, level);
    uint32_t said = pb_open(&nri_out, 1);
    put_who(&nri_out, e);
    buf_put(&nri_out, text);
    if (by)
        buf_put(&nri_out, " (rule ", &by->name->text, ")");
    pb_close(&nri_out, said);
    nri_tell(nri_host_log, &nri_out);
}

// "WHAT NAME END", by a rule.
static void tell_change(const event *e, const char *what, str name, const char *end,
                        const rule *by) {
    buf_clear(&line);
    buf_put(&line, what, " ", str_head(name, SHOWN), end);
    tell(e, NRI_INFO, buf_str(&line), by);
}

static void put_undecided(buf *out, const rule *r) {
    buf_put(out, "rule ", &r->name->text, " (line ", r->line,
            ") cannot be decided: ", buf_str(&unknown_why));
}

#endif
