// Which part of a program callgrind counts (Valgrind Manual, "Callgrind specific client requests").
// Harmless where the program runs without it.

#include <valgrind/callgrind.h>

void count_begin(void) {
  CALLGRIND_ZERO_STATS;
  CALLGRIND_START_INSTRUMENTATION;
}

// What was counted since goes into a file of its own, with this name in it.
void count_end(const char *name) {
  CALLGRIND_STOP_INSTRUMENTATION;
  CALLGRIND_DUMP_STATS_AT(name);
}
