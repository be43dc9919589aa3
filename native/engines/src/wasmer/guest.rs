//! Loading an artifact, making instances of it, and running them.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
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

use super::image::Image;
use super::limits::Limits;
use super::meter::{self, RATION};
use super::target;
use crate::guest::{
    self, Ended, Exported, Guest, Host, Kind, MEMORY, Signature, Stop, Wanted, call_host, guarded,
    in_time, says, trapped,
};

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
        let mut head = [0; 20];
        if file.read_exact_at(&mut head, 0).is_err() || !head.starts_with(b"\x7fELF") {
            return Err("it is no ELF image".into());
        }
        // Wasmer itself maps whatever it is.
        if target::Kind::here().is_none_or(|kind| head[18..] != kind.machine.to_le_bytes()) {
            return Err("it is for another kind of processor".into());
        }
        let image = Image::find(file).map_err(|error| error.to_string())?;
        // One engine for each: an engine keeps the code of all its modules until its own end.
        let engine = <Engine as NativeEngineExt>::headless();
        // SAFETY: runs whatever the file says. The agent comes here with files only that its own
        // compiler wrote, that nobody else may write, and that match the checksum which it keys
        // with a secret of the node (docs/adr/0008).
        let module = guarded(|| unsafe { Module::deserialize_from_file(&engine, path) })
            .map_err(|_| "it is damaged".to_owned())?
            .map_err(|error| error.to_string())?;
        if module.info().exports.contains_key(meter::LEFT) {
            Ok(Self { engine, module, image, stack_bytes })
        } else {
            Err("its code asks for no time".into())
        }
    }
}

impl guest::Loaded for Loaded {
    fn functions(&self) -> Vec<Exported> {
        let names =
            |kinds: &[Type]| kinds.iter().map(|kind| kind.to_string().to_lowercase()).collect();
        self.module
            .exports()
            .filter(|export| export.name() != meter::START)
            .filter_map(|export| match export.ty() {
                ExternType::Function(kind) => {
                    Some((export.name().to_owned(), names(kind.params()), names(kind.results())))
                }
                _ => None,
            })
            .collect()
    }

    fn instantiate(&self, wanted: Wanted) -> Result<Result<Box<dyn guest::Running>, Stop>, String> {
        let made = Running::new(self, wanted)?;
        Ok(made.map(|running| Box::new(running) as Box<dyn guest::Running>))
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
struct State {
    until: Instant,
    memory: Option<Memory>,
    fuel: Option<Global>,
    exports: Arc<HashMap<String, Export>>,
}

impl State {
    /// More units for a guest that owes some, or the end.
    fn ration(&self, owed: i64) -> Result<i64, Ended> {
        in_time(self.until)?;
        Ok(owed + RATION)
    }
}

/// A guest that calls its host, as the host sees it.
struct Caller<'a>(FunctionEnvMut<'a, State>);

impl Guest for Caller<'_> {
    fn run(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        let exports = Arc::clone(&self.0.data().exports);
        run(&mut self.0, &exports, export, first, second)
    }

    fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        read(&self.0, self.0.data().memory.as_ref(), pointer, size)
    }

    fn write(&mut self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        write(&self.0, self.0.data().memory.as_ref(), pointer, data)
    }

    fn fuel(&mut self) -> Option<i64> {
        self.0.data().fuel.clone()?.get(&mut self.0).i64()
    }
}

/// An instance.
struct Running {
    store: Store,
    env: FunctionEnv<State>,
    fuel: Option<Global>,
    exports: Arc<HashMap<String, Export>>,
    memory: Option<Memory>,
    stack_bytes: usize,
}

// SAFETY: `Store` was `Send` until Wasmer 7 lost that by an oversight (its issue 7001): for the
// type of a handler that nobody sets here. All else that it points to it owns, functions and
// their state are `Send` by their bounds, and nothing of it belongs to a thread between calls.
unsafe impl Send for Running {}

