//! What a plugin asks of its host: log lines, reports, state, updates of other containers.

const builtin = @import("builtin");
const nri = @import("edge_nri.zig");
const guest = @import("guest.zig");
const message = @import("message.zig");
const types = @import("nri.zig");
const wire = @import("wire.zig");
const Buf = wire.Buf;

pub const Level = enum(u8) { debug = 1, info, warn, err };

/// Writes a line to the agent's log. A line that the host drops, because there are too many, is
/// nothing that a plugin could mend.
pub fn log(level: Level, comptime format: []const u8, arguments: anytype) void {
    var request: Buf = .{};
    // The level goes first: a host that cuts a long line then still has it.
    request.putNumber(2, @backingInt(level));
    const text = request.open(1);
    request.print(format, arguments);
    request.close(text);
    defer request.deinit();
    if (call.log(&request)) |reply| release(reply) else |_| {}
}

/// Publishes a result of the plugin's own making, with the event that is running.
pub fn report(kind: []const u8, payload: []const u8, content_type: []const u8) !void {
    var request: Buf = .{};
    defer request.deinit();
    request.putBytes(1, kind);
    request.putBytes(2, payload);
    request.putBytes(3, content_type);
    release(try call.report(&request));
}

/// Asks for updates of containers other than the event's, sent after the event has been answered.
pub fn updateContainers(asked: types.UpdateContainersRequest) !void {
    var request: Buf = .{};
    defer request.deinit();
    message.encode(types.UpdateContainersRequest, &asked, &request);
    release(try call.update_containers(&request));
}

/// Keys and values that outlive the instance: 64 KiB in all.
pub const state = struct {
    /// The value, in memory until the event is answered; null: there is none.
    pub fn get(key: []const u8) !?[]const u8 {
        var request: Buf = .{};
        defer request.deinit();
        request.putBytes(1, key);
        const reply = try call.state_get(&request);
        defer release(reply);
        var value: []const u8 = "";
        var found = false;
        var fields: wire.Fields = .{ .rest = reply };
        while (fields.next()) |field| {
            if (field.number == 1 and field.content == .bytes) value = field.content.bytes;
            if (field.number == 2 and field.content == .varint) found = field.content.varint != 0;
        }
        return if (found) try nri.arena().dupe(u8, value) else null;
    }

    /// An empty value removes the key.
    pub fn put(key: []const u8, value: []const u8) !void {
        var request: Buf = .{};
        defer request.deinit();
        request.putBytes(1, key);
        request.putBytes(2, value);
        release(try call.state_put(&request));
    }

    pub fn remove(key: []const u8) !void {
        return put(key, "");
    }
};

/// The host's functions: what the reply says, or why the host refused.
const call = if (builtin.cpu.arch.isWasm()) struct {
    const import = struct {
        extern "env" fn log(at: [*]const u8, size: usize) u64;
        extern "edge" fn report(at: [*]const u8, size: usize) u64;
        extern "edge" fn update_containers(at: [*]const u8, size: usize) u64;
        extern "edge" fn state_get(at: [*]const u8, size: usize) u64;
        extern "edge" fn state_put(at: [*]const u8, size: usize) u64;
    };

    const log = through(import.log);
    const report = through(import.report);
    const update_containers = through(import.update_containers);
    const state_get = through(import.state_get);
    const state_put = through(import.state_put);
} else nri.testing.call;

const Error = error{ Refused, OutOfMemory };

fn through(
    comptime function: fn ([*]const u8, usize) callconv(.c) u64,
) fn (*const Buf) Error![]u8 {
    return struct {
        fn call(request: *const Buf) Error![]u8 {
            if (request.full) return error.OutOfMemory;
            const asked = request.bytes();
            const packed_reply = function(asked.ptr, asked.len);
            const reply: []u8 = guest.take(@intCast(packed_reply >> 32)) orelse &.{};
            if (packed_reply & guest.error_bit == 0) return reply;
            defer release(reply);
            return nri.fail("{s}", .{reply});
        }
    }.call;
}

fn release(reply: []u8) void {
    if (builtin.cpu.arch.isWasm()) wire.gpa.free(reply);
}
