//! Messages by their types: read in place with `Reader`, made with `Writer` out of the structs of
//! nri.zig. A struct's fields have the types below; `numbers` in it are theirs in the protocol.
//!
//! | in the protocol | in a struct | as `Reader.get` gives it |
//! | text, a number, an enumeration | that | the same; absent: empty, 0 |
//! | a message M | ?M | Reader(M); absent: an empty one |
//! | of the Optional family | ?T | ?T |
//! | repeated | []const T | Repeated(T) |
//! | a map | []const Entry(K, V) | Map(Entry(K, V)) |

const std = @import("std");
const wire = @import("wire.zig");
const Allocator = std.mem.Allocator;
const Buf = wire.Buf;
const Content = wire.Content;

/// The names of a message's fields.
pub fn FieldEnum(comptime Message: type) type {
    @setEvalBranchQuota(10_000);
    return std.meta.FieldEnum(Message);
}

const Kind = enum { text, number, message, optional, list, map };

fn kindOf(comptime T: type) Kind {
    return switch (@typeInfo(T)) {
        .bool, .int, .@"enum" => .number,
        .@"struct" => .message,
        .optional => |info| if (kindOf(info.child) == .message) .message else .optional,
        .pointer => |info| if (info.child == u8)
            .text
        else if (@typeInfo(info.child) == .@"struct" and @hasDecl(info.child, "is_entry"))
            .map
        else
            .list,
        else => @compileError("no field of a message is a " ++ @typeName(T)),
    };
}

/// The type within an optional, or the elements' of a slice.
fn Child(comptime T: type) type {
    return switch (@typeInfo(T)) {
        .optional => |info| info.child,
        .pointer => |info| info.child,
        else => T,
    };
}

fn FieldType(comptime Message: type, comptime field: FieldEnum(Message)) type {
    return @FieldType(Message, @tagName(field));
}

fn numberOf(comptime Message: type, comptime field: FieldEnum(Message)) u32 {
    return Message.numbers[@backingInt(field)];
}

/// Of a map.
pub fn Entry(comptime K: type, comptime V: type) type {
    return struct {
        key: K = zero(K),
        value: V = zero(V),

        pub const numbers = [_]u32{ 1, 2 };
        pub const is_entry = true;
    };
}

fn zero(comptime T: type) T {
    return switch (@typeInfo(T)) {
        .bool => false,
        .int => 0,
        .@"enum" => @fromBackingInt(0),
        .pointer => &.{},
        else => .{},
    };
}

// ---- reading ----

/// A message as it came. What it gives is valid until the event is answered.
pub fn Reader(comptime Message: type) type {
    return struct {
        bytes: []const u8 = "",

        const Self = @This();

        pub fn get(self: Self, comptime field: FieldEnum(Message)) Got(FieldType(Message, field)) {
            const T = FieldType(Message, field);
            const number = comptime numberOf(Message, field);
            return switch (comptime kindOf(T)) {
                .text, .number => last(T, self.bytes, number) orelse zero(T),
                .message => last(Child(T), self.bytes, number) orelse .{},
                .optional => optional(Child(T), last(Wrapped, self.bytes, number)),
                .list => .of(self.bytes, number),
                .map => .{ .bytes = self.bytes, .number = number },
            };
        }

        /// Whether the field came at all.
        pub fn has(self: Self, comptime field: FieldEnum(Message)) bool {
            var found = false;
            var fields: wire.Fields = .{ .rest = self.bytes };
            while (fields.next()) |each| {
                if (each.number == comptime numberOf(Message, field)) found = true;
            }
            return found; // all of it was walked: what is malformed behind the field is so too
        }

        /// All of it as a struct, to change and send it. Its texts are those of the message.
        pub fn value(self: Self, arena: Allocator) Allocator.Error!Message {
            @setEvalBranchQuota(10_000);
            var message: Message = .{};
            inline for (comptime std.enums.values(FieldEnum(Message))) |field| {
                const T = FieldType(Message, field);
                @field(message, @tagName(field)) = if (comptime kindOf(T) == .message)
                    if (self.has(field)) try self.get(field).value(arena) else null
                else
                    try whole(T, self.get(field), arena);
            }
            return message;
        }
    };
}

