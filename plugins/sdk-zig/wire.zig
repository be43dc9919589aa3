//! Protocol Buffers by hand: a reader that walks a message in place and takes no memory, and a
//! writer that appends and never ends the program when there is no memory.
//!
//! Malformed bytes end a walk and set `malformed`, which becomes an error reply: no call site has
//! to check.

const builtin = @import("builtin");
const std = @import("std");

/// What all memory comes from.
pub const gpa: std.mem.Allocator =
    if (builtin.cpu.arch.isWasm()) std.heap.wasm_allocator else std.heap.page_allocator;

/// Something malformed was read since the host's call began.
pub var malformed = false;

/// What a field holds, as it is on the wire.
pub const Content = union(enum) {
    varint: u64,
    fixed64: u64,
    bytes: []const u8,
    fixed32: u32,
};

pub const Field = struct { number: u32, content: Content };

/// The fields of a message, one after the other.
pub const Fields = struct {
    rest: []const u8,

    pub fn next(self: *Fields) ?Field {
        if (self.rest.len == 0) return null;
        return self.field() orelse {
            self.rest = "";
            malformed = true;
            return null;
        };
    }

    fn field(self: *Fields) ?Field {
        const tag = takeVarint(&self.rest) orelse return null;
        if (tag < 8 or tag > std.math.maxInt(u32)) return null;
        const content: Content = switch (tag & 7) {
            0 => .{ .varint = takeVarint(&self.rest) orelse return null },
            1 => .{ .fixed64 = std.mem.readInt(u64, (self.take(8) orelse return null)[0..8], .little) },
            2 => .{ .bytes = self.take(takeVarint(&self.rest) orelse return null) orelse return null },
            5 => .{ .fixed32 = std.mem.readInt(u32, (self.take(4) orelse return null)[0..4], .little) },
            else => return null, // groups: proto3 has none
        };
        return .{ .number = @intCast(tag >> 3), .content = content };
    }

    fn take(self: *Fields, size: u64) ?[]const u8 {
        if (size > self.rest.len) return null;
        const taken = self.rest[0..@intCast(size)];
        self.rest = self.rest[taken.len..];
        return taken;
    }
};

/// Takes a number off the front; null unless it is whole and fits 64 bits.
pub fn takeVarint(rest: *[]const u8) ?u64 {
    var value: u64 = 0;
    for (rest.*[0..@min(rest.len, 10)], 0..) |byte, at| {
        if (at == 9 and byte > 1) return null; // more than 64 bits
        value |= @as(u64, byte & 0x7F) << @intCast(7 * at);
        if (byte < 0x80) {
            rest.* = rest.*[at + 1 ..];
            return value;
        }
    }
    return null;
}

/// Bytes that grow. Where memory runs out it takes nothing more and is full.
pub const Buf = struct {
    list: std.ArrayList(u8) = .empty,
    full: bool = false,

    pub fn deinit(self: *Buf) void {
        self.list.deinit(gpa);
        self.* = .{};
    }

    pub fn bytes(self: *const Buf) []const u8 {
        return self.list.items;
    }

    pub fn put(self: *Buf, added: []const u8) void {
        if (self.full) return;
        self.list.appendSlice(gpa, added) catch {
            self.full = true;
        };
    }

    pub fn print(self: *Buf, comptime format: []const u8, arguments: anytype) void {
        if (self.full) return;
        var text: std.Io.Writer.Allocating = .fromArrayList(gpa, &self.list);
        text.writer.print(format, arguments) catch {
            self.full = true;
        };
        self.list = text.toArrayList();
    }

    pub fn putVarint(self: *Buf, value: u64) void {
        var room: [10]u8 = undefined;
        self.put(varint(&room, value));
    }

    pub fn putTag(self: *Buf, number: u32, wire: u3) void {
        self.putVarint(@as(u64, number) << 3 | wire);
    }

    /// A number, a truth or an enumeration; negative ones as the 64 bits that they are.
    pub fn putNumber(self: *Buf, number: u32, value: u64) void {
        self.putTag(number, 0);
        self.putVarint(value);
    }

    /// Text, bytes or a message.
    pub fn putBytes(self: *Buf, number: u32, content: []const u8) void {
        self.putTag(number, 2);
        self.putVarint(content.len);
        self.put(content);
    }

    /// Begins a message as this field; give what it returns to `close`.
    pub fn open(self: *Buf, number: u32) usize {
        self.putTag(number, 2);
        self.put("\x00"); // its length, of one byte unless `close` finds more
        return self.list.items.len;
    }

    pub fn close(self: *Buf, start: usize) void {
        if (self.full) return;
        var room: [10]u8 = undefined;
        const length = varint(&room, self.list.items.len - start);
        self.list.replaceRange(gpa, start - 1, 1, length) catch {
            self.full = true;
        };
    }
};

fn varint(room: *[10]u8, value: u64) []const u8 {
    var rest = value;
    var size: usize = 0;
    while (rest > 0x7F) : (rest >>= 7) {
        room[size] = @as(u8, @truncate(rest)) | 0x80;
        size += 1;
    }
    room[size] = @truncate(rest);
    return room[0 .. size + 1];
}
