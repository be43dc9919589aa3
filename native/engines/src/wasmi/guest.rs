//! Instances of the interpreter. Its own fuel keeps the deadline: a guest runs for a slice of
//! fuel, then the clock is looked at, and the guest goes on or ends.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmi::errors::{MemoryError, TableError};
use wasmi::{
    AsContext, AsContextMut, Caller as Calling, CompilationMode, Engine, Error, Extern, ExternType,
    Func, FuncType, Global, Instance, Memory, Module, ResourceLimiter, Store, StoreLimits,
    StoreLimitsBuilder, TrapCode, TypedFunc, TypedResumableCall, Val, ValType, WasmParams,
    WasmResults,
};
use wasmi_core::LimiterError;

use super::compile::{EAGER, LAZY, MAGIC, START, engine};
use crate::guest::{
    self, Ended, Exported, Guest, Host, Kind, MAX_TABLE_ELEMENTS, MAX_TABLES, MEMORY, Signature,
    Stop, Wanted, in_time,
};

/// Units of fuel between two looks at the clock: about one for an instruction and for 64 bytes
/// that a bulk operation moves (wasmi 2.0.0, `DefaultFuelCosts`). 0.3 ms of a fast processor,
/// some 5 ms of a slow one.
const FUEL_SLICE: u64 = 100_000;

/// A module that was read and validated.
pub struct Loaded {
    engine: Engine,
    module: Module,
}

impl Loaded {
    /// Read an artifact; says why it is none.
    pub fn from_file(path: &Path, stack_bytes: usize) -> Result<Self, String> {
        let artifact = std::fs::read(path).map_err(|error| error.to_string())?;
        let (mode, wasm) = match artifact.strip_prefix(MAGIC) {
            Some([LAZY, wasm @ ..]) => (CompilationMode::LazyTranslation, wasm),
            Some([EAGER, wasm @ ..]) => (CompilationMode::Eager, wasm),
            _ => return Err("it does not begin as one".into()),
        };
        let engine = engine(stack_bytes, mode);
        let module = Module::new(&engine, wasm).map_err(|error| error.to_string())?;
        Ok(Self { engine, module })
    }
}

