// The least that a plugin can do: one read, one writev, a constant answer.
//
//   floor SOCKET REGISTER CONFIGURED CREATED
//
// connects to an NRI socket and serves until the runtime hangs up. The three are whole bodies of
// ttRPC messages in hexadecimal digits: the request that registers the plugin, and the answers to
// Configure and to CreateContainer. All else is answered empty. The request itself is not read
// beyond the name of its method. For a benchmark: what is not as expected ends the program.
//
// Frames of the mux: u32 connection, u32 length. Header of ttRPC: u32 length, u32 stream, u8 type,
// u8 flags. All big endian (containerd/nri pkg/net/multiplex, containerd/ttrpc PROTOCOL.md).

#include <arpa/inet.h>
#include <err.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { PLUGIN = 1, RUNTIME = 2 };    // connections of the mux
enum { REQUEST = 1, RESPONSE = 2 };  // types of ttRPC
enum { FRAME = 8, HEADER = 10, LARGEST = 8 << 20, SMALL = 1 << 16 };

typedef struct {
    uint8_t data[SMALL];
    size_t size;
} body;

// A message that arrives on one connection, in as many frames as the runtime likes.
typedef struct {
    uint8_t *data;
    size_t size;
} message;

static int runtime;
static body registered, configured, created, empty;

static uint32_t get32(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return ntohl(value);
}

static void put32(uint8_t *to, uint32_t value) {
    value = htonl(value);
    memcpy(to, &value, sizeof value);
}

static void read_hex(body *to, const char *digits) {
    for (unsigned byte; sscanf(digits, "%2x", &byte) == 1; digits += 2) {
        if (to->size == sizeof to->data) errx(2, "an answer has more than %d bytes", SMALL);
        to->data[to->size++] = (uint8_t)byte;
    }
}

// Header and body in frames of their own, as upstream's reader wants them.
static void send_message(uint32_t connection, uint32_t stream, uint8_t type, body *sent) {
    uint8_t head[FRAME + HEADER + FRAME];
    put32(head, connection);
    put32(head + 4, HEADER);
    put32(head + FRAME, (uint32_t)sent->size);
    put32(head + FRAME + 4, stream);
    head[FRAME + 8] = type;
    head[FRAME + 9] = 0;
    put32(head + FRAME + HEADER, connection);
    put32(head + FRAME + HEADER + 4, (uint32_t)sent->size);
    struct iovec parts[] = {
        {head, sent->size ? sizeof head : FRAME + HEADER},
        {sent->data, sent->size},
    };
    size_t whole = parts[0].iov_len + parts[1].iov_len;
    if (writev(runtime, parts, 2) != (ssize_t)whole) err(1, "writev");
}

// ttRPC's Request begins with the service (1), then the method (2), both short strings.
static bool is_method(const uint8_t *request, size_t size, const char *name) {
    size_t at = 2 + (size > 1 ? request[1] : 0), length = strlen(name);
    return at + 2 + length <= size && request[at] == 0x12 && request[at + 1] == length &&
           memcmp(request + at + 2, name, length) == 0;
}

static void answer(uint32_t stream, const uint8_t *request, size_t size) {
    body *with = is_method(request, size, "CreateContainer") ? &created
                 : is_method(request, size, "Configure")     ? &configured
                                                             : &empty;
    send_message(PLUGIN, stream, RESPONSE, with);
}

// One frame's payload; answers what has become whole by it.
static void take(uint32_t connection, const uint8_t *payload, size_t size) {
    static message arriving[3];
    if (connection != PLUGIN && connection != RUNTIME) errx(1, "connection %u", connection);
    message *to = &arriving[connection];
    if (to->data == NULL && (to->data = malloc(LARGEST)) == NULL) err(1, "malloc");
    if (size > LARGEST - to->size) errx(1, "a message of more than %d bytes", LARGEST);
    memcpy(to->data + to->size, payload, size);
    to->size += size;
    while (to->size >= HEADER) {
        size_t length = get32(to->data), whole = HEADER + length;
        if (to->size < whole) return;
        if (connection == PLUGIN && to->data[8] == REQUEST)
            answer(get32(to->data + 4), to->data + HEADER, length);
        memmove(to->data, to->data + whole, to->size - whole);
        to->size -= whole;
    }
}

int main(int count, char **words) {
    static uint8_t input[LARGEST];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (count != 5) errx(2, "SOCKET REGISTER CONFIGURED CREATED");
    if (strlen(words[1]) >= sizeof address.sun_path) errx(2, "%s: too long", words[1]);
    strcpy(address.sun_path, words[1]);
    read_hex(&registered, words[2]);
    read_hex(&configured, words[3]);
    read_hex(&created, words[4]);
    runtime = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (runtime < 0 || connect(runtime, (struct sockaddr *)&address, sizeof address) != 0)
        err(1, "%s", words[1]);
    send_message(RUNTIME, 1, REQUEST, &registered);
    for (size_t have = 0;;) {
        ssize_t got = read(runtime, input + have, sizeof input - have);
        if (got <= 0) return got < 0;
        have += (size_t)got;
        size_t at = 0;
        while (have - at >= FRAME && have - at - FRAME >= get32(input + at + 4)) {
            take(get32(input + at), input + at + FRAME, get32(input + at + 4));
            at += FRAME + get32(input + at + 4);
        }
        if (at == 0 && have == sizeof input) errx(1, "a frame of more than %d bytes", LARGEST);
        memmove(input, input + at, have - at);
        have -= at;
    }
}
