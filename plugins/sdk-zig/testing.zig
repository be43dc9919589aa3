//! Runs a plugin in a native test, without WebAssembly: `zig test`.
//!
//!     var harness: nri.testing.Harness(Marker) = .init();
//!     defer harness.deinit();
//!     try harness.configure("");
//!     const reply = try harness.call(.create_container, .{
//!         .pod = .{ .labels = &.{.{ .key = "app", .value = "web" }} },
//!     });
//!     const marked = reply.get(.adjust).get(.annotations).get("example/app");
//!     try std.testing.expectEqualStrings("web", marked.?);
//!     try std.testing.expectEqualStrings("info: marked", harness.lines()[0]);
//!
//! One host serves all tests of a file, which run one after the other.

const std = @import("std");
const nri = @import("edge_nri.zig");
const message = @import("message.zig");
const types = @import("nri.zig");
const wire = @import("wire.zig");
const Buf = wire.Buf;

/// What a plugin said to its host.
pub const Report = struct { kind: []const u8, payload: []const u8, content_type: []const u8 };

const Host = struct {
    lines: std.ArrayList([]const u8) = .empty,
    reports: std.ArrayList(Report) = .empty,
    updates: std.ArrayList(message.Reader(types.UpdateContainersRequest)) = .empty,
    state: std.StringArrayHashMapUnmanaged([]const u8) = .empty,
    failure: []const u8 = "",
};

var memory: std.heap.ArenaAllocator = .init(wire.gpa);
var host: Host = .{};

/// One instance of a plugin, and its host.
pub fn Harness(comptime Plugin: type) type {
    return struct {
        plugin: *Plugin,

        const Self = @This();

        /// A new plugin, and a host without state.
        pub fn init() Self {
            forget();
            const plugin = nri.instance(Plugin);
            plugin.* = .{};
            return .{ .plugin = plugin };
        }

        /// What the harness gave is gone with it.
        pub fn deinit(_: *Self) void {
            forget();
        }

        /// A new instance of the plugin, which has the state of the one before.
        pub fn restart(self: *Self) void {
            self.plugin.* = .{};
        }

        /// error.Refused: `failure` is the text of the error reply.
        pub fn configure(self: *Self, config: []const u8) error{Refused}!void {
            _ = try self.call(.configure, .{ .config = config });
        }

        /// Calls a method with a request: the reply, to be read. error.Refused.
        pub fn call(
            self: *Self,
            comptime method: nri.Method,
            request: types.RequestOf(method),
        ) error{Refused}!message.Reader(types.ReplyOf(method)) {
            var bytes: Buf = .{};
            defer bytes.deinit();
            message.encode(types.RequestOf(method), &request, &bytes);
            return .{ .bytes = try self.send(method, bytes.bytes()) };
        }

        /// As the host calls it: any bytes, and the reply's. error.Refused.
        pub fn send(
            _: *Self,
            comptime method: nri.Method,
            request: []const u8,
        ) error{Refused}![]const u8 {
            var answer = nri.answer(nri.rawOf(Plugin, method), request);
            defer answer.buf.deinit();
            const said = kept(answer.buf.bytes());
            if (!answer.failed) return said;
            host.failure = said;
            return error.Refused;
        }

        /// The text of the last error reply.
        pub fn failure(_: *Self) []const u8 {
            return host.failure;
        }

        /// Log lines since the last time, as "level: text".
        pub fn lines(_: *Self) []const []const u8 {
            return taken([]const u8, &host.lines);
        }

        /// Reports since the last time.
        pub fn reports(_: *Self) []const Report {
            return taken(Report, &host.reports);
        }

        /// Requests for updates since the last time.
        pub fn updates(_: *Self) []const message.Reader(types.UpdateContainersRequest) {
            return taken(message.Reader(types.UpdateContainersRequest), &host.updates);
        }

        pub fn state(_: *Self, key: []const u8) ?[]const u8 {
            return host.state.get(key);
        }
    };
}

fn forget() void {
    host = .{};
    _ = memory.reset(.free_all);
}

fn kept(bytes: []const u8) []u8 {
    return memory.allocator().dupe(u8, bytes) catch @panic("out of memory");
}

fn add(comptime T: type, list: *std.ArrayList(T), item: T) void {
    list.append(memory.allocator(), item) catch @panic("out of memory");
}

fn taken(comptime T: type, list: *std.ArrayList(T)) []const T {
    defer list.* = .empty;
    return list.items;
}

/// The host's functions as an agent would answer them, with its limits (docs/plugins.md).
pub const call = struct {
    const report_bytes = 16 << 10;
    const state_bytes = 64 << 10;
    const state_keys = 1024;
    const key_bytes = 256;

    const Error = error{ Refused, OutOfMemory };

    pub fn log(request: *const Buf) Error![]u8 {
        const line = try Asked.read(request);
        const level = switch (line.number) {
            1 => "debug",
            2 => "info",
            3 => "warn",
            else => "error",
        };
        add([]const u8, &host.lines, try std.fmt.allocPrint(
            memory.allocator(),
            "{s}: {s}",
            .{ level, line.texts[0] },
        ));
        return &.{};
    }

    pub fn report(request: *const Buf) Error![]u8 {
        const kind, const payload, const content_type = (try Asked.read(request)).texts;
        if (payload.len > report_bytes)
            return nri.fail("a report of {d} bytes, at most {d}", .{ payload.len, report_bytes });
        add(Report, &host.reports, .{
            .kind = kept(kind),
            .payload = kept(payload),
            .content_type = kept(content_type),
        });
        return &.{};
    }

    pub fn update_containers(request: *const Buf) Error![]u8 {
        if (request.full) return error.OutOfMemory;
        add(message.Reader(types.UpdateContainersRequest), &host.updates, .{
            .bytes = kept(request.bytes()),
        });
        return &.{};
    }

    pub fn state_get(request: *const Buf) Error![]u8 {
        const key = (try Asked.read(request)).texts[0];
        var reply: Buf = .{};
        defer reply.deinit();
        if (host.state.get(key)) |value| {
            reply.putBytes(1, value);
            reply.putNumber(2, 1);
        }
        return kept(reply.bytes());
    }

    pub fn state_put(request: *const Buf) Error![]u8 {
        const key, const value, _ = (try Asked.read(request)).texts;
        if (value.len == 0) {
            _ = host.state.swapRemove(key);
            return &.{};
        }
        var all = key.len + value.len;
        var keys: usize = 1;
        for (host.state.keys(), host.state.values()) |other, its| {
            if (std.mem.eql(u8, other, key)) continue; // as it will not be there
            all += other.len + its.len;
            keys += 1;
        }
        if (key.len == 0 or key.len > key_bytes or keys > state_keys or all > state_bytes)
            return nri.fail(
                "the state takes {d} keys of {d} bytes, {d} in all",
                .{ state_keys, key_bytes, state_bytes },
            );
        try host.state.put(memory.allocator(), kept(key), kept(value));
        return &.{};
    }

    /// The fields of a request to the host: texts 1 to 3, and one number.
    const Asked = struct {
        texts: [3][]const u8 = @splat(""),
        number: u64 = 0,

        fn read(request: *const Buf) Error!Asked {
            if (request.full) return error.OutOfMemory;
            var asked: Asked = .{};
            var fields: wire.Fields = .{ .rest = request.bytes() };
            while (fields.next()) |field| switch (field.content) {
                .bytes => |bytes| if (field.number <= 3) {
                    asked.texts[field.number - 1] = bytes;
                },
                .varint => |value| asked.number = value,
                else => {},
            };
            return asked;
        }
    };
};
