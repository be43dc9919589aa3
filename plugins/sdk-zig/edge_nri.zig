//! The Zig SDK for NRI plugins in WebAssembly. A plugin is one struct:
//!
//!     const nri = @import("sdk/edge_nri.zig");
//!
//!     const Marker = struct {
//!         pub fn create_container(
//!             _: *Marker,
//!             request: nri.Request(.create_container),
//!             reply: *nri.Reply(.create_container),
//!         ) !void {
//!             const name = request.get(.pod).get(.name);
//!             reply.put(.adjust, .{ .env = &.{.{ .key = "POD", .value = name }} });
//!         }
//!     };
//!
//!     pub const panic = nri.panic; // logs why, and where
//!
//!     comptime {
//!         nri.plugin(Marker);
//!     }
//!
//! A request is read in place: `get` of a field, for which an enumeration literal stands; what did
//! not come is empty. A reply is made of structs (nri.zig), each written as soon as it is put.
//! `plugin` exports the struct's public functions, which must be methods of a plugin (`Method`), and
//! Configure subscribes to their events. A method whose request or reply has no fields goes without
//! that parameter. An error that it returns is the error reply, with the text of `fail`; so is a
//! request that is malformed, and a reply that memory does not suffice for.
//!
//! `zig test` runs a plugin without WebAssembly: `testing.Harness`.

const builtin = @import("builtin");
const std = @import("std");
const guest = @import("guest.zig");
const host = @import("host.zig");
const message = @import("message.zig");
const types = @import("nri.zig");

pub const conf = @import("conf.zig");
pub const testing = @import("testing.zig");
pub const wire = @import("wire.zig");

/// The messages of NRI by their names in nri.proto, as structs.
pub const nri = types;
pub const Method = types.Method;
pub const Reader = message.Reader;
pub const Writer = message.Writer;
pub const Entry = message.Entry;
pub const encode = message.encode;

pub const Level = host.Level;
pub const log = host.log;
pub const report = host.report;
pub const state = host.state;
pub const updateContainers = host.updateContainers;

/// What a method is asked.
pub fn Request(comptime method: Method) type {
    return Reader(types.RequestOf(method));
}

/// What a method answers; nothing put into it: nothing to change.
pub fn Reply(comptime method: Method) type {
    return Writer(types.ReplyOf(method));
}

var memory: std.heap.ArenaAllocator = .init(wire.gpa);
/// The text of `fail`.
var failure: wire.Buf = .{};

/// Memory until the event is answered.
pub fn arena() std.mem.Allocator {
    return memory.allocator();
}

/// Why a request fails, as the text of the error reply: `return nri.fail("no {s}", .{name})`.
pub fn fail(comptime format: []const u8, arguments: anytype) error{Refused} {
    failure.deinit();
    failure.print(format, arguments);
    return error.Refused;
}

/// The first `size` bytes at most, never half a character: for quoting in messages.
pub fn head(text: []const u8, size: usize) []const u8 {
    if (text.len <= size) return text;
    var end = size;
    while (end > 0 and text[end] & 0xC0 == 0x80) end -= 1;
    return text[0..end];
}

/// A name as people know it: Docker Engine puts a slash before that of a container.
pub fn plainName(name: []const u8) []const u8 {
    return if (std.mem.startsWith(u8, name, "/")) name[1..] else name;
}

/// Docker Engine has no pods: it tells of each container as of a pod of the same id, with nothing
/// else in it (moby, daemon/internal/nri, containerToNRI).
pub fn hasNoPod(pod: Reader(types.PodSandbox), container: Reader(types.Container)) bool {
    const id = pod.get(.id);
    return id.len > 0 and std.mem.eql(u8, id, container.get(.id));
}

/// For the plugin's root file, `pub const panic = nri.panic;`: a panic is logged with its reason.
pub const panic = std.debug.FullPanic(panicked);

fn panicked(text: []const u8, _: ?usize) noreturn {
    log(.err, "panic: {s}", .{text});
    @trap();
}

// ---- methods ----

