//! What a guest may take, how it ends, what its host sees: on each engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::guest::{
    Failure, Guest, Host, HostError, Kind, Loaded, Running, Signature, Stop, Wanted, exchange,
};
#[cfg(has_wasmer)]
use crate::wasmer;
use crate::wasmi;

mod calls;
mod limits;
mod refused;

pub const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);
pub const STACK_BYTES: usize = 256 << 10;
pub const PAGE: u64 = 65536;

/// The ABI's own functions; a test adds what `plugin_configure` does.
pub const ABI: &str = r#"
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 4096))
  (func $malloc (export "malloc") (param i32) (result i32)
    global.get $top
    (global.set $top (i32.add (global.get $top) (local.get 0))))
  (func (export "free") (param i32)
    (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1))))
  (func (export "plugin_api_version") (result i64) i64.const 1)
  (func (export "plugin_echo") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32))
            (i64.extend_i32_u (local.get 1))))"#;

/// Adds its arguments; 13 it refuses, 14 it panics at; for 1000 it asks the guest for memory.
struct Adder;

impl Host for Adder {
    fn call(
        &self,
        guest: &mut dyn Guest,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, HostError> {
        match arguments.first() {
            Some(13) => Err("unlucky".into()),
            Some(14) => panic!("beside itself with {}", arguments.len()),
            // What the guest runs calls the host in turn.
            Some(1014) => match guest.run("plugin_configure", 14, 0) {
                Err(Stop::Host { error, .. }) => Err(format!("within: {error}").into()),
                other => Ok(u64::from(other.is_ok())),
            },
            Some(1000) => {
                let at = guest.run("malloc", 8, 0).map_err(|stop| format!("{stop:?}"))? as u32;
                guest.write(at, b"borrowed").map_err(|stop| format!("{stop:?}"))?;
                assert_eq!(guest.read(at, 8).unwrap(), b"borrowed");
                assert!(guest.read(u32::MAX, 2).is_err());
                Ok(u64::from(at) << 32 | 8)
            }
            _ => Ok(arguments.iter().sum::<u64>() + place as u64),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Engine {
    #[cfg(has_wasmer)]
    Wide,
    #[cfg(has_wasmer)]
    Narrow,
    Wasmi,
}

#[cfg(has_wasmer)]
const ENGINES: [Engine; 3] = [Engine::Wide, Engine::Narrow, Engine::Wasmi];
#[cfg(not(has_wasmer))]
const ENGINES: [Engine; 1] = [Engine::Wasmi];

impl Engine {
    fn compile(self, wasm: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            #[cfg(has_wasmer)]
            Self::Wide => wasmer::compile::compile(wasm, true, None),
            #[cfg(has_wasmer)]
            Self::Narrow => wasmer::compile::compile(wasm, false, None),
            Self::Wasmi => wasmi::compile::compile(wasm),
        }
    }

    fn read(self, path: &Path) -> Result<Box<dyn Loaded>, String> {
        Ok(match self {
            #[cfg(has_wasmer)]
            Self::Wide | Self::Narrow => {
                Box::new(wasmer::guest::Loaded::from_file(path, STACK_BYTES)?)
            }
            Self::Wasmi => Box::new(wasmi::guest::Loaded::from_file(path, STACK_BYTES)?),
        })
    }

    pub fn load(self, wat: &str) -> Box<dyn Loaded> {
        let path = file();
        fs::write(&path, self.compile(&wat::parse_str(wat).unwrap()).unwrap()).unwrap();
        let loaded = self.read(&path).unwrap();
        fs::remove_file(path).unwrap(); // what is mapped stays
        loaded
    }

    fn start(self, imports: &str, body: &str, kinds: &[Signature]) -> Made {
        let configure =
            format!(r#"(func (export "plugin_configure") (param i32 i32) (result i64) {body})"#);
        let loaded = self.load(&format!("(module {imports} {ABI} {configure})"));
        made(loaded.as_ref(), kinds, &exports(), 4 * PAGE, LONG)
    }
}

type Made = Result<Box<dyn Running>, Stop>;

pub fn made(
    loaded: &dyn Loaded,
    imports: &[Signature],
    exports: &[String],
    memory_bytes: u64,
    time: Duration,
) -> Made {
    loaded.instantiate(wanted(imports, exports, memory_bytes, time)).unwrap()
}

fn wanted(imports: &[Signature], exports: &[String], memory_bytes: u64, time: Duration) -> Wanted {
    Wanted {
        host: Arc::new(Adder),
        imports: imports.to_vec(),
        exports: exports.to_vec(),
        fuel: "fuel".to_owned(),
        memory_bytes,
        time,
    }
}

pub fn file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("edge-agent-engines-{}-{number}", std::process::id()))
}

pub fn exports() -> Vec<String> {
    ["malloc", "free", "plugin_api_version", "plugin_echo", "plugin_configure"]
        .map(str::to_owned)
        .to_vec()
}

fn method() -> Signature {
    Signature { params: vec![Kind::I32, Kind::I32], result: Some(Kind::I64) }
}

type Exchanged = Result<(Vec<u8>, bool), Stop>;

fn configure(running: &mut Box<dyn Running>, time: Duration) -> Exchanged {
    running.begin(time);
    exchange(running.as_mut(), "plugin_configure", b"request", 1 << 20, 4096)
}

fn value(running: &mut Box<dyn Running>) -> u64 {
    running.begin(LONG);
    running.run("plugin_configure", 0, 0).unwrap()
}
