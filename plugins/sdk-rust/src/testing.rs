//! Runs a plugin in a native test, without WebAssembly: `cargo test`.
//!
//! ```ignore
//! let mut harness = Harness::<Marker>::new();
//! harness.configure("").unwrap();
//! let mut request = CreateContainerRequest::new();
//! request.set_pod(PodSandbox::new().add_label("app", "web"));
//! let reply = harness.create_container(&request).unwrap();
//! assert_eq!(reply.view().adjust().annotations().get("example/app"), Some("web"));
//! assert_eq!(harness.lines(), ["info: marked"]);
//! ```
//!
//! Calls of the host are kept by thread, so tests do not see those of each other.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::cell::RefCell;
use std::thread_local;

use crate::view::View;
use crate::wire::{Buf, Fault};
use crate::{reply, Plugin, Result, UpdateContainersRequest};

/// What a plugin said to its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub kind: String,
    pub payload: Vec<u8>,
    pub content_type: String,
}

#[derive(Default)]
struct Host {
    lines: Vec<String>,
    reports: Vec<Report>,
    updates: Vec<UpdateContainersRequest>,
    state: BTreeMap<String, Vec<u8>>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// One instance of a plugin, and its host.
pub struct Harness<P> {
    plugin: P,
}

impl<P: Plugin> Default for Harness<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Plugin> Harness<P> {
    /// A new plugin, and a host without state.
    pub fn new() -> Self {
        HOST.take();
        Self {
            plugin: P::default(),
        }
    }

    /// A new instance of the plugin, which has the state of the one before.
    pub fn restart(&mut self) {
        self.plugin = P::default();
    }

    /// Log lines since the last time, as "level: text".
    pub fn lines(&mut self) -> Vec<String> {
        HOST.with_borrow_mut(|host| core::mem::take(&mut host.lines))
    }

    /// Reports since the last time.
    pub fn reports(&mut self) -> Vec<Report> {
        HOST.with_borrow_mut(|host| core::mem::take(&mut host.reports))
    }

    /// Requests for updates since the last time.
    pub fn updates(&mut self) -> Vec<UpdateContainersRequest> {
        HOST.with_borrow_mut(|host| core::mem::take(&mut host.updates))
    }

    pub fn state(&self, key: &str) -> Option<Vec<u8>> {
        HOST.with_borrow(|host| host.state.get(key).cloned())
    }

    /// As the host calls it: any bytes, and the reply's or the error's.
    pub fn call(
        &mut self,
        method: impl FnOnce(&mut P, View<'_>) -> Result<Buf>,
        request: &[u8],
    ) -> core::result::Result<Buf, String> {
        let fault = Fault::new();
        let result = method(&mut self.plugin, View::new(request, &fault));
        reply(result, &fault).map_err(|text| String::from_utf8_lossy(text.bytes()).into_owned())
    }
}

/// The host's functions as an agent would answer them, with its limits (docs/plugins.md).
pub(crate) mod call {
    use super::*;
    use crate::bail;

    const REPORT_BYTES: usize = 16 << 10;
    const STATE_BYTES: usize = 64 << 10;
    const STATE_KEYS: usize = 1024;
    const KEY_BYTES: usize = 256;

    fn read<T>(request: &Buf, with: impl FnOnce(View<'_>, &mut Host) -> Result<T>) -> Result<T> {
        if request.is_full() {
            bail!("out of memory");
        }
        HOST.with_borrow_mut(|host| with(View::of(request), host))
    }

    pub fn log(request: &Buf) -> Result<Vec<u8>> {
        read(request, |line, host| {
            let level = match line.one(2) {
                1 => "debug",
                2 => "info",
                3 => "warn",
                _ => "error",
            };
            let text: &str = line.one(1);
            host.lines.push(format!("{level}: {text}"));
            Ok(Vec::new())
        })
    }

    pub fn report(request: &Buf) -> Result<Vec<u8>> {
        read(request, |report, host| {
            let payload = report.one::<View>(2).bytes();
            if payload.len() > REPORT_BYTES {
                bail!(
                    "a report of {} bytes, at most {REPORT_BYTES}",
                    payload.len()
                );
            }
            host.reports.push(Report {
                kind: report.one::<&str>(1).to_string(),
                payload: payload.to_vec(),
                content_type: report.one::<&str>(3).to_string(),
            });
            Ok(Vec::new())
        })
    }

    pub fn update_containers(request: &Buf) -> Result<Vec<u8>> {
        read(request, |_, host| {
            host.updates
                .push(UpdateContainersRequest::from_buf(request.clone()));
            Ok(Vec::new())
        })
    }

    pub fn state_get(request: &Buf) -> Result<Vec<u8>> {
        read(request, |asked, host| {
            let mut reply = Buf::new();
            if let Some(value) = host.state.get(asked.one::<&str>(1)) {
                reply.put_bytes(1, value);
                reply.put_number(2, 1);
            }
            Ok(reply.into_bytes())
        })
    }

    pub fn state_put(request: &Buf) -> Result<Vec<u8>> {
        read(request, |put, host| {
            let (key, value): (&str, View) = (put.one(1), put.one(2));
            let before = host.state.remove(key);
            let taken: usize = host
                .state
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            if value.bytes().is_empty() {
                return Ok(Vec::new());
            }
            if key.is_empty()
                || key.len() > KEY_BYTES
                || host.state.len() == STATE_KEYS
                || taken + key.len() + value.bytes().len() > STATE_BYTES
            {
                host.state
                    .extend(before.map(|value| (key.to_string(), value)));
                bail!(
                    "the state takes {STATE_KEYS} keys of {KEY_BYTES} bytes, {STATE_BYTES} in all"
                );
            }
            host.state.insert(key.to_string(), value.bytes().to_vec());
            Ok(Vec::new())
        })
    }
}
