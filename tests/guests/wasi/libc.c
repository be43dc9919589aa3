// A guest with a whole C library (wasi-libc, which comes with zig): what Configure's
// text names is done with it, and what came of it is printed.

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

#define EXPORT(name) __attribute__((export_name(name)))

// Taking their addresses imports them, with the types that the library has for them.
static const void *volatile everything[] = {
    __wasi_args_get, __wasi_args_sizes_get, __wasi_environ_get, __wasi_environ_sizes_get,
    __wasi_clock_res_get, __wasi_clock_time_get, __wasi_fd_advise, __wasi_fd_allocate,
    __wasi_fd_close, __wasi_fd_datasync, __wasi_fd_fdstat_get, __wasi_fd_fdstat_set_flags,
    __wasi_fd_fdstat_set_rights, __wasi_fd_filestat_get, __wasi_fd_filestat_set_size,
    __wasi_fd_filestat_set_times, __wasi_fd_pread, __wasi_fd_prestat_get,
    __wasi_fd_prestat_dir_name, __wasi_fd_pwrite, __wasi_fd_read, __wasi_fd_readdir,
    __wasi_fd_renumber, __wasi_fd_seek, __wasi_fd_sync, __wasi_fd_tell, __wasi_fd_write,
    __wasi_path_create_directory, __wasi_path_filestat_get, __wasi_path_filestat_set_times,
    __wasi_path_link, __wasi_path_open, __wasi_path_readlink, __wasi_path_remove_directory,
    __wasi_path_rename, __wasi_path_symlink, __wasi_path_unlink_file, __wasi_poll_oneoff,
    __wasi_proc_exit, __wasi_sched_yield, __wasi_random_get, __wasi_sock_accept,
    __wasi_sock_recv, __wasi_sock_send, __wasi_sock_shutdown,
};

static void print(void) {
    printf("to stdout %d\n", 42);
    fprintf(stderr, "to stderr %.1f\n", 0.5);
    printf("no newline");
    fflush(stdout);
}

static void get_environment(void) { puts(getenv("HOME") ? "HOME is set" : "HOME is not set"); }

static void open_files(void) {
    FILE *file = fopen("/etc/passwd", "r");
    printf("fopen: %s\n", file || errno == 0 ? "opened" : "no file");
    DIR *folder = opendir(".");
    printf("opendir: %s\n", folder || errno == 0 ? "opened" : "no folder");
}

static void read_stdin(void) { puts(getchar() == EOF && feof(stdin) ? "end of file" : "text"); }

static void look_at_clock(void) {
    struct timespec before, after;
    int failed = clock_gettime(CLOCK_MONOTONIC, &before);
    for (int i = 0; i < 1000 && !failed; i++)
        failed = clock_gettime(CLOCK_MONOTONIC, &after) ||
                 after.tv_sec < before.tv_sec; // never backwards
    puts(failed ? "no clock" : "time passes");
}

static void look_at_time(void) { puts(time(NULL) > 1577836800 ? "after 2020" : "before 2020"); }

static void take_random(void) {
    unsigned char bytes[64] = {0}, zero[64] = {0};
    puts(getentropy(bytes, sizeof bytes) == 0 && memcmp(bytes, zero, sizeof zero) ? "random"
                                                                                  : "not random");
}

static void take_a_nap(void) { puts(usleep(1000) == 0 ? "slept" : "did not sleep"); }
static void sleep_long(void) { sleep(1000000); }
static void leave(void) { exit(3); }
static void give_up(void) { abort(); }

static const struct {
    const char *name;
    void (*run)(void);
} things[] = {
    {"print", print},           {"getenv", get_environment}, {"open", open_files},
    {"stdin", read_stdin},      {"clock", look_at_clock},    {"time", look_at_time},
    {"random", take_random},    {"sleep", take_a_nap},       {"sleep long", sleep_long},
    {"exit", leave},            {"abort", give_up},
};

EXPORT("plugin_api_version") uint64_t api_version(void) {
    for (size_t i = 0; i < sizeof everything / sizeof *everything; i++)
        if (everything[i] == NULL)
            return 0;
    return 1;
}

// ConfigureRequest { config = 1 }, shorter than 128 bytes, as the first field.
EXPORT("plugin_configure") uint64_t configure(const char *request, uint32_t size) {
    for (size_t i = 0; size > 2 && i < sizeof things / sizeof *things; i++)
        if ((size_t)request[1] == strlen(things[i].name) &&
            memcmp(request + 2, things[i].name, (size_t)request[1]) == 0)
            things[i].run();
    return 0;
}
