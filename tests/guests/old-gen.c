// A plugin as written for NRI before 0.12: pod and container events only through
// StateChange, no own methods for them, no validation.

#include "edge_nri.h"

static bool configure(str config, buf *error) { return true; }

static bool synchronize(str request, buf *reply) { return true; }

static bool create_container(str request, buf *reply) {
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    pb_put_entry(reply, NRI_ADJ_ANNOTATIONS, STR("edge.test/old-gen"), STR("seen"));
    pb_close(reply, adjust);
    return true;
}

static bool update_container(str request, buf *reply) { return true; }

static bool stop_container(str request, buf *reply) { return true; }

static bool state_change(str request, buf *reply) {
    nri_log(NRI_INFO, "event ", pb_uint(request, NRI_STATE_EVENT), " pod ",
            pb_at(request, NRI_STATE_POD, NRI_POD_NAME), " container ",
            pb_at(request, NRI_STATE_CONTAINER, NRI_CTR_NAME));
    return true;
}

NRI_PLUGIN(synchronize, create_container, update_container, stop_container, state_change)
