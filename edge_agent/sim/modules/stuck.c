// For the demonstration: a plugin that never comes back from a container's creation.
#include "edge_nri.h"

static volatile bool forever = true;

static bool configure(str config, buf *error) { return true; }

static bool create_container(str request, buf *reply) {
    while (forever) {
    }
    return true;
}

NRI_PLUGIN(create_container)
