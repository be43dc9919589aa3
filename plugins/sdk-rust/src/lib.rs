//! The Rust SDK for NRI plugins in WebAssembly. A plugin is one type:
//!
//! ```ignore
//! use edge_nri::{bail, ContainerAdjustment, CreateContainerRequestView, CreateContainerResponse};
//! use edge_nri::{ConfigureRequestView, Plugin, Result};
//!
//! #[derive(Default)]
//! struct Marker;
//!
//! impl Plugin for Marker {
//!     fn create_container(
//!         &mut self, request: CreateContainerRequestView<'_>,
//!     ) -> Result<CreateContainerResponse> {
//!         let mut adjust = ContainerAdjustment::new();
//!         adjust.add_annotation("example/pod", request.pod().name());
//!         Ok(adjust.into())
//!     }
//! }
//!
//! edge_nri::plugin!(Marker: create_container);
//! ```
//!
//! `NameView` is a message that came, read in place; `Name` one that the plugin makes, with `set_` and
//! `add_` for its fields. [`plugin!`] exports exactly the methods that it names, and Configure
//! subscribes to exactly their events. An error that a method returns is the error reply; so is a
//! request that is malformed, and a reply that memory does not suffice for.
//!
//! `cargo test` runs a plugin without WebAssembly: [`testing::Harness`].

#![cfg_attr(all(not(feature = "std"), target_arch = "wasm32"), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

extern crate alloc;

pub mod conf;
#[doc(hidden)]
pub mod events;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
pub mod host;
#[rustfmt::skip]
mod nri;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod view;
pub mod wire;

use alloc::string::String;
use core::fmt::{self, Write};

pub use host::{report, state, update_containers, Level};
pub use nri::*;
pub use view::{Map, Repeated};

use wire::Buf;

/// Why a request fails: the text of the error reply.
///
/// `?` makes one of any other error; [`bail!`] returns one.
pub struct Error(Buf);

pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    pub fn new(text: impl fmt::Display) -> Self {
        let mut buf = Buf::new();
        let _ = write!(buf, "{text}"); // a text that writes nothing is an error all the same
        Self(buf)
    }

    /// Where memory runs out the text ends before its end.
    pub fn text(&self) -> &str {
        let bytes = self.0.bytes();
        core::str::from_utf8(bytes).unwrap_or_else(|error| {
            core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        })
    }
}

impl<E: core::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.text())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), to)
    }
}

/// The reply of a method: what `guest` and `testing` make of its result.
#[doc(hidden)]
pub fn reply(result: Result<Buf>, fault: &wire::Fault) -> core::result::Result<Buf, Buf> {
    let said = match result {
        _ if fault.is_set() => Err(Error::new("malformed message").0),
        Ok(reply) => Ok(reply),
        Err(error) => Err(error.0),
    };
    match said {
        Ok(buf) | Err(buf) if buf.is_full() => Err(Error::new("out of memory").0),
        said => said,
    }
}

/// Returns an [`Error`] of this text from the function.
#[macro_export]
macro_rules! bail {
    ($($text:tt)+) => {
        return ::core::result::Result::Err($crate::Error::new(::core::format_args!($($text)+)))
    };
}

/// Logs a line of this level.
#[macro_export]
macro_rules! log {
    ($level:ident, $($text:tt)+) => {
        $crate::host::log($crate::Level::$level, ::core::format_args!($($text)+))
    };
}

#[macro_export]
macro_rules! debug { ($($text:tt)+) => { $crate::log!(Debug, $($text)+) }; }
#[macro_export]
macro_rules! info { ($($text:tt)+) => { $crate::log!(Info, $($text)+) }; }
#[macro_export]
macro_rules! warn { ($($text:tt)+) => { $crate::log!(Warn, $($text)+) }; }
#[macro_export]
macro_rules! error { ($($text:tt)+) => { $crate::log!(Error, $($text)+) }; }

/// Makes a module of a type: `plugin!(Marker: create_container, stop_container);`
#[macro_export]
macro_rules! plugin {
    ($plugin:ty: $($method:ident),+ $(,)?) => {
        const _: () = {
            const EVENTS: i32 = 0 $(| $crate::events::$method)+;
            #[cfg(target_arch = "wasm32")]
            static PLUGIN: $crate::guest::Slot<$plugin> = $crate::guest::Slot::new();

            #[cfg(target_arch = "wasm32")]
            #[export_name = "malloc"]
            extern "C" fn malloc(size: u32) -> usize {
                $crate::guest::malloc(size)
            }

            #[cfg(target_arch = "wasm32")]
            #[export_name = "free"]
            extern "C" fn free(block: usize) {
                $crate::guest::free(block)
            }

            #[cfg(target_arch = "wasm32")]
            #[export_name = "plugin_api_version"]
            extern "C" fn api_version() -> u64 {
                1
            }

            #[cfg(target_arch = "wasm32")]
            #[export_name = "plugin_configure"]
            extern "C" fn configure(at: usize, size: u32) -> u64 {
                PLUGIN.serve(at, size, |plugin, request| {
                    $crate::methods::configure(plugin, request, EVENTS)
                })
            }

            $(
                #[cfg(target_arch = "wasm32")]
                #[export_name = concat!("plugin_", stringify!($method))]
                extern "C" fn $method(at: usize, size: u32) -> u64 {
                    PLUGIN.serve(at, size, $crate::methods::$method)
                }
            )+

            // Also where nothing is exported: names are checked, and the type is used.
            let _: (i32, fn() -> $plugin) = (EVENTS, ::core::default::Default::default);
        };
    };
}

// ---- pods and containers ----

/// The first `size` bytes at most, never half a character: for quoting in messages.
pub fn head(text: &str, size: usize) -> &str {
    let mut end = size.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A name as people know it: Docker Engine puts a slash before that of a container.
pub fn plain_name(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

/// Docker Engine has no pods: it tells of each container as of a pod of the same id, with nothing
/// else in it (moby, daemon/internal/nri, containerToNRI).
pub fn has_no_pod(pod: PodSandboxView<'_>, container: ContainerView<'_>) -> bool {
    !pod.id().is_empty() && pod.id() == container.id()
}

macro_rules! replies_by_adjustment {
    ($($reply:ident . $set:ident : $part:ident;)*) => { $(
        impl From<$part> for $reply {
            fn from(part: $part) -> Self {
                let mut reply = Self::new();
                reply.$set(&part);
                reply
            }
        }
    )* };
}

replies_by_adjustment! {
    CreateContainerResponse.set_adjust: ContainerAdjustment;
    UpdateContainerResponse.add_update: ContainerUpdate;
    StopContainerResponse.add_update: ContainerUpdate;
    SynchronizeResponse.add_update: ContainerUpdate;
    UpdateContainersRequest.add_update: ContainerUpdate;
}

impl ValidateContainerAdjustmentResponse {
    /// The container is not created, for this reason.
    pub fn rejecting(reason: impl fmt::Display) -> Self {
        let mut text = String::new();
        let _ = write!(text, "{reason}");
        let mut reply = Self::new();
        reply.set_reject(true).set_reason(&text);
        reply
    }
}
