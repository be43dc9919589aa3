//! What the engines have in common: the functions of the host, the whole call of a guest, and how
//! a call ends. Each engine has a room of its own that implements `Loaded`, `Running` and `Guest`.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The guest's allocator, in the ABI's words.
pub const MALLOC: &str = "malloc";
/// What gives back what `malloc` gave.
pub const FREE: &str = "free";
/// The export that is the guest's memory.
pub const MEMORY: &str = "memory";
/// Of the low word of a result: the bytes are a text that says what went wrong.
const ERROR_BIT: u64 = 1 << 31;
/// Tables of one module: ours, as for Wasmtime.
pub const MAX_TABLES: usize = 4;
/// Elements of one table: ours, as for Wasmtime; as many as functions, 8 bytes each.
pub const MAX_TABLE_ELEMENTS: u32 = 100_000;

/// Why there is no artifact of a module.
#[derive(Debug)]
pub enum Failure {
    /// The module is not valid, or asks for more than a plugin may have.
    Module(String),
    /// The engine failed.
    Engine(String),
}

impl Failure {
    /// The engine panicked, and said so.
    pub fn panic(says: &str) -> Self {
        Self::Engine(format!("the engine failed on the module: {says}"))
    }
}

/// An error of a function of the host.
pub type HostError = Box<dyn Error + Send + Sync>;

/// The types that functions of the host take and return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    I32,
    I64,
}

/// The type of a function of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub params: Vec<Kind>,
    pub result: Option<Kind>,
}

impl Signature {
    /// Whether this is the type of the ABI's own functions: (i32, i32) -> i64.
    pub fn is_method(&self) -> bool {
        self.params == [Kind::I32, Kind::I32] && self.result == Some(Kind::I64)
    }

    /// Whether the ABI has exports of this type: methods, malloc, free, the version, what starts.
    pub fn is_export(&self) -> bool {
        use Kind::{I32, I64};
        matches!(
            (self.params.as_slice(), self.result),
            ([], None | Some(I64)) | ([I32], None | Some(I32)) | ([I32, I32], Some(I64))
        )
    }
}

