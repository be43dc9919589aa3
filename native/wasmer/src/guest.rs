//! Loading an artifact, making instances of it, and the whole call of a guest.

use std::cell::Cell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmer::sys::NativeEngineExt;
use wasmer::sys::vm::{TrapCode, drain_stack_pool};
use wasmer::{
    AsStoreMut, AsStoreRef, Engine, Extern, ExternType, Function, FunctionEnv, FunctionEnvMut,
    FunctionType, Global, Instance, InstantiationError, Memory, Module, RuntimeError, Store, Type,
    TypedFunction, Value,
};

use crate::image::Image;
use crate::limits::Limits;
use crate::meter::{self, RATION};

/// The guest's allocator, in the ABI's words.
pub const MALLOC: &str = "malloc";
/// What gives back what `malloc` gave.
pub const FREE: &str = "free";
const MEMORY: &str = "memory";
/// Of the low word of a result: the bytes are a text that says what went wrong.
const ERROR_BIT: u64 = 1 << 31;

/// The functions that a guest may import.
pub trait Host: Send + Sized + 'static {
    /// Run the one at `place`. Integers come and go unsigned; no result is 0. An error ends
    /// the call of the guest and comes back from it in `Stop::Host`.
    fn call(
        caller: &mut Caller<'_, Self>,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, Box<dyn Error + Send + Sync>>;
}

/// Why a call of a guest ended before its time. The instance is of no use afterwards.
#[derive(Debug)]
pub enum Stop {
    /// The guest did what ends it; in the words of the other engines.
    Trap { export: String, says: String },
    /// Its time was up.
    Time { export: String },
    /// The function at `place` failed.
    Host { export: String, place: usize, error: Box<dyn Error + Send + Sync> },
    /// An access beyond the memory.
    Outside { action: &'static str, pointer: u32, size: usize, held: u64 },
    /// malloc gave nothing.
    Empty { size: usize },
    /// The reply is over its limit.
    Reply { export: String, size: u64 },
}

/// What travels as a trap through the frames of a guest.
#[derive(Debug)]
enum Ended {
    Time,
    Host(usize, Box<dyn Error + Send + Sync>),
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl Error for Ended {}

/// An artifact that is mapped. Instances share its code and keep it alive.
pub struct Loaded {
    engine: Engine,
    module: Module,
    image: Option<Image>,
    stack_bytes: usize,
}

impl Loaded {
    /// Map an artifact of this version, settings and processor; says why it is none.
    ///
    /// The file is trusted and must stay as it is: what it holds is run.
    pub fn from_file(path: &Path, stack_bytes: usize) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut magic = [0; 4];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF" {
            return Err("it is no ELF image".into());
        }
        let image = Image::find(file).map_err(|error| error.to_string())?;
        // One engine for each: an engine keeps the code of all its modules until its own end.
        let engine = <Engine as NativeEngineExt>::headless();
        // SAFETY: runs whatever the file says. The agent comes here with files only that its own
        // compiler wrote, that nobody else may write, and that match the checksum which it keys
        // with a secret of the node (docs/adr/0008).
        let module = catch_unwind(AssertUnwindSafe(|| unsafe {
            Module::deserialize_from_file(&engine, path)
        }))
        .map_err(|_| "it is damaged".to_owned())?
        .map_err(|error| error.to_string())?;
        if module.info().exports.contains_key(meter::LEFT) {
            Ok(Self { engine, module, image, stack_bytes })
        } else {
            Err("its code asks for no time".into())
        }
    }

    /// The functions that it exports.
    pub fn functions(&self) -> Vec<(String, FunctionType)> {
        self.module
            .exports()
            .filter(|export| export.name() != meter::START)
            .filter_map(|export| match export.ty() {
                ExternType::Function(kind) => Some((export.name().to_owned(), kind.clone())),
                _ => None,
            })
            .collect()
    }
}

