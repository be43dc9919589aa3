//! What a plugin asks of its host: log lines, reports, state, updates of other containers.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::view::View;
use crate::wire::{Buf, Fault};
use crate::{Result, UpdateContainersRequest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug = 1,
    Info,
    Warn,
    Error,
}

/// Writes a line to the agent's log; [`crate::info!`] and others call this. A line that the host
/// drops, because there are too many, is nothing that a plugin could mend.
pub fn log(level: Level, text: fmt::Arguments<'_>) {
    let (mut line, mut request) = (Buf::new(), Buf::new());
    let _ = line.write_fmt(text);
    // The level goes first: a host that cuts a long line then still has it.
    request.put_number(2, level as u64);
    request.put_message(1, &line);
    let _ = call::log(&request);
}

/// Publishes a result of the plugin's own making, with the event that is running.
pub fn report(kind: &str, payload: &[u8], content_type: &str) -> Result<()> {
    let mut request = Buf::new();
    request.put_bytes(1, kind.as_bytes());
    request.put_bytes(2, payload);
    request.put_bytes(3, content_type.as_bytes());
    call::report(&request).map(drop)
}

/// Asks for updates of containers other than the event's, sent after the event has been answered.
pub fn update_containers(request: &UpdateContainersRequest) -> Result<()> {
    call::update_containers(request.buf()).map(drop)
}

/// Keys and values that outlive the instance: 64 KiB in all.
pub mod state {
    use super::*;

    pub fn get(key: &str) -> Result<Option<Vec<u8>>> {
        let mut request = Buf::new();
        request.put_bytes(1, key.as_bytes());
        let reply = call::state_get(&request)?;
        let fault = Fault::new();
        let reply = View::new(&reply, &fault);
        if !reply.one::<bool>(2) {
            return Ok(None);
        }
        let mut value = Buf::new();
        value.put(reply.one::<View>(1).bytes());
        if value.is_full() {
            crate::bail!("out of memory");
        }
        Ok(Some(value.into_bytes()))
    }

    /// An empty value removes the key.
    pub fn put(key: &str, value: &[u8]) -> Result<()> {
        let mut request = Buf::new();
        request.put_bytes(1, key.as_bytes());
        request.put_bytes(2, value);
        call::state_put(&request).map(drop)
    }

    pub fn remove(key: &str) -> Result<()> {
        put(key, &[])
    }
}

/// The host's functions: what the reply says, or why the host refused.
#[cfg(target_arch = "wasm32")]
mod call {
    use alloc::vec::Vec;

    use crate::guest::{take, ERROR_BIT};
    use crate::wire::Buf;
    use crate::{bail, Error, Result};

    mod import {
        #[link(wasm_import_module = "env")]
        extern "C" {
            pub fn log(at: *const u8, size: usize) -> u64;
        }

        #[link(wasm_import_module = "edge")]
        extern "C" {
            pub fn report(at: *const u8, size: usize) -> u64;
            pub fn update_containers(at: *const u8, size: usize) -> u64;
            pub fn state_get(at: *const u8, size: usize) -> u64;
            pub fn state_put(at: *const u8, size: usize) -> u64;
        }
    }

    macro_rules! functions {
        ($($name:ident)*) => { $(
            pub fn $name(request: &Buf) -> Result<Vec<u8>> {
                if request.is_full() {
                    bail!("out of memory");
                }
                let bytes = request.bytes();
                // SAFETY: the host only reads these bytes, and calls nothing but `malloc`.
                let packed = unsafe { import::$name(bytes.as_ptr(), bytes.len()) };
                let reply = take((packed >> 32) as usize).unwrap_or_default();
                if packed & ERROR_BIT == 0 {
                    return Ok(reply);
                }
                Err(Error::new(core::str::from_utf8(&reply).unwrap_or("the host refused")))
            }
        )* };
    }

    functions! { log report update_containers state_get state_put }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::call;
