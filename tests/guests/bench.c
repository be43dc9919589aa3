// The benchmark's plugin: one annotation, one variable, one log line.

#include "edge_nri.h"

static bool configure(str config, buf *error) { return true; }

static bool create_container(str request, buf *reply) {
    str name = pb_at(request, NRI_REQ_CONTAINER, NRI_CTR_NAME);
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    pb_put_entry(reply, NRI_ADJ_ANNOTATIONS, STR("edge.bench/plugin"), STR("c"));
    pb_put_entry(reply, NRI_ADJ_ENV, STR("EDGE_BENCH"), STR("c")); // a KeyValue is alike
    pb_close(reply, adjust);
    nri_log(NRI_INFO, "adjusted ", name);
    return true;
}

NRI_PLUGIN(create_container)