/// Makes a module of a struct; within `comptime { ... }`.
pub fn plugin(comptime Plugin: type) void {
    for (@typeInfo(Plugin).@"struct".decl_names) |name| {
        if (@typeInfo(@TypeOf(@field(Plugin, name))) == .@"fn" and !@hasField(Method, name))
            @compileError(name ++ " is no method of a plugin; a function of its own is not pub");
    }
    for (std.enums.values(Method)) |method| {
        if (method == .configure or @hasDecl(Plugin, @tagName(method)))
            exportRaw(@tagName(method), rawOf(Plugin, method));
    }
    if (builtin.cpu.arch.isWasm()) {
        @export(&guest.malloc, .{ .name = "malloc" });
        @export(&guest.free, .{ .name = "free" });
        @export(&guest.apiVersion, .{ .name = "plugin_api_version" });
    }
}

/// A method of bytes, which puts its reply into the buffer.
pub const Raw = fn (request: []const u8, reply: *wire.Buf) anyerror!void;

pub fn exportRaw(comptime name: []const u8, comptime raw: Raw) void {
    const exported = &struct {
        fn call(at: usize, size: usize) callconv(.c) u64 {
            return guest.serve(raw, at, size);
        }
    }.call;
    // Elsewhere it is only compiled, so that `zig test` tells what is wrong in it.
    if (builtin.cpu.arch.isWasm()) @export(exported, .{ .name = "plugin_" ++ name });
}

/// The only instance of a plugin.
pub fn instance(comptime Plugin: type) *Plugin {
    return &struct {
        var it: Plugin = .{};
    }.it;
}

pub fn rawOf(comptime Plugin: type, comptime method: Method) Raw {
    return struct {
        fn call(request: []const u8, buf: *wire.Buf) anyerror!void {
            var reply: Reply(method) = .{};
            defer buf.* = reply.buf;
            try invoke(instance(Plugin), method, .{ .bytes = request }, &reply);
        }
    }.call;
}

/// The reply's bytes, or the text of the error.
pub const Answer = struct { buf: wire.Buf, failed: bool };

/// Calls a method as the host does.
pub fn answer(raw: *const Raw, request: []const u8) Answer {
    defer _ = memory.reset(.free_all);
    defer failure.deinit();
    wire.malformed = false;
    var buf: wire.Buf = .{};
    var text: []const u8 = "";
    const result = raw(request, &buf);
    if (wire.malformed) {
        text = "malformed message";
    } else if (buf.full) {
        text = "out of memory";
    } else if (result) {
        return .{ .buf = buf, .failed = false };
    } else |problem| switch (problem) {
        error.Refused => text = if (failure.full) "out of memory" else failure.bytes(),
        error.OutOfMemory => text = "out of memory",
        else => text = @errorName(problem),
    }
    buf.deinit();
    buf.put(text);
    return .{ .buf = buf, .failed = true };
}

fn invoke(
    it: anytype,
    comptime method: Method,
    request: Request(method),
    reply: *Reply(method),
) anyerror!void {
    const Plugin = @TypeOf(it.*);
    if (method == .configure) return configure(it, request, reply);
    const function = @field(Plugin, @tagName(method));
    const asks = types.RequestOf(method).numbers.len > 0;
    const answers = types.ReplyOf(method).numbers.len > 0;
    if (asks and answers) {
        try function(it, request, reply);
    } else if (asks) {
        try function(it, request);
    } else {
        try function(it);
    }
    // A host that hands over the parts of a split synchronisation wants each part's mark back.
    if (method == .synchronize) reply.put(.more, request.get(.more));
}

fn configure(it: anytype, request: Request(.configure), reply: *Reply(.configure)) anyerror!void {
    const Plugin = @TypeOf(it.*);
    const config = request.get(.config);
    if (@hasDecl(Plugin, "configure")) {
        try it.configure(request);
    } else if (config.len > 0) {
        return fail("this plugin has no settings, not even {s}", .{head(config, 40)});
    }
    comptime var events: i32 = 0;
    inline for (comptime std.enums.values(Method)) |method| {
        if (@hasDecl(Plugin, @tagName(method))) events |= comptime types.eventsOf(method);
    }
    reply.put(.events, events);
}