fn Got(comptime T: type) type {
    return switch (kindOf(T)) {
        .text, .number => T,
        .message => Reader(Child(T)),
        .optional => if (kindOf(Child(T)) == .list) Repeated(Child(Child(T))) else T,
        .list => Repeated(Child(T)),
        .map => Map(Child(T)),
    };
}

/// One value of a repeated field or of a map.
fn One(comptime T: type) type {
    return if (kindOf(T) == .message) Reader(T) else T;
}

fn last(comptime T: type, message: []const u8, number: u32) ?One(T) {
    var found: ?One(T) = null;
    var all: Repeated(T) = .of(message, number);
    while (all.next()) |each| found = each;
    return found;
}

/// A message of the Optional family, whose only field is 1.
const Wrapped = struct {};

fn optional(comptime T: type, message: ?Reader(Wrapped)) Got(?T) {
    if (comptime kindOf(T) == .list) return .of((message orelse Reader(Wrapped){}).bytes, 1);
    return last(T, (message orelse return null).bytes, 1) orelse zero(T);
}

/// Null: the field has another type, and is as good as absent.
fn one(comptime T: type, content: Content) ?One(T) {
    switch (comptime kindOf(T)) {
        .number => return if (content == .varint) numberFrom(T, content.varint) else null,
        .message => return if (content == .bytes) .{ .bytes = content.bytes } else null,
        .text => {
            if (content != .bytes) return null;
            if (std.unicode.utf8ValidateSlice(content.bytes)) return content.bytes;
            wire.malformed = true;
            return null;
        },
        else => @compileError("a repeated field of repeated fields"),
    }
}

fn numberFrom(comptime T: type, value: u64) T {
    return switch (@typeInfo(T)) {
        .bool => value != 0,
        .@"enum" => @fromBackingInt(numberFrom(i32, value)),
        else => @bitCast(@as(@Int(.unsigned, @bitSizeOf(T)), @truncate(value))),
    };
}

/// The values of a repeated field, in their order: `while (values.next()) |value| ...`.
pub fn Repeated(comptime T: type) type {
    return struct {
        fields: wire.Fields,
        number: u32,
        run: []const u8 = "", // of numbers, many of which may stand in one field

        const Self = @This();

        fn of(message: []const u8, number: u32) Self {
            return .{ .fields = .{ .rest = message }, .number = number };
        }

        pub fn next(self: *Self) ?One(T) {
            while (true) {
                if (self.run.len > 0) {
                    const number = wire.takeVarint(&self.run) orelse {
                        self.run = "";
                        wire.malformed = true;
                        continue;
                    };
                    return one(T, .{ .varint = number });
                }
                const field = self.fields.next() orelse return null;
                if (field.number != self.number) continue;
                if (comptime kindOf(T) == .number) {
                    if (field.content == .bytes) {
                        self.run = field.content.bytes;
                        continue;
                    }
                }
                return one(T, field.content) orelse continue;
            }
        }
    };
}

/// Of a key that occurs twice the last value counts.
pub fn Map(comptime E: type) type {
    const K = @FieldType(E, "key");
    const V = @FieldType(E, "value");
    return struct {
        bytes: []const u8,
        number: u32,

        const Self = @This();

        pub fn get(self: Self, key: K) ?One(V) {
            var found: ?One(V) = null;
            var entries = self.iterator();
            while (entries.next()) |entry| {
                const equal = if (K == []const u8) std.mem.eql(u8, entry.key, key) else entry.key == key;
                if (equal) found = entry.value;
            }
            return found;
        }

        pub fn has(self: Self, key: K) bool {
            return self.get(key) != null;
        }

        /// All entries, in their order.
        pub fn iterator(self: Self) Iterator {
            return .{ .entries = .of(self.bytes, self.number) };
        }

        pub const Iterator = struct {
            entries: Repeated(E),

            pub fn next(self: *Iterator) ?struct { key: K, value: One(V) } {
                const entry = self.entries.next() orelse return null;
                return .{
                    .key = last(K, entry.bytes, 1) orelse zero(K),
                    .value = last(V, entry.bytes, 2) orelse zero(One(V)),
                };
            }
        };
    };
}