enum Export {
    Unit(TypedFunction<(), ()>),
    Version(TypedFunction<(), i64>),
    Malloc(TypedFunction<i32, i32>),
    Free(TypedFunction<i32, ()>),
    Method(TypedFunction<(i32, i32), i64>),
}

impl Export {
    fn find(name: &str, instance: &Instance, store: &Store) -> Option<Self> {
        let function = instance.exports.get_function(name).ok()?;
        None.or_else(|| function.typed(store).ok().map(Self::Method))
            .or_else(|| function.typed(store).ok().map(Self::Malloc))
            .or_else(|| function.typed(store).ok().map(Self::Free))
            .or_else(|| function.typed(store).ok().map(Self::Version))
            .or_else(|| function.typed(store).ok().map(Self::Unit))
    }

    fn call(
        &self,
        store: &mut impl AsStoreMut,
        first: u32,
        second: u32,
    ) -> Result<u64, RuntimeError> {
        let (first, second) = (first.cast_signed(), second.cast_signed());
        match self {
            Self::Unit(function) => function.call(store).map(|()| 0),
            Self::Version(function) => function.call(store).map(i64::cast_unsigned),
            Self::Malloc(function) => {
                function.call(store, first).map(|given| u64::from(given.cast_unsigned()))
            }
            Self::Free(function) => function.call(store, first).map(|()| 0),
            Self::Method(function) => function.call(store, first, second).map(i64::cast_unsigned),
        }
    }
}

/// What a call and the functions that it calls back share.
struct State<H> {
    host: H,
    until: Instant,
    memory: Option<Memory>,
    exports: Arc<HashMap<String, Export>>,
}

impl<H> State<H> {
    /// More units for a guest that owes some, or the end.
    fn ration(&self, owed: i64) -> Result<i64, Ended> {
        self.in_time()?;
        Ok(owed + RATION)
    }

    fn in_time(&self) -> Result<(), Ended> {
        if Instant::now() >= self.until { Err(Ended::Time) } else { Ok(()) }
    }
}

/// A guest that calls its host, as the host sees it.
pub struct Caller<'a, H: Send + 'static>(FunctionEnvMut<'a, State<H>>);

// SAFETY: as for `Running`, of whose store it is the only borrow.
unsafe impl<H: Host> Send for Caller<'_, H> {}

impl<H: Host> Caller<'_, H> {
    /// The host of this instance.
    pub fn host(&mut self) -> &mut H {
        &mut self.0.data_mut().host
    }

    /// Copy out of the guest's memory.
    pub fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        read(&self.0, self.0.data().memory.as_ref(), pointer, size)
    }

    /// Copy into the guest's memory.
    pub fn write(&self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        write(&self.0, self.0.data().memory.as_ref(), pointer, data)
    }

    /// Run an export within the time of the call that is running.
    pub fn call(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        let exports = Arc::clone(&self.0.data().exports);
        guarded(export, || run(&mut self.0, &exports, export, first, second))
    }
}

/// An instance. It belongs to one call at a time, on any thread.
pub struct Running<H: Host> {
    store: Store,
    env: FunctionEnv<State<H>>,
    fuel: Option<Global>,
    exports: Arc<HashMap<String, Export>>,
    memory: Option<Memory>,
    stack_bytes: usize,
}

// SAFETY: `Store` was `Send` until Wasmer 7 lost that by an oversight (its issue 7001): for the
// type of a handler that nobody sets here. All else that it points to it owns, functions and
// their state are `Send` by their bounds, and nothing of it belongs to a thread between calls.
unsafe impl<H: Host> Send for Running<H> {}

