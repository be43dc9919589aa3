//! The ABI, as docs/plugins.md of edge-agent tells it: memory for the host, and its calls.

const std = @import("std");
const nri = @import("edge_nri.zig");
const gpa = @import("wire.zig").gpa;

pub const error_bit: u64 = 1 << 31;
const no_memory = "out of memory";

/// What the host took and has not given back: a request, a reply, a host function's reply.
var blocks: std.ArrayList([]u8) = .empty;

/// 0: there is no memory for it.
pub fn malloc(size: usize) callconv(.c) usize {
    return keep(gpa.alloc(u8, @max(size, 1)) catch return 0);
}

/// What is no block is left alone: a reply may be a constant.
pub fn free(at: usize) callconv(.c) void {
    gpa.free(take(at) orelse return);
}

pub fn apiVersion() callconv(.c) u64 {
    return 1;
}

fn keep(block: []u8) usize {
    blocks.append(gpa, block) catch {
        gpa.free(block);
        return 0;
    };
    return @intFromPtr(block.ptr);
}

/// Takes a block back.
pub fn take(at: usize) ?[]u8 {
    for (blocks.items, 0..) |block, which| {
        if (@intFromPtr(block.ptr) == at) return blocks.swapRemove(which);
    }
    return null;
}

/// Answers a call of the host: pointer in the high word, size in the low, bit 31 for an error.
pub fn serve(method: *const nri.Raw, at: usize, size: usize) u64 {
    const request = if (size == 0) "" else @as([*]const u8, @ptrFromInt(at))[0..size];
    var answer = nri.answer(method, request);
    const failed = if (answer.failed) error_bit else 0;
    const length = answer.buf.bytes().len;
    if (length == 0) {
        const full = answer.buf.full;
        answer.buf.deinit();
        return if (full) refusal() else failed;
    }
    return switch (keep(answer.buf.list.allocatedSlice())) {
        0 => refusal(),
        else => |block| pack(block, length) | failed,
    };
}

/// `free` leaves it alone.
fn refusal() u64 {
    return pack(@intFromPtr(no_memory), no_memory.len) | error_bit;
}

fn pack(at: usize, size: usize) u64 {
    return @as(u64, at) << 32 | size;
}