/// What `get` gave, for a struct's field.
fn whole(comptime T: type, got: Got(T), arena: Allocator) Allocator.Error!T {
    switch (comptime kindOf(T)) {
        .text, .number => return got,
        .optional => {
            if (comptime kindOf(Child(T)) != .list) return got;
            const list = try whole(Child(T), got, arena);
            return if (list.len > 0) list else null;
        },
        .message => @compileError("by Reader.value"),
        .list, .map => {
            const E = Child(T);
            var list: std.ArrayList(E) = .empty;
            var rest = if (comptime kindOf(T) == .map) got.iterator() else got;
            while (rest.next()) |each| {
                const V = if (comptime kindOf(T) == .map) @FieldType(E, "value") else E;
                const it = if (comptime kindOf(T) == .map) each.value else each;
                const value = if (comptime kindOf(V) == .message) try it.value(arena) else it;
                try list.append(arena, if (comptime kindOf(T) == .map) .{ .key = each.key, .value = value } else value);
            }
            return list.items;
        },
    }
}

// ---- writing ----

/// A message that the plugin makes. Each `put` is written at once, so what it points to need not
/// last. As in Protocol Buffers, a message that is put twice is merged: lists grow, the later value
/// of another field counts.
pub fn Writer(comptime Message: type) type {
    return struct {
        buf: Buf = .{},

        const Self = @This();

        pub fn put(
            self: *Self,
            comptime field: FieldEnum(Message),
            value: FieldType(Message, field),
        ) void {
            write(FieldType(Message, field), comptime numberOf(Message, field), &value, &self.buf);
        }
    };
}

/// The struct's fields, without those that are as if absent.
pub fn encode(comptime Message: type, message: *const Message, to: *Buf) void {
    @setEvalBranchQuota(10_000);
    inline for (comptime std.enums.values(FieldEnum(Message))) |field| {
        const T = FieldType(Message, field);
        write(T, comptime numberOf(Message, field), &@field(message, @tagName(field)), to);
    }
}

fn write(comptime T: type, number: u32, value: *const T, to: *Buf) void {
    switch (comptime kindOf(T)) {
        .text => if (value.len > 0) to.putBytes(number, value.*),
        .number => if (value.* != zero(T)) to.putNumber(number, bitsOf(T, value.*)),
        .message => {
            if (comptime T == Child(T)) return writeMessage(T, number, value, to);
            if (value.*) |*message| writeMessage(Child(T), number, message, to);
        },
        .optional => {
            if (value.*) |*inner| {
                const start = to.open(number);
                write(Child(T), 1, inner, to);
                to.close(start);
            }
        },
        .list, .map => for (value.*) |*item| switch (comptime kindOf(Child(T))) {
            .text => to.putBytes(number, item.*), // also an empty one
            .number => to.putNumber(number, bitsOf(Child(T), item.*)),
            else => writeMessage(Child(T), number, item, to),
        },
    }
}

fn writeMessage(comptime Message: type, number: u32, message: *const Message, to: *Buf) void {
    const start = to.open(number);
    encode(Message, message, to);
    to.close(start);
}

fn bitsOf(comptime T: type, value: T) u64 {
    return switch (@typeInfo(T)) {
        .bool => @intFromBool(value),
        .@"enum" => bitsOf(i32, @backingInt(value)),
        .int => |info| if (info.signedness == .signed) @bitCast(@as(i64, value)) else value,
        else => comptime unreachable,
    };
}