impl guest::Loaded for Loaded {
    fn functions(&self) -> Vec<Exported> {
        let names = |kinds: &[ValType]| {
            kinds.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect()
        };
        self.module
            .exports()
            .filter(|export| export.name() != START)
            .filter_map(|export| match export.ty() {
                ExternType::Func(kind) => {
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

#[derive(Clone, Copy)]
enum Export {
    Unit(TypedFunc<(), ()>),
    Version(TypedFunc<(), i64>),
    Malloc(TypedFunc<i32, i32>),
    Free(TypedFunc<i32, ()>),
    Method(TypedFunc<(i32, i32), i64>),
}

impl Export {
    fn find(name: &str, instance: &Instance, store: &Store<State>) -> Option<Self> {
        let function = instance.get_func(store, name)?;
        None.or_else(|| function.typed(store).ok().map(Self::Method))
            .or_else(|| function.typed(store).ok().map(Self::Malloc))
            .or_else(|| function.typed(store).ok().map(Self::Free))
            .or_else(|| function.typed(store).ok().map(Self::Version))
            .or_else(|| function.typed(store).ok().map(Self::Unit))
    }

    fn call(
        &self,
        store: &mut impl AsContextMut<Data = State>,
        first: u32,
        second: u32,
    ) -> Result<u64, Error> {
        let (first, second) = (first.cast_signed(), second.cast_signed());
        match self {
            Self::Unit(function) => sliced(store, function, ()).map(|()| 0),
            Self::Version(function) => sliced(store, function, ()).map(i64::cast_unsigned),
            Self::Malloc(function) => {
                sliced(store, function, first).map(|given: i32| u64::from(given.cast_unsigned()))
            }
            Self::Free(function) => sliced(store, function, first).map(|()| 0),
            Self::Method(function) => {
                sliced(store, function, (first, second)).map(i64::cast_unsigned)
            }
        }
    }
}

/// The limits of a guest, and one of the interpreter's own.
struct Limits(StoreLimits);

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        self.0.memory_growing(current, desired, maximum)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        self.0.table_growing(current, desired, maximum)
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), LimiterError> {
        self.0.memory_grow_failed(error)
    }

    /// A trap where fuel ran out: wasmi 2.0.0 does not note where that was, as it does for all
    /// other instructions, and what is resumed begins again elsewhere with values of before.
    fn table_grow_failed(&mut self, error: &TableError) -> Result<(), LimiterError> {
        match error {
            TableError::OutOfFuel { .. } => Err(LimiterError::ResourceLimiterDeniedAllocation),
            other => self.0.table_grow_failed(other),
        }
    }

    fn instances(&self) -> usize {
        self.0.instances()
    }

    fn tables(&self) -> usize {
        self.0.tables()
    }

    fn memories(&self) -> usize {
        self.0.memories()
    }
}

/// What a call and the functions that it calls back share.
struct State {
    until: Instant,
    limits: Limits,
    memory: Option<Memory>,
    exports: Arc<HashMap<String, Export>>,
    /// What ended the call, where that was not a trap of the guest's.
    ended: Option<Ended>,
}

/// Run a function, slice by slice.
fn sliced<Params: WasmParams, Results: WasmResults>(
    store: &mut impl AsContextMut<Data = State>,
    function: &TypedFunc<Params, Results>,
    params: Params,
) -> Result<Results, Error> {
    // A call from within a function of the host may use up what the outer call had left: that
    // one looks at the clock the sooner.
    store.as_context_mut().set_fuel(FUEL_SLICE)?;
    let mut call = function.call_resumable(store.as_context_mut(), params)?;
    loop {
        call = match call {
            TypedResumableCall::Finished(results) => return Ok(results),
            // `State::ended` says more.
            TypedResumableCall::HostTrap(trap) => {
                return Err(Error::new(trap.host_error().to_string()));
            }
            TypedResumableCall::OutOfFuel(paused) => {
                let mut context = store.as_context_mut();
                if let Err(ended) = in_time(context.data().until) {
                    context.data_mut().ended = Some(ended);
                    return Err(Error::new("its time is up"));
                }
                context.set_fuel(FUEL_SLICE.max(paused.required_fuel()))?;
                paused.resume(context)?
            }
        };
    }
}

/// An instance.
struct Running {
    store: Store<State>,
    fuel: Option<Global>,
}

impl Running {
    fn new(loaded: &Loaded, wanted: Wanted) -> Result<Result<Self, Stop>, String> {
        let memory_bytes = usize::try_from(wanted.memory_bytes).unwrap_or(usize::MAX);
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory_bytes)
            .table_elements(MAX_TABLE_ELEMENTS as usize)
            .instances(1)
            .memories(1)
            .tables(MAX_TABLES)
            .build();
        let until = Instant::now() + wanted.time;
        let limits = Limits(limits);
        let state = State { until, limits, memory: None, exports: Arc::default(), ended: None };
        let mut store = Store::new(&loaded.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_fuel(FUEL_SLICE).map_err(|error| error.to_string())?;
        let functions: Vec<Extern> = wanted
            .imports
            .iter()
            .enumerate()
            .map(|(place, kind)| {
                Extern::Func(import(&mut store, Arc::clone(&wanted.host), place, kind))
            })
            .collect();
        let instance = match Instance::new(&mut store, &loaded.module, &functions) {
            Ok(instance) => instance,
            Err(error) => return Ok(Err(stopped(&mut store, "instantiation", &error))),
        };
        let fuel = instance.get_global(&store, &wanted.fuel);
        let mut found = HashMap::new();
        for name in &wanted.exports {
            let export = Export::find(name, &instance, &store)
                .ok_or_else(|| format!("the export {name} is no function of the ABI"))?;
            found.insert(name.clone(), export);
        }
        let memory = instance.get_memory(&store, MEMORY);
        let state = store.data_mut();
        state.memory = memory;
        state.exports = Arc::new(found);
        if let Ok(start) = instance.get_typed_func::<(), ()>(&store, START)
            && let Err(error) = sliced(&mut store, &start, ())
        {
            return Ok(Err(stopped(&mut store, "instantiation", &error)));
        }
        Ok(Ok(Self { store, fuel }))
    }
}

impl guest::Running for Running {
    fn begin(&mut self, time: Duration) {
        self.store.data_mut().until = Instant::now() + time;
    }

    fn fuel(&mut self) -> Option<i64> {
        self.fuel?.get(&self.store).i64()
    }

    fn set_fuel(&mut self, fuel: i64) -> bool {
        self.fuel.is_some_and(|counter| counter.set(&mut self.store, Val::I64(fuel)).is_ok())
    }

    fn memory_bytes(&self) -> u64 {
        held(&self.store)
    }
}

impl Guest for Running {
    fn run(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        run(&mut self.store, export, first, second)
    }

    fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        read(&self.store, pointer, size)
    }

    fn write(&mut self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        write(&mut self.store, pointer, data)
    }
}

/// A guest that calls its host, as the host sees it.
struct Caller<'a>(Calling<'a, State>);

impl Guest for Caller<'_> {
    fn run(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        run(&mut self.0, export, first, second)
    }

    fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        read(&self.0, pointer, size)
    }

    fn write(&mut self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        write(&mut self.0, pointer, data)
    }
}

