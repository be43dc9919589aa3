//! The harness, the host's limits and hostile bytes, natively:
//! zig test --dep edge_nri -Mroot=harness.zig -Medge_nri=../edge_nri.zig

const std = @import("std");
const nri = @import("edge_nri");
const testing = std.testing;

const Limiter = struct {
    memory: ?i64 = null,

    pub fn configure(self: *Limiter, request: nri.Request(.configure)) !void {
        var lines = nri.conf.lines(request.get(.config));
        while (lines.next()) |line| {
            var words = line.words();
            const key = words.next().?;
            const size = nri.conf.size(words.next() orelse "");
            if (!std.mem.eql(u8, key, "memory") or size == null or words.next() != null)
                return line.fail("expected \"memory SIZE\", such as \"memory {s}\"", .{"64Mi"});
            self.memory = @intCast(size.?);
        }
    }

    pub fn create_container(
        self: *Limiter,
        request: nri.Request(.create_container),
        reply: *nri.Reply(.create_container),
    ) !void {
        const name = request.get(.container).get(.name);
        if (name.len == 0) return nri.fail("a container without a name", .{});
        const limit = self.memory orelse return;
        reply.put(.adjust, .{ .linux = .{ .resources = .{ .memory = .{ .limit = limit } } } });
        nri.log(.debug, "limited {s}", .{name});
    }

    pub fn post_create_container(_: *Limiter, request: nri.Request(.post_create_container)) !void {
        const key = request.get(.container).get(.name);
        const before = try nri.state.get(key) orelse "";
        const value = try nri.arena().alloc(u8, before.len + 30_000);
        @memset(value, 'x');
        try nri.state.put(key, value);
        try nri.report("kept", key, "text/plain");
    }
};

comptime {
    nri.plugin(Limiter);
}

const main_request: nri.nri.CreateContainerRequest = .{
    .container = .{ .name = "main" },
    .pod = .{ .id = "p", .labels = &.{.{ .key = "app", .value = "web" }} },
};

test "a setting becomes an adjustment" {
    var harness: nri.testing.Harness(Limiter) = .init();
    defer harness.deinit();
    try harness.configure("# of each\nmemory 64Mi");
    const reply = try harness.call(.create_container, main_request);
    const memory = reply.get(.adjust).get(.linux).get(.resources).get(.memory);
    try testing.expectEqual(64 << 20, memory.get(.limit));
    try testing.expectEqual(null, memory.get(.swap));
    try testing.expectEqualStrings("debug: limited main", harness.lines()[0]);
    try testing.expectEqual(0, harness.lines().len);
}

test "errors are texts with their line" {
    var harness: nri.testing.Harness(Limiter) = .init();
    defer harness.deinit();
    try testing.expectError(error.Refused, harness.configure("\nmemory much"));
    try testing.expectEqualStrings(
        "line 2: expected \"memory SIZE\", such as \"memory 64Mi\"",
        harness.failure(),
    );
    try testing.expectError(error.Refused, harness.call(.create_container, .{}));
    try testing.expectEqualStrings("a container without a name", harness.failure());
    try harness.configure("memory 9223372036854775807");
    try testing.expectEqual(std.math.maxInt(i64), harness.plugin.memory);
}

test "the state outlives an instance and has its limit" {
    var harness: nri.testing.Harness(Limiter) = .init();
    defer harness.deinit();
    const request: nri.nri.PostCreateContainerRequest = .{ .container = .{ .name = "main" } };
    _ = try harness.call(.post_create_container, request);
    harness.restart();
    _ = try harness.call(.post_create_container, request);
    try testing.expectError(error.Refused, harness.call(.post_create_container, request));
    try testing.expectEqualStrings(
        "the state takes 1024 keys of 256 bytes, 65536 in all",
        harness.failure(),
    );
    try testing.expectEqual(60_000, harness.state("main").?.len); // as it was before
    try testing.expectEqual(2, harness.reports().len);
    const large: [20_000]u8 = @splat(0);
    try testing.expectError(error.Refused, nri.report("large", &large, ""));
}

test "damaged requests are answered or refused" {
    var whole: nri.wire.Buf = .{};
    defer whole.deinit();
    nri.encode(nri.nri.CreateContainerRequest, &main_request, &whole);
    var harness: nri.testing.Harness(Limiter) = .init();
    defer harness.deinit();
    const damaged = try testing.allocator.dupe(u8, whole.bytes());
    defer testing.allocator.free(damaged);
    for (0..damaged.len) |at| {
        for (0..256) |byte| {
            damaged[at] = @intCast(byte);
            for ([_][]const u8{ damaged, damaged[0..at] }) |request| {
                _ = harness.send(.create_container, request) catch {
                    const said = harness.failure();
                    if (!std.mem.eql(u8, said, "malformed message"))
                        try testing.expectEqualStrings("a container without a name", said);
                };
            }
        }
        damaged[at] = whole.bytes()[at];
    }
}
