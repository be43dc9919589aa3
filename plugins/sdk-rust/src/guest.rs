//! The ABI, as docs/plugins.md of edge-agent tells it: memory for the host, and its calls.

use alloc::vec::Vec;
use core::cell::RefCell;

use crate::view::View;
use crate::wire::{Buf, Fault};
use crate::{reply, Error, Plugin, Result};

pub const ERROR_BIT: u64 = 1 << 31;
const NO_MEMORY: &str = "out of memory";

/// A value of the only thread that there is.
struct Single<T>(RefCell<T>);

// SAFETY: a module without shared memory has one thread.
unsafe impl<T> Sync for Single<T> {}

/// What the host took and has not given back: a request, a reply, a host function's reply.
static BLOCKS: Single<Vec<Vec<u8>>> = Single(RefCell::new(Vec::new()));

/// 0: there is no memory for it.
pub fn malloc(size: u32) -> usize {
    let mut block = Vec::new();
    let size = size.max(1) as usize;
    if block.try_reserve_exact(size).is_err() {
        return 0;
    }
    block.resize(size, 0);
    keep(block)
}

/// What is no block is left alone: a reply may be a constant.
pub fn free(block: usize) {
    take(block);
}

fn keep(block: Vec<u8>) -> usize {
    let at = block.as_ptr() as usize;
    let Ok(mut blocks) = BLOCKS.0.try_borrow_mut() else {
        return 0;
    };
    if blocks.try_reserve(1).is_err() {
        return 0;
    }
    blocks.push(block);
    at
}

/// Takes a block back.
pub fn take(at: usize) -> Option<Vec<u8>> {
    let mut blocks = BLOCKS.0.try_borrow_mut().ok()?;
    let which = blocks
        .iter()
        .position(|block| block.as_ptr() as usize == at)?;
    Some(blocks.swap_remove(which))
}

/// The plugin, made at the host's first call.
pub struct Slot<P>(Single<Option<P>>);

impl<P: Plugin> Slot<P> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(Single(RefCell::new(None)))
    }

    /// Answers a call of the host: pointer in the high word, size in the low, bit 31 for an error.
    pub fn serve(
        &self,
        at: usize,
        size: u32,
        method: impl FnOnce(&mut P, View<'_>) -> Result<Buf>,
    ) -> u64 {
        let request = if size == 0 {
            Some(Vec::new())
        } else {
            take(at)
        };
        let fault = Fault::new();
        let result = match (&request, self.0 .0.try_borrow_mut()) {
            (Some(bytes), Ok(mut plugin)) => {
                let bytes = bytes.get(..size as usize).unwrap_or_default();
                method(plugin.get_or_insert_with(begin), View::new(bytes, &fault))
            }
            _ => Err(Error::new("the host broke the ABI")),
        };
        if let Some(request) = request {
            keep(request); // until the host frees it
        }
        let (error, buf) = match reply(result, &fault) {
            Ok(buf) => (0, buf),
            Err(buf) => (ERROR_BIT, buf),
        };
        let bytes = buf.into_bytes();
        if bytes.is_empty() {
            return error;
        }
        let size = bytes.len() as u64;
        match keep(bytes) {
            0 => pack(NO_MEMORY.as_ptr() as usize, NO_MEMORY.len() as u64) | ERROR_BIT,
            at => pack(at, size) | error,
        }
    }
}

fn pack(at: usize, size: u64) -> u64 {
    (at as u64) << 32 | size
}

fn begin<P: Plugin>() -> P {
    #[cfg(feature = "std")]
    std::panic::set_hook(alloc::boxed::Box::new(|info| crate::error!("{info}")));
    P::default()
}
