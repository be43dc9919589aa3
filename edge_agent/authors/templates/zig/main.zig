//! Marks each container with the label "app" of its pod: an annotation and a variable.

const std = @import("std");
const nri = @import("sdk/edge_nri.zig");

const Marker = struct {
    pub fn configure(_: *Marker, request: nri.Request(.configure)) !void {
        const config = request.get(.config);
        if (config.len > 0)
            return nri.fail("this plugin has no settings, not even {s}", .{nri.head(config, 40)});
    }

    pub fn create_container(
        _: *Marker,
        request: nri.Request(.create_container),
        reply: *nri.Reply(.create_container),
    ) !void {
        const app = request.get(.pod).get(.labels).get("app") orelse return; // nothing to change
        reply.put(.adjust, .{
            .annotations = &.{.{ .key = "PLUGIN_NAME.example/app", .value = app }},
            .env = &.{.{ .key = "APP", .value = app }},
        });
        nri.log(.info, "marked {s} of {s}", .{ request.get(.container).get(.name), app });
    }
};

pub const panic = nri.panic;

comptime {
    nri.plugin(Marker);
}

test "a container of a pod with the label is marked" {
    var marker: nri.testing.Harness(Marker) = .init();
    defer marker.deinit();
    const reply = try marker.call(.create_container, .{
        .pod = .{ .labels = &.{.{ .key = "app", .value = "web" }} },
        .container = .{ .name = "main" },
    });
    const annotations = reply.get(.adjust).get(.annotations);
    try std.testing.expectEqualStrings("web", annotations.get("PLUGIN_NAME.example/app").?);
    try std.testing.expectEqualStrings("info: marked main of web", marker.lines()[0]);
}

test "a setting is refused" {
    var marker: nri.testing.Harness(Marker) = .init();
    defer marker.deinit();
    try std.testing.expectError(error.Refused, marker.configure("loud"));
    try std.testing.expectEqualStrings("this plugin has no settings, not even loud", marker.failure());
}