impl<H: Host> Running<H> {
    /// An instance with its own memory. Runs the module's start function within `time`.
    ///
    /// `kinds`: what the module imports, in its order; all are functions of `host`. `exports`:
    /// what will be called. `fuel`: the exported global that counts it. The outer error says that module and caller do not agree.
    pub fn new(
        loaded: &Loaded,
        host: H,
        kinds: &[FunctionType],
        exports: &[String],
        fuel: &str,
        memory_bytes: u64,
        time: Duration,
    ) -> Result<Result<Self, Stop>, String> {
        let mut engine = loaded.engine.clone();
        engine.set_tunables(Limits::new(memory_bytes, loaded.stack_bytes));
        let mut store = Store::new(engine);
        let state =
            State { host, until: Instant::now() + time, memory: None, exports: Arc::default() };
        let env = FunctionEnv::new(&mut store, state);
        let functions: Vec<Extern> = kinds
            .iter()
            .enumerate()
            .map(|(place, kind)| Extern::Function(import(&mut store, &env, place, kind)))
            .collect();
        use_stack(loaded.stack_bytes);
        let made = guarded("instantiation", || {
            Ok(Instance::new_by_index(&mut store, &loaded.module, &functions))
        });
        let instance = match made {
            Err(stop) => return Ok(Err(stop)),
            Ok(Ok(instance)) => instance,
            Ok(Err(InstantiationError::Start(error))) => {
                return Ok(Err(stopped("instantiation", error)));
            }
            Ok(Err(error)) => {
                let says = error.to_string();
                return Ok(Err(Stop::Trap { export: "instantiation".into(), says }));
            }
        };

        let ask = Function::new_typed_with_env(
            &mut store,
            &env,
            |env: FunctionEnvMut<'_, State<H>>, owed: i64| -> Result<i64, RuntimeError> {
                env.data().ration(owed).map_err(|ended| RuntimeError::user(Box::new(ended)))
            },
        );
        let table = instance.exports.get_table(meter::ASK).map_err(|error| error.to_string())?;
        table.set(&mut store, 0, Value::FuncRef(Some(ask))).map_err(|error| error.to_string())?;
        let fuel = instance.exports.get_global(fuel).ok().cloned();
        let memory = instance.exports.get_memory(MEMORY).ok().cloned();
        if let Some(image) = &loaded.image {
            let view = memory.as_ref().ok_or("its memory is not exported")?.view(&store);
            // SAFETY: it is the memory of this instance, in which nothing runs yet.
            unsafe { image.place(view.data_ptr(), view.data_size()) }
                .map_err(|error| format!("its memory cannot be mapped: {error}"))?;
        }
        let mut found = HashMap::new();
        for name in exports {
            let export = Export::find(name, &instance, &store)
                .ok_or_else(|| format!("the export {name} is no function of the ABI"))?;
            found.insert(name.clone(), export);
        }
        let exports = Arc::new(found);
        let state = env.as_mut(&mut store);
        state.memory = memory.clone();
        state.exports = Arc::clone(&exports);
        let stack_bytes = loaded.stack_bytes;
        let start = instance.exports.get_typed_function::<(), ()>(&store, meter::START).ok();
        let mut running = Self { store, env, fuel, exports, memory, stack_bytes };
        if let Some(start) = start {
            let store = &mut running.store;
            let started = guarded("instantiation", || {
                start.call(store).map_err(|error| stopped("instantiation", error))
            });
            if let Err(stop) = started {
                return Ok(Err(stop));
            }
        }
        Ok(Ok(running))
    }

    /// The host of this instance.
    pub fn host(&mut self) -> &mut H {
        &mut self.env.as_mut(&mut self.store).host
    }

    /// What the module's own counter of fuel says; None: it counts none.
    pub fn fuel(&mut self) -> Option<i64> {
        self.fuel.as_ref()?.get(&mut self.store).i64()
    }

    /// Set that counter; whether there is one.
    pub fn set_fuel(&mut self, fuel: i64) -> bool {
        let store = &mut self.store;
        self.fuel.as_ref().is_some_and(|counter| counter.set(store, Value::I64(fuel)).is_ok())
    }

    /// Begin a call that may take so long.
    fn begin(&mut self, time: Duration) {
        use_stack(self.stack_bytes);
        self.env.as_mut(&mut self.store).until = Instant::now() + time;
    }

    /// Run one export.
    pub fn call(
        &mut self,
        export: &str,
        first: u32,
        second: u32,
        time: Duration,
    ) -> Result<u64, Stop> {
        self.begin(time);
        let (store, exports) = (&mut self.store, &self.exports);
        guarded(export, || run(store, exports, export, first, second))
    }

    /// The whole call of a method of the ABI: malloc, write, run, read, free, free.
    ///
    /// The reply, and whether it is the text of an error. A reply may have `reply_bytes`, of a
    /// text the first `text_bytes` are taken.
    pub fn exchange(
        &mut self,
        export: &str,
        request: &[u8],
        reply_bytes: u64,
        text_bytes: u64,
        time: Duration,
    ) -> Result<(Vec<u8>, bool), Stop> {
        self.begin(time);
        let (store, exports, memory) = (&mut self.store, &self.exports, self.memory.as_ref());
        guarded(export, || {
            let mut pointer = 0;
            if !request.is_empty() {
                let size = u32::try_from(request.len())
                    .map_err(|_| Stop::Empty { size: request.len() })?;
                pointer = run(store, exports, MALLOC, size, 0)? as u32;
                if pointer == 0 {
                    return Err(Stop::Empty { size: request.len() });
                }
                write(store, memory, pointer, request)?;
            }
            let result = run(store, exports, export, pointer, request.len() as u32)?;
            let (at, mut size) = ((result >> 32) as u32, result & (ERROR_BIT - 1));
            let failed = result & ERROR_BIT != 0;
            if failed {
                size = size.min(text_bytes);
            } else if size > reply_bytes {
                return Err(Stop::Reply { export: export.into(), size });
            }
            let reply =
                if size == 0 { Vec::new() } else { read(store, memory, at, size as usize)? };
            for given in [at, pointer] {
                if given != 0 {
                    run(store, exports, FREE, given, 0)?;
                }
            }
            Ok((reply, failed))
        })
    }

    /// Copy out of the guest's memory.
    pub fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        read(&self.store, self.memory.as_ref(), pointer, size)
    }

    /// Copy into the guest's memory.
    pub fn write(&self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        write(&self.store, self.memory.as_ref(), pointer, data)
    }

    /// Bytes of memory held now.
    pub fn memory_bytes(&self) -> u64 {
        held(&self.store, self.memory.as_ref())
    }
}

