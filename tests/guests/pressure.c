// Uses what the agent calls by time and pressure, in ways a test can see.
//
// on_timer reports the interval and the memory's pressure; on_pressure reports what is exceeded, or
// `over`, and lowers the memory of the container that was created with the annotation
// `edge.test/victim`. Configured with `trap`, `loop` or `error`, both do that.

#include "edge_nri.h"

static const char victim[] = "victim";
static buf behaviour;

static bool configure(str config, buf *error) {
    buf_clear(&behaviour);
    buf_put_str(&behaviour, str_trim(config));
    return true;
}

static bool create_container(str request, buf *reply) {
    str container = pb_bytes(request, NRI_REQ_CONTAINER);
    if (pb_map_get(container, NRI_CTR_ANNOTATIONS, STR("edge.test/victim")).at)
        edge_state_put(str_of(victim), pb_bytes(container, NRI_CTR_ID));
    return true;
}

static bool behaves(buf *reply) {
    if (str_is(buf_str(&behaviour), "trap"))
        __builtin_trap();
    for (volatile bool on = str_is(buf_str(&behaviour), "loop"); on;) {
    }
    return !str_is(buf_str(&behaviour), "error") || nri_error(reply, "refused on request");
}

static void lower(str id) {
    buf request = {0};
    uint32_t update = pb_open(&request, NRI_UPDATED_UPDATE);
    pb_put_str(&request, NRI_UPDATE_CONTAINER_ID, id);
    uint32_t linux = pb_open(&request, NRI_UPDATE_LINUX);
    uint32_t resources = pb_open(&request, NRI_UPDATE_LINUX_RESOURCES);
    uint32_t memory = pb_open(&request, NRI_RES_MEMORY);
    pb_put_optional(&request, NRI_MEMORY_LIMIT, 32 << 20);
    pb_close(&request, memory);
    pb_close(&request, resources);
    pb_close(&request, linux);
    pb_close(&request, update);
    edge_update_containers(&request);
    buf_free(&request);
}

static bool on_timer(str request, buf *reply) {
    buf text = {0};
    str memory = pb_at(request, EDGE_REQ_BOARD, EDGE_BOARD_MEMORY);
    buf_put(&text, pb_uint(request, EDGE_TIMER_INTERVAL_MS), " ", pb_uint(memory, EDGE_SOME_10));
    edge_report(STR("timer"), buf_str(&text), STR("text/plain"));
    buf_free(&text);
    return behaves(reply);
}

static bool on_pressure(str request, buf *reply) {
    buf text = {0}, id = {0};
    str rest = request;
    for (str each; pb_next_of(&rest, EDGE_PRESSURE_EXCEEDED, &each);) {
        str reading = pb_bytes(each, EDGE_EXCEEDED_READING);
        buf_put(&text, reading, " ", pb_uint(each, EDGE_EXCEEDED_VALUE), " above ",
                pb_uint(each, EDGE_EXCEEDED_THRESHOLD), "; ");
    }
    if (text.size && edge_state_get(str_of(victim), &id))
        lower(buf_str(&id));
    if (!text.size)
        buf_put(&text, "over");
    edge_report(STR("pressure"), buf_str(&text), STR("text/plain"));
    buf_free(&text);
    buf_free(&id);
    return behaves(reply);
}

EDGE_METHOD(on_timer)
EDGE_METHOD(on_pressure)
NRI_PLUGIN(create_container)