/// A function of the host, to link. The clock is looked at after each call: fuel tells nothing
/// of what the host does.
fn import(
    store: &mut Store<State>,
    host: Arc<dyn Host>,
    place: usize,
    signature: &Signature,
) -> Func {
    let call = move |calling: Calling<'_, State>, arguments: &[u64]| {
        let mut caller = Caller(calling);
        let given = host.call(&mut caller, place, arguments);
        let state = caller.0.data_mut();
        let given = given
            .map_err(|error| Ended::Host(place, error))
            .and_then(|given| in_time(state.until).map(|()| given));
        given.map_err(|ended| {
            let error = Error::new("the host ended it");
            state.ended = Some(ended);
            error
        })
    };
    if signature.is_method() {
        // The ABI's own type: by a shorter way.
        return Func::wrap(store, move |calling: Calling<'_, State>, first: i32, second: i32| {
            let arguments = [first, second].map(|one| u64::from(one.cast_unsigned()));
            call(calling, &arguments).map(u64::cast_signed)
        });
    }
    let result = signature.result;
    let kind = FuncType::new(signature.params.iter().copied().map(kind), result.map(kind));
    Func::new(store, kind, move |calling, values, results| {
        let arguments: Vec<u64> = values.iter().map(unsigned).collect();
        let given = call(calling, &arguments)?;
        if let (Some(kind), Some(place)) = (result, results.first_mut()) {
            *place = match kind {
                Kind::I32 => Val::I32((given as u32).cast_signed()),
                Kind::I64 => Val::I64(given.cast_signed()),
            };
        }
        Ok(())
    })
}

fn kind(kind: Kind) -> ValType {
    match kind {
        Kind::I32 => ValType::I32,
        Kind::I64 => ValType::I64,
    }
}

fn unsigned(value: &Val) -> u64 {
    match value {
        Val::I32(value) => u64::from(value.cast_unsigned()),
        Val::I64(value) => value.cast_unsigned(),
        _ => 0, // no function of the agent takes anything else
    }
}

fn run(
    store: &mut impl AsContextMut<Data = State>,
    name: &str,
    first: u32,
    second: u32,
) -> Result<u64, Stop> {
    let Some(export) = store.as_context().data().exports.get(name).copied() else {
        return Err(Stop::trap(name, "there is no such export"));
    };
    export.call(store, first, second).map_err(|error| stopped(store, name, &error))
}

fn read(store: &impl AsContext<Data = State>, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
    let outside = || Stop::Outside { action: "read", pointer, size, held: held(store) };
    let context = store.as_context();
    let memory = context.data().memory.ok_or_else(outside)?;
    let from = pointer as usize;
    let range = from..from.checked_add(size).ok_or_else(outside)?;
    memory.data(context).get(range).map(<[u8]>::to_vec).ok_or_else(outside)
}

fn write(
    store: &mut impl AsContextMut<Data = State>,
    pointer: u32,
    data: &[u8],
) -> Result<(), Stop> {
    let memory = store.as_context().data().memory;
    let written =
        memory.is_some_and(|memory| memory.write(&mut *store, pointer as usize, data).is_ok());
    if written {
        return Ok(());
    }
    Err(Stop::Outside { action: "write", pointer, size: data.len(), held: held(store) })
}

fn held(store: &impl AsContext<Data = State>) -> u64 {
    let context = store.as_context();
    context.data().memory.map_or(0, |memory| memory.data_size(context) as u64)
}

fn stopped(store: &mut impl AsContextMut<Data = State>, export: &str, error: &Error) -> Stop {
    match store.as_context_mut().data_mut().ended.take() {
        Some(ended) => ended.stop(export),
        None => {
            let says = error.as_trap_code().and_then(said);
            Stop::trap(export, says.map_or_else(|| error.to_string(), str::to_owned))
        }
    }
}

/// A trap in the words that the agent has for it on each engine.
fn said(code: TrapCode) -> Option<&'static str> {
    Some(match code {
        TrapCode::StackOverflow => "call stack exhausted",
        TrapCode::MemoryOutOfBounds => "memory access out of bounds",
        TrapCode::TableOutOfBounds => "table access out of bounds",
        TrapCode::IndirectCallToNull => "indirect call to null",
        TrapCode::BadSignature => "indirect call of another type",
        TrapCode::IntegerOverflow => "integer overflow",
        TrapCode::IntegerDivisionByZero => "integer division by zero",
        TrapCode::BadConversionToInteger => "invalid conversion to integer",
        TrapCode::UnreachableCodeReached => "unreachable executed",
        // See `Limits`: nothing else makes it.
        TrapCode::GrowthOperationLimited => "a table grew by more than could be done at once",
        _ => return None,
    })
}