/// A function of the host, to link.
/// Its time is looked at after each call: units tell nothing of what the host does.
fn import<H: Host>(
    store: &mut Store,
    env: &FunctionEnv<State<H>>,
    place: usize,
    kind: &FunctionType,
) -> Function {
    let call = move |env: FunctionEnvMut<'_, State<H>>, arguments: &[u64]| {
        let mut caller = Caller(env);
        let given = H::call(&mut caller, place, arguments);
        given
            .map_err(|error| Ended::Host(place, error))
            .and_then(|given| caller.0.data().in_time().map(|()| given))
            .map_err(|ended| RuntimeError::user(Box::new(ended)))
    };
    if *kind == FunctionType::new([Type::I32, Type::I32], [Type::I64]) {
        // The ABI's own type: by a shorter way.
        return Function::new_typed_with_env(
            store,
            env,
            move |env: FunctionEnvMut<'_, State<H>>, first: i32, second: i32| {
                let arguments = [first, second].map(|one| u64::from(one.cast_unsigned()));
                call(env, &arguments).map(u64::cast_signed)
            },
        );
    }
    let result = kind.results().first().copied();
    Function::new_with_env(store, env, kind.clone(), move |env, values| {
        let arguments: Vec<u64> = values.iter().map(unsigned).collect();
        let given = call(env, &arguments)?;
        Ok(match result {
            None => Vec::new(),
            Some(Type::I32) => vec![Value::I32((given as u32).cast_signed())],
            Some(_) => vec![Value::I64(given.cast_signed())],
        })
    })
}

