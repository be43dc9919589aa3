// Made by scripts/generate from proto/nri.proto.
//! The bits that subscribe to the events of methods; 0: it is no event.
#![allow(non_upper_case_globals)]

pub const synchronize: i32 = 0x0;
pub const shutdown: i32 = 0x0;
pub const run_pod_sandbox: i32 = 0x1;
pub const update_pod_sandbox: i32 = 0x800;
pub const post_update_pod_sandbox: i32 = 0x1000;
pub const stop_pod_sandbox: i32 = 0x2;
pub const remove_pod_sandbox: i32 = 0x4;
pub const create_container: i32 = 0x8;
pub const post_create_container: i32 = 0x10;
pub const start_container: i32 = 0x20;
pub const post_start_container: i32 = 0x40;
pub const update_container: i32 = 0x80;
pub const post_update_container: i32 = 0x100;
pub const stop_container: i32 = 0x200;
pub const remove_container: i32 = 0x400;
pub const state_change: i32 = 0x577;
pub const validate_container_adjustment: i32 = 0x2000;