impl Running {
    fn new(loaded: &Loaded, wanted: Wanted) -> Result<Result<Self, Stop>, String> {
        let mut engine = loaded.engine.clone();
        engine.set_tunables(Limits::new(wanted.memory_bytes, loaded.stack_bytes));
        let mut store = Store::new(engine);
        let until = Instant::now() + wanted.time;
        let state = State { until, memory: None, fuel: None, exports: Arc::default() };
        let env = FunctionEnv::new(&mut store, state);
        let functions: Vec<Extern> = wanted
            .imports
            .iter()
            .enumerate()
            .map(|(place, kind)| {
                Extern::Function(import(&mut store, &env, Arc::clone(&wanted.host), place, kind))
            })
            .collect();
        use_stack(loaded.stack_bytes);
        let made = trapped("instantiation", || {
            Ok(Instance::new_by_index(&mut store, &loaded.module, &functions))
        });
        let instance = match made {
            Err(stop) => return Ok(Err(stop)),
            Ok(Ok(instance)) => instance,
            Ok(Err(InstantiationError::Start(error))) => {
                return Ok(Err(stopped("instantiation", error)));
            }
            Ok(Err(error)) => return Ok(Err(Stop::trap("instantiation", error.to_string()))),
        };

        let ask = Function::new_typed_with_env(
            &mut store,
            &env,
            |env: FunctionEnvMut<'_, State>, owed: i64| -> Result<i64, RuntimeError> {
                env.data().ration(owed).map_err(|ended| RuntimeError::user(Box::new(ended)))
            },
        );
        let table = instance.exports.get_table(meter::ASK).map_err(|error| error.to_string())?;
        table.set(&mut store, 0, Value::FuncRef(Some(ask))).map_err(|error| error.to_string())?;
        let fuel = instance.exports.get_global(&wanted.fuel).ok().cloned();
        let memory = instance.exports.get_memory(MEMORY).ok().cloned();
        if let Some(image) = &loaded.image {
            let view = memory.as_ref().ok_or("its memory is not exported")?.view(&store);
            // SAFETY: it is the memory of this instance, in which nothing runs yet.
            unsafe { image.place(view.data_ptr(), view.data_size()) }
                .map_err(|error| format!("its memory cannot be mapped: {error}"))?;
        }
        let mut found = HashMap::new();
        for name in &wanted.exports {
            let export = Export::find(name, &instance, &store)
                .ok_or_else(|| format!("the export {name} is no function of the ABI"))?;
            found.insert(name.clone(), export);
        }
        let exports = Arc::new(found);
        let state = env.as_mut(&mut store);
        state.memory = memory.clone();
        state.fuel = fuel.clone();
        state.exports = Arc::clone(&exports);
        let stack_bytes = loaded.stack_bytes;
        let start = instance.exports.get_typed_function::<(), ()>(&store, meter::START).ok();
        let mut running = Self { store, env, fuel, exports, memory, stack_bytes };
        if let Some(start) = start {
            let store = &mut running.store;
            let started = trapped("instantiation", || {
                start.call(store).map_err(|error| stopped("instantiation", error))
            });
            if let Err(stop) = started {
                return Ok(Err(stop));
            }
        }
        Ok(Ok(running))
    }
}

impl guest::Running for Running {
    fn begin(&mut self, time: Duration) {
        use_stack(self.stack_bytes);
        self.env.as_mut(&mut self.store).until = Instant::now() + time;
    }

    fn set_fuel(&mut self, fuel: i64) -> bool {
        let store = &mut self.store;
        self.fuel.as_ref().is_some_and(|counter| counter.set(store, Value::I64(fuel)).is_ok())
    }

    fn memory_bytes(&self) -> u64 {
        held(&self.store, self.memory.as_ref())
    }
}

impl Guest for Running {
    fn run(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        let (store, exports) = (&mut self.store, &self.exports);
        run(store, exports, export, first, second)
    }

    fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        read(&self.store, self.memory.as_ref(), pointer, size)
    }

    fn write(&mut self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        write(&self.store, self.memory.as_ref(), pointer, data)
    }

    fn fuel(&mut self) -> Option<i64> {
        self.fuel.as_ref()?.get(&mut self.store).i64()
    }
}

/// A function of the host, to link.
fn import(
    store: &mut Store,
    env: &FunctionEnv<State>,
    host: Arc<dyn Host>,
    place: usize,
    signature: &Signature,
) -> Function {
    let call = move |env: FunctionEnvMut<'_, State>, arguments: &[u64]| {
        let until = env.data().until;
        call_host(&*host, &mut Caller(env), place, arguments, until)
            .map_err(|ended| RuntimeError::user(Box::new(ended)))
    };
    if signature.is_method() {
        // The ABI's own type: by a shorter way.
        return Function::new_typed_with_env(
            store,
            env,
            move |env: FunctionEnvMut<'_, State>, first: i32, second: i32| {
                let arguments = [first, second].map(|one| u64::from(one.cast_unsigned()));
                call(env, &arguments).map(u64::cast_signed)
            },
        );
    }
    let result = signature.result;
    let kind = FunctionType::new(
        signature.params.iter().copied().map(kind).collect::<Vec<_>>(),
        result.map(kind).into_iter().collect::<Vec<_>>(),
    );
    Function::new_with_env(store, env, kind, move |env, values| {
        let arguments: Vec<u64> = values.iter().map(unsigned).collect();
        let given = call(env, &arguments)?;
        Ok(match result {
            None => Vec::new(),
            Some(Kind::I32) => vec![Value::I32((given as u32).cast_signed())],
            Some(Kind::I64) => vec![Value::I64(given.cast_signed())],
        })
    })
}

fn kind(kind: Kind) -> Type {
    match kind {
        Kind::I32 => Type::I32,
        Kind::I64 => Type::I64,
    }
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
        return Err(Stop::trap(name, "there is no such export"));
    };
    trapped(name, || export.call(store, first, second).map_err(|error| stopped(name, error)))
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
    match error.downcast::<Ended>() {
        Ok(ended) => ended.stop(export),
        Err(error) => {
            let message = error.message();
            Stop::trap(export, error.to_trap().and_then(said).map_or(message, str::to_owned))
        }
    }
}

/// A trap in the words that the agent has for it on each engine.
fn said(code: TrapCode) -> Option<&'static str> {
    Some(match code {
        TrapCode::StackOverflow => says::STACK,
        TrapCode::HeapAccessOutOfBounds => says::MEMORY,
        TrapCode::HeapMisaligned | TrapCode::UnalignedAtomic => "misaligned atomic access",
        TrapCode::TableAccessOutOfBounds => says::TABLE,
        TrapCode::IndirectCallToNull => says::NULL,
        TrapCode::BadSignature => says::SIGNATURE,
        TrapCode::IntegerOverflow => says::OVERFLOW,
        TrapCode::IntegerDivisionByZero => says::DIVISION,
        TrapCode::BadConversionToInteger => says::CONVERSION,
        TrapCode::UnreachableCodeReached => says::UNREACHABLE,
        _ => return None,
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