fn unsigned(value: &Value) -> u64 {
    match value {
        Value::I32(value) => u64::from(value.cast_unsigned()),
        Value::I64(value) => value.cast_unsigned(),
        _ => 0, // no function of the agent takes anything else
    }
}

fn run(
    store: &mut impl AsStoreMut,
    exports: &HashMap<String, Export>,
    name: &str,
    first: u32,
    second: u32,
) -> Result<u64, Stop> {
    let Some(export) = exports.get(name) else {
        return Err(Stop::Trap { export: name.into(), says: "there is no such export".into() });
    };
    export.call(store, first, second).map_err(|error| stopped(name, error))
}

fn read(
    store: &impl AsStoreRef,
    memory: Option<&Memory>,
    pointer: u32,
    size: usize,
) -> Result<Vec<u8>, Stop> {
    let outside = || Stop::Outside { action: "read", pointer, size, held: held(store, memory) };
    let view = memory.ok_or_else(outside)?.view(store);
    // Looked at before memory is taken.
    if u64::from(pointer) + size as u64 > view.data_size() {
        return Err(outside());
    }
    let mut data = vec![0; size];
    view.read(u64::from(pointer), &mut data).map_err(|_| outside())?;
    Ok(data)
}

fn write(
    store: &impl AsStoreRef,
    memory: Option<&Memory>,
    pointer: u32,
    data: &[u8],
) -> Result<(), Stop> {
    let outside =
        || Stop::Outside { action: "write", pointer, size: data.len(), held: held(store, memory) };
    let view = memory.ok_or_else(outside)?.view(store);
    view.write(u64::from(pointer), data).map_err(|_| outside())
}

fn held(store: &impl AsStoreRef, memory: Option<&Memory>) -> u64 {
    memory.map_or(0, |memory| memory.view(store).data_size())
}

fn stopped(export: &str, error: RuntimeError) -> Stop {
    let export = export.to_owned();
    match error.downcast::<Ended>() {
        Ok(Ended::Time) => Stop::Time { export },
        Ok(Ended::Host(place, error)) => Stop::Host { export, place, error },
        Err(error) => {
            let message = error.message();
            let says = error.to_trap().and_then(said).map_or(message, str::to_owned);
            Stop::Trap { export, says }
        }
    }
}

/// A trap in the words that the agent has for it on each engine.
fn said(code: TrapCode) -> Option<&'static str> {
    Some(match code {
        TrapCode::StackOverflow => "call stack exhausted",
        TrapCode::HeapAccessOutOfBounds => "memory access out of bounds",
        TrapCode::HeapMisaligned | TrapCode::UnalignedAtomic => "misaligned atomic access",
        TrapCode::TableAccessOutOfBounds => "table access out of bounds",
        TrapCode::IndirectCallToNull => "indirect call to null",
        TrapCode::BadSignature => "indirect call of another type",
        TrapCode::IntegerOverflow => "integer overflow",
        TrapCode::IntegerDivisionByZero => "integer division by zero",
        TrapCode::BadConversionToInteger => "invalid conversion to integer",
        TrapCode::UnreachableCodeReached => "unreachable executed",
        _ => return None,
    })
}

/// What `call` gives; where Wasmer panics, such as without addresses for a stack, a trap.
fn guarded<T>(export: &str, call: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let says = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("of unknown kind");
        Err(Stop::Trap { export: export.into(), says: format!("the engine failed: {says}") })
    })
}

/// Let the calls of this thread run on stacks of this size.
///
/// Wasmer keeps the stacks of earlier calls and takes any that is large enough.
fn use_stack(bytes: usize) {
    thread_local!(static LAST: Cell<usize> = const { Cell::new(0) });
    if LAST.replace(bytes) != bytes {
        drain_stack_pool();
    }
}
