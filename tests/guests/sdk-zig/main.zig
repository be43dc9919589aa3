//! Lays the SDK's parts open to the tests, with the exports of ../sdk.c.

const std = @import("std");
const nri = @import("edge_nri");
const Buf = nri.wire.Buf;
const Fields = nri.wire.Fields;

const Lab = struct {
    calls: u32 = 0,

    pub fn configure(_: *Lab, _: nri.Request(.configure)) !void {}

    /// A reply that tells what was read: one field of each kind.
    pub fn create_container(
        _: *Lab,
        request: nri.Request(.create_container),
        reply: *nri.Reply(.create_container),
    ) !void {
        const container = request.get(.container);
        const linux = container.get(.linux);
        const memory = linux.get(.resources).get(.memory);
        var labels = request.get(.pod).get(.labels).iterator();
        while (labels.next()) |label| {
            reply.put(.adjust, .{ .annotations = &.{.{ .key = label.key, .value = label.value }} });
        }
        var gids = container.get(.user).get(.additional_gids);
        var said: std.ArrayList(u8) = .empty;
        while (gids.next()) |gid| {
            try said.print(nri.arena(), "{s}{d}", .{ if (said.items.len > 0) ", " else "", gid });
        }
        for ([_]struct { []const u8, []const u8 }{
            .{ "name", container.get(.name) },
            .{ "state", try text("{d}", .{@backingInt(container.get(.state))}) },
            .{ "exit", try text("{d}", .{container.get(.exit_code)}) },
            .{ "created", try text("{d}", .{container.get(.created_at)}) },
            .{ "limit", if (memory.get(.limit)) |limit| try text("Some({d})", .{limit}) else "None" },
            .{ "oom", if (memory.get(.disable_oom_killer)) |oom| try text("Some({})", .{oom}) else "None" },
            .{ "linux", try text("{}", .{container.has(.linux)}) },
            .{ "gids", try text("[{s}]", .{said.items}) },
        }) |pair| {
            reply.put(.adjust, .{ .env = &.{.{ .key = pair[0], .value = pair[1] }} });
        }
        var mounts = container.get(.mounts);
        while (mounts.next()) |mount| {
            reply.put(.adjust, .{ .mounts = &.{try mount.value(nri.arena())} });
        }
        var args = container.get(.args);
        while (args.next()) |arg| reply.put(.adjust, .{ .args = &.{arg} });
        reply.put(.adjust, .{ .linux = .{} });
        var devices = linux.get(.devices);
        while (devices.next()) |device| {
            reply.put(.adjust, .{ .linux = .{ .devices = &.{.{
                .path = device.get(.path),
                .type = device.get(.type),
                .major = device.get(.major),
                .minor = device.get(.minor),
                .file_mode = device.get(.file_mode),
            }} } });
        }
        var nets = linux.get(.net_devices).iterator();
        while (nets.next()) |net| {
            const copy = try net.value.value(nri.arena());
            reply.put(.adjust, .{ .linux = .{ .net_devices = &.{.{ .key = net.key, .value = copy }} } });
        }
    }

    /// Everything that can be asked of a host.
    pub fn post_create_container(self: *Lab, request: nri.Request(.post_create_container)) !void {
        self.calls += 1;
        const id = request.get(.container).get(.id);
        const before = try nri.state.get("calls") orelse "none";
        nri.log(.warn, "call {d}, before {s}", .{ self.calls, before });
        try nri.state.put("calls", try text("{d}", .{self.calls}));
        try nri.report("seen", request.get(.pod).get(.name), "text/plain");
        try nri.updateContainers(.{ .update = &.{.{
            .container_id = id,
            .linux = .{ .resources = .{ .memory = .{ .limit = 64 << 20 } } },
        }} });
        if (self.calls > 1) {
            try nri.state.remove("calls");
            return nri.fail("call {d} of {s}", .{ self.calls, id });
        }
    }

    /// The resources as they are, with another limit: what a plugin changes and sends back.
    pub fn update_container(
        _: *Lab,
        request: nri.Request(.update_container),
        reply: *nri.Reply(.update_container),
    ) !void {
        var resources = try request.get(.linux_resources).value(nri.arena());
        resources.pids = .{ .limit = 7 };
        reply.put(.update, &.{.{
            .container_id = request.get(.container).get(.id),
            .linux = .{ .resources = resources },
        }});
    }

    pub fn validate_container_adjustment(
        _: *Lab,
        request: nri.Request(.validate_container_adjustment),
        reply: *nri.Reply(.validate_container_adjustment),
    ) !void {
        const owners = request.get(.owners).get(.owners);
        const fields = owners.get(request.get(.container).get(.id)) orelse return;
        const args: i32 = @backingInt(nri.nri.Field.Args);
        reply.put(.reject, true);
        reply.put(.reason, try text("args: {s}", .{fields.get(.simple).get(args) orelse "nobody"}));
    }

    pub fn synchronize(
        _: *Lab,
        _: nri.Request(.synchronize),
        _: *nri.Reply(.synchronize),
    ) !void {}

    pub fn shutdown(_: *Lab) !void {}

    /// What an author can do wrong.
    pub fn stop_pod_sandbox(_: *Lab, request: nri.Request(.stop_pod_sandbox)) !void {
        std.debug.panic("no plan for {s}", .{request.get(.pod).get(.name)});
    }

    pub fn run_pod_sandbox(_: *Lab, _: nri.Request(.run_pod_sandbox)) !void {
        return error.NotToday;
    }
};

