//! Configuration text: one setting in a line, `#` begins a comment.
//!
//!     var lines = nri.conf.lines(request.get(.config));
//!     while (lines.next()) |line| {
//!         var words = line.words();
//!         const word = words.next().?;
//!         if (!std.mem.eql(u8, word, "limit")) return line.fail("unknown word {s}", .{word});
//!     }

const std = @import("std");
const nri = @import("edge_nri.zig");

const blank = " \t\r";

/// A line that says something: without its comment, trimmed, never empty.
pub const Line = struct {
    /// From 1.
    number: usize,
    text: []const u8,

    pub fn words(self: Line) std.mem.TokenIterator(u8, .any) {
        return std.mem.tokenizeAny(u8, self.text, blank);
    }

    /// What stands before the first `mark` and behind it, trimmed; null: there is none.
    pub fn cut(self: Line, mark: u8) ?struct { []const u8, []const u8 } {
        const at = std.mem.findScalar(u8, self.text, mark) orelse return null;
        return .{ trim(self.text[0..at]), trim(self.text[at + 1 ..]) };
    }

    /// An error that names the line.
    pub fn fail(self: Line, comptime format: []const u8, arguments: anytype) error{Refused} {
        return nri.fail("line {d}: " ++ format, .{self.number} ++ arguments);
    }
};

pub const Lines = struct {
    rest: std.mem.SplitIterator(u8, .scalar),
    number: usize = 0,

    pub fn next(self: *Lines) ?Line {
        while (self.rest.next()) |line| {
            self.number += 1;
            const text = trim(line[0..commentIn(line)]);
            if (text.len > 0) return .{ .number = self.number, .text = text };
        }
        return null;
    }
};

pub fn lines(text: []const u8) Lines {
    return .{ .rest = std.mem.splitScalar(u8, text, '\n') };
}

fn commentIn(line: []const u8) usize {
    for (line, 0..) |letter, at| {
        if (letter == '#' and (at == 0 or isBlank(line[at - 1]))) return at;
    }
    return line.len;
}

fn trim(text: []const u8) []const u8 {
    return std.mem.trim(u8, text, blank);
}

fn isBlank(letter: u8) bool {
    return letter == ' ' or letter == '\t' or letter == '\r';
}

/// Digits that fit 64 bits, and nothing else: no sign.
pub fn uint(text: []const u8) ?u64 {
    return digits(text, 10);
}

/// Digits of `base`, 2 to 36.
pub fn digits(text: []const u8, base: u8) ?u64 {
    var value: u64 = 0;
    for (text) |letter| {
        const digit = std.fmt.charToDigit(letter, base) catch return null;
        if (value > (std.math.maxInt(u64) - @as(u64, digit)) / base) return null;
        value = value * base + digit;
    }
    return if (text.len > 0) value else null;
}

/// Bytes, with Kubernetes' suffixes: k M G T of 1000, Ki Mi Gi Ti of 1024. At most 2^63 - 1.
pub fn size(text: []const u8) ?u64 {
    var number = text;
    const step: u64 = if (std.mem.endsWith(u8, number, "i")) 1024 else 1000;
    if (step == 1024) number.len -= 1;
    var unit: u64 = 1;
    if (number.len > 0) {
        const letter = std.ascii.toLower(number[number.len - 1]);
        if (std.mem.findScalar(u8, "kmgt", letter)) |power| {
            for (0..power + 1) |_| unit *= step;
            number.len -= 1;
        }
    }
    if (step == 1024 and unit == 1) return null;
    const count = uint(number) orelse return null;
    return if (count > std.math.maxInt(i64) / unit) null else count * unit;
}

/// Thousandths of a CPU: "2", "0.5", "1.25" or "500m".
pub fn cpu(text: []const u8) ?u64 {
    if (std.mem.endsWith(u8, text, "m")) return uint(text[0 .. text.len - 1]);
    const point = std.mem.findScalar(u8, text, '.') orelse text.len;
    const whole = uint(text[0..point]) orelse return null;
    if (whole > 1_000_000) return null;
    var part: u64 = 0;
    if (point < text.len) {
        const behind = text[point + 1 ..];
        if (behind.len > 3) return null;
        part = uint(behind) orelse return null;
        for (behind.len..3) |_| part *= 10;
    }
    return whole * 1000 + part;
}

/// `*` stands for any run of bytes, `?` for one.
pub fn glob(pattern: []const u8, text: []const u8) bool {
    return globUntil(pattern, text, null);
}

/// With `stop` the pattern may also fit just what is before one: "/etc" with '/' fits "/etc/hosts".
///
/// A later star forgets an earlier one, so the work is at most pattern times text.
pub fn globUntil(pattern: []const u8, text: []const u8, stop: ?u8) bool {
    var p: usize = 0;
    var t: usize = 0;
    var star: ?usize = null;
    var run_end: usize = 0; // in the text, of what the last star stands for
    while (t < text.len) {
        if (p < pattern.len and pattern[p] == '*') {
            star = p;
            p += 1;
            run_end = t;
        } else if (p < pattern.len and (pattern[p] == '?' or pattern[p] == text[t])) {
            p += 1;
            t += 1;
        } else if (p == pattern.len and stop != null and text[t] == stop.?) {
            return true;
        } else if (star) |at| {
            p = at + 1;
            run_end += 1;
            t = run_end;
        } else {
            return false;
        }
    }
    return std.mem.allEqual(u8, pattern[p..], '*');
}
