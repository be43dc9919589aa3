// Marks each container with the label "app" of its pod: an annotation and a variable.
#include "edge_nri.h"

static bool configure(str config, buf *error) {
    if (config.size)
        return nri_error(error, "this plugin has no settings, not even ", str_head(config, 40));
    return true;
}

static bool create_container(str request, buf *reply) {
    str pod = pb_bytes(request, NRI_REQ_POD);
    str name = pb_at(request, NRI_REQ_CONTAINER, NRI_CTR_NAME);
    str app = pb_map_get(pod, NRI_POD_LABELS, STR("app"));
    if (app.at == NULL)
        return true; // an empty reply: nothing to change

    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    pb_put_entry(reply, NRI_ADJ_ANNOTATIONS, STR("PLUGIN_NAME.example/app"), app);
    pb_put_entry(reply, NRI_ADJ_ENV, STR("APP"), app);
    pb_close(reply, adjust);
    nri_log(NRI_INFO, "marked ", name, " of ", app);
    return true;
}

NRI_PLUGIN(create_container)