pub const panic = nri.panic;

comptime {
    nri.plugin(Lab);
    for (@typeInfo(Parts).@"struct".decl_names) |name| nri.exportRaw(name, @field(Parts, name));
}

fn text(comptime format: []const u8, arguments: anytype) ![]const u8 {
    return std.fmt.allocPrint(nri.arena(), format, arguments);
}

/// What the SDK is made of, as methods of their own.
const Parts = struct {
    const Asked = nri.Reader(nri.nri.KeyValue);

    pub fn transcode_flat(request: []const u8, out: *Buf) !void {
        transcode(request, out, 0);
    }

    pub fn transcode_deep(request: []const u8, out: *Buf) !void {
        transcode(request, out, 12);
    }

    /// Reads everything and writes it again; `depth` levels of messages are opened.
    fn transcode(message: []const u8, out: *Buf, depth: u32) void {
        var fields: Fields = .{ .rest = message };
        while (fields.next()) |field| switch (field.content) {
            .bytes => |bytes| if (depth > 0 and bytes.len > 0 and isMessage(bytes)) {
                const start = out.open(field.number);
                transcode(bytes, out, depth - 1);
                out.close(start);
            } else out.putBytes(field.number, bytes),
            .varint => |value| out.putNumber(field.number, value),
            .fixed64 => |value| {
                out.putTag(field.number, 1);
                out.put(std.mem.asBytes(&std.mem.nativeToLittle(u64, value)));
            },
            .fixed32 => |value| {
                out.putTag(field.number, 5);
                out.put(std.mem.asBytes(&std.mem.nativeToLittle(u32, value)));
            },
        };
    }

    /// Whether the bytes could be a message; they may as well be text.
    fn isMessage(bytes: []const u8) bool {
        const before = nri.wire.malformed;
        defer nri.wire.malformed = before;
        nri.wire.malformed = false;
        var fields: Fields = .{ .rest = bytes };
        while (fields.next()) |_| {}
        return !nri.wire.malformed;
    }

    /// LogRequest's shape for the answer of everything below: {text=1, number=2}.
    fn answer(said: []const u8, found: bool, out: *Buf) void {
        if (said.len > 0) out.putBytes(1, said);
        if (found) out.putNumber(2, 1);
    }

    /// KeyValue{key, value: a Container}: the label under that key.
    pub fn label(request: []const u8, out: *Buf) !void {
        var fields: Fields = .{ .rest = request };
        var container: nri.Reader(nri.nri.Container) = .{};
        while (fields.next()) |field| {
            if (field.number == 2 and field.content == .bytes) container.bytes = field.content.bytes;
        }
        const found = container.get(.labels).get((Asked{ .bytes = request }).get(.key));
        answer(found orelse "", found != null, out);
    }

    pub fn glob(request: []const u8, out: *Buf) !void {
        const asked: Asked = .{ .bytes = request };
        answer("", nri.conf.glob(asked.get(.key), asked.get(.value)), out);
    }

    /// KeyValue{key: a unit, value: text}: the number it stands for, in decimal.
    pub fn amount(request: []const u8, out: *Buf) !void {
        const asked: Asked = .{ .bytes = request };
        const unit, const value = .{ asked.get(.key), asked.get(.value) };
        const number = if (std.mem.eql(u8, unit, "size"))
            nri.conf.size(value)
        else if (std.mem.eql(u8, unit, "cpu"))
            nri.conf.cpu(value)
        else
            nri.conf.uint(value);
        answer(if (number) |it| try text("{d}", .{it}) else "", number != null, out);
    }

    /// KeyValue{value}: its lines that say something, as "number:line|".
    pub fn lines(request: []const u8, out: *Buf) !void {
        var said: std.ArrayList(u8) = .empty;
        var all = nri.conf.lines((Asked{ .bytes = request }).get(.value));
        while (all.next()) |line| try said.print(nri.arena(), "{d}:{s}|", .{ line.number, line.text });
        answer(said.items, true, out);
    }

    pub fn pieces(request: []const u8, out: *Buf) !void {
        const numbers = .{ std.math.minInt(i64), std.math.maxInt(u64) };
        answer(try text("text view -1 2 {d} {d} {s}", numbers ++ .{nri.head(request, 5)}), true, out);
    }

    /// Asks for more memory than there is.
    pub fn exhaust(_: []const u8, out: *Buf) !void {
        for (0..1 << 16) |_| out.put(&@as([1 << 10]u8, @splat(0)));
    }
};
