// Uses every function of the host module `edge`, in ways a test can see.
//
// CreateContainer adds one to the counter in the state, writes it into the
// annotation `edge.test/count` and reports it. The container's annotation
// `edge.test/update: ID SIZE` asks for a memory limit of another container;
// `edge.test/forget: yes` deletes the counter.

#include "edge_nri.h"

static const char counter[] = "count";

static bool configure(str config, buf *error) { return true; }

static uint64_t count(void) {
    buf text = {0};
    uint64_t number;
    edge_state_get(str_of(counter), &text);
    if (!conf_uint(buf_str(&text), &number))
        number = 0;
    number++;
    buf_clear(&text);
    buf_put(&text, number);
    if (!edge_state_put(str_of(counter), buf_str(&text)))
        nri_log(NRI_WARN, "the count was not kept");
    buf_free(&text);
    return number;
}

static void ask_for_update(str wish) {
    buf request = {0};
    str id = str_word(&wish);
    uint64_t bytes;
    if (!conf_size(wish, &bytes)) {
        nri_log(NRI_WARN, "edge.test/update wants ID SIZE");
        return;
    }
    uint32_t update = pb_open(&request, NRI_UPDATED_UPDATE);
    pb_put_str(&request, NRI_UPDATE_CONTAINER_ID, id);
    uint32_t linux = pb_open(&request, NRI_UPDATE_LINUX);
    uint32_t resources = pb_open(&request, NRI_UPDATE_LINUX_RESOURCES);
    uint32_t memory = pb_open(&request, NRI_RES_MEMORY);
    pb_put_optional(&request, NRI_MEMORY_LIMIT, bytes);
    pb_close(&request, memory);
    pb_close(&request, resources);
    pb_close(&request, linux);
    pb_close(&request, update);
    if (!edge_update_containers(&request))
        nri_log(NRI_WARN, "the update was refused");
    buf_free(&request);
}

static bool create_container(str request, buf *reply) {
    str container = pb_bytes(request, NRI_REQ_CONTAINER);
    str wish = pb_map_get(container, NRI_CTR_ANNOTATIONS, STR("edge.test/update"));
    if (wish.at)
        ask_for_update(wish);
    if (pb_map_get(container, NRI_CTR_ANNOTATIONS, STR("edge.test/forget")).at)
        edge_state_put(str_of(counter), STR(""));

    buf number = {0};
    buf_put(&number, count());
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    pb_put_entry(reply, NRI_ADJ_ANNOTATIONS, STR("edge.test/count"), buf_str(&number));
    pb_close(reply, adjust);
    if (!edge_report(STR("count"), buf_str(&number), STR("text/plain")))
        nri_log(NRI_WARN, "the report was refused");
    buf_free(&number);
    return true;
}

NRI_PLUGIN(create_container)
