// Correct but for the ABI version, which no host knows.

#define API_VERSION 2
#include "hostile.c"