/// The functions that a guest may import.
pub trait Host: Send + Sync {
    /// Run the function at `place`. Integers come and go unsigned; no result is 0. An error ends
    /// the call of the guest and comes back from that call in `Stop::Host`.
    fn call(
        &self,
        guest: &mut dyn Guest,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, HostError>;
}

/// A guest within a call, as the host and the functions of the host see it.
pub trait Guest {
    /// Run an export within the time of the call. 0 without a result.
    fn run(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop>;
    /// Copy out of the memory. `Stop::Outside`.
    fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop>;
    /// Copy into the memory. `Stop::Outside`.
    fn write(&mut self, pointer: u32, data: &[u8]) -> Result<(), Stop>;
    /// What the module's own counter of fuel says; None: it counts none.
    fn fuel(&mut self) -> Option<i64>;
}

/// An instance. It belongs to one call at a time, on any thread.
pub trait Running: Guest + Send {
    /// Begin a call that may take so long.
    fn begin(&mut self, time: Duration);
    /// Set the module's own counter of fuel; whether there is one.
    fn set_fuel(&mut self, fuel: i64) -> bool;
    /// Bytes of memory held now.
    fn memory_bytes(&self) -> u64;
}

/// An exported function: name, types of its parameters and of its results in the text format.
pub type Exported = (String, Vec<String>, Vec<String>);

/// What an instance is made with.
pub struct Wanted {
    /// The functions that the module imports, with their types, in its order.
    pub host: Arc<dyn Host>,
    pub imports: Vec<Signature>,
    /// What will be called.
    pub exports: Vec<String>,
    /// The exported global that counts the module's fuel, if it is there.
    pub fuel: String,
    /// The most that its memory may hold.
    pub memory_bytes: u64,
    /// What its start may take.
    pub time: Duration,
}

/// A module that is ready to be instantiated. Instances keep alive what they need of it.
pub trait Loaded: Send + Sync {
    /// The functions that it exports.
    fn functions(&self) -> Vec<Exported>;
    /// An instance with its own memory, its start function run.
    ///
    /// The outer error says that module and caller do not agree.
    fn instantiate(&self, wanted: Wanted) -> Result<Result<Box<dyn Running>, Stop>, String>;
}

/// Why a call of a guest ended before its time. The instance is of no use afterwards.
#[derive(Debug)]
pub enum Stop {
    /// The guest did what ends it; in the words of the other engines.
    Trap { export: String, says: String },
    /// Its time was up.
    Time { export: String },
    /// The function at `place` failed.
    Host { export: String, place: usize, error: HostError },
    /// An access beyond the memory.
    Outside { action: &'static str, pointer: u32, size: usize, held: u64 },
    /// malloc gave nothing.
    Empty { size: usize },
    /// The reply is over its limit.
    Reply { export: String, size: u64 },
}

impl Stop {
    /// A trap in the words that the agent has for it.
    pub fn trap(export: &str, says: impl Into<String>) -> Self {
        Self::Trap { export: export.into(), says: says.into() }
    }
}

/// What a guest did that ended it, in the agent's words.
pub mod says {
    pub const STACK: &str = "call stack exhausted";
    pub const MEMORY: &str = "memory access out of bounds";
    pub const TABLE: &str = "table access out of bounds";
    pub const NULL: &str = "indirect call to null";
    pub const SIGNATURE: &str = "indirect call of another type";
    pub const OVERFLOW: &str = "integer overflow";
    pub const DIVISION: &str = "integer division by zero";
    pub const CONVERSION: &str = "invalid conversion to integer";
    pub const UNREACHABLE: &str = "unreachable executed";
}

/// What travels as a trap through the frames of a guest.
#[derive(Debug)]
pub enum Ended {
    /// The time of the call is up.
    Time,
    /// The function at this place failed.
    Host(usize, HostError),
}

impl Ended {
    /// As what a call of `export` ended.
    pub fn stop(self, export: &str) -> Stop {
        let export = export.to_owned();
        match self {
            Self::Time => Stop::Time { export },
            Self::Host(place, error) => Stop::Host { export, place, error },
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl Error for Ended {}

/// `Ended::Time` from `until` on.
pub fn in_time(until: Instant) -> Result<(), Ended> {
    if Instant::now() >= until { Err(Ended::Time) } else { Ok(()) }
}

/// What `work` gives; where it panics, what the panic says.
///
/// What it was about to change may be half done: nobody may use that any more.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("of unknown kind")
            .to_owned()
    })
}

/// What `call` gives; where the engine panics, such as Wasmer without addresses for a stack, a
/// trap.
pub fn trapped<T>(export: &str, call: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    guarded(call)
        .unwrap_or_else(|says| Err(Stop::trap(export, format!("the engine failed: {says}"))))
}

/// Run a function of the host for a guest whose call may last until then.
///
/// A panic ends the call as an error does, and here: wasmi's frames cannot be unwound, so that
/// one which came as far would end the process.
///
/// The clock is looked at afterwards: what counts a guest's instructions tells nothing of the
/// host's.
pub fn call_host(
    host: &dyn Host,
    guest: &mut dyn Guest,
    place: usize,
    arguments: &[u64],
    until: Instant,
) -> Result<u64, Ended> {
    let given = guarded(|| host.call(guest, place, arguments))
        .unwrap_or_else(|says| Err(format!("it panicked: {says}").into()))
        .map_err(|error| Ended::Host(place, error))?;
    in_time(until)?;
    Ok(given)
}

/// The whole call of a method of the ABI: malloc, write, run, read, free, free.
///
/// The reply, and whether it is the text of an error. A reply may have `reply_bytes`, of a text
/// the first `text_bytes` are taken.
pub fn exchange(
    guest: &mut dyn Guest,
    export: &str,
    request: &[u8],
    reply_bytes: u64,
    text_bytes: u64,
) -> Result<(Vec<u8>, bool), Stop> {
    let mut pointer = 0;
    if !request.is_empty() {
        let empty = || Stop::Empty { size: request.len() };
        let size = u32::try_from(request.len()).map_err(|_| empty())?;
        pointer = guest.run(MALLOC, size, 0)? as u32;
        if pointer == 0 {
            return Err(empty());
        }
        guest.write(pointer, request)?;
    }
    let result = guest.run(export, pointer, request.len() as u32)?;
    let (at, mut size) = ((result >> 32) as u32, result & (ERROR_BIT - 1));
    let failed = result & ERROR_BIT != 0;
    if failed {
        size = size.min(text_bytes);
    } else if size > reply_bytes {
        return Err(Stop::Reply { export: export.into(), size });
    }
    let reply = if size == 0 { Vec::new() } else { guest.read(at, size as usize)? };
    for given in [at, pointer] {
        if given != 0 {
            guest.run(FREE, given, 0)?;
        }
    }
    Ok((reply, failed))
}
