//! Instances of the interpreter. Its own fuel keeps the deadline: a guest runs for a slice of
//! fuel, then the clock is looked at, and the guest goes on or ends.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmi::errors::{ErrorKind, InstantiationError, MemoryError, TableError};
use wasmi::{
    AsContext, AsContextMut, Caller as Calling, CompilationMode, Engine, Error, Extern, ExternType,
    Func, FuncType, Global, Instance, Memory, Module, ResourceLimiter, ResumableCall, Store,
    StoreLimits, StoreLimitsBuilder, TrapCode, Val, ValType,
};
use wasmi_core::LimiterError;

use super::compile::{EAGER, LAZY, MAGIC, START, engine};
use crate::guest::{
    self, Ended, Exported, Guest, Host, Kind, MAX_TABLE_ELEMENTS, MAX_TABLES, MEMORY, Signature,
    Stop, Wanted, call_host, guarded, in_time, says, trapped,
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
        guarded(|| {
            let engine = engine(stack_bytes, mode);
            let module = Module::new(&engine, wasm).map_err(|error| error.to_string())?;
            Ok(Self { engine, module })
        })
        .flatten()
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

/// An exported function of one of the ABI's types.
#[derive(Clone, Copy)]
struct Export {
    function: Func,
    params: usize,
    results: usize,
}

impl Export {
    fn find(name: &str, instance: &Instance, store: &Store<State>) -> Option<Self> {
        let function = instance.get_func(store, name)?;
        let kind = function.ty(store);
        let signature = Signature {
            params: kind.params().iter().map(known).collect::<Option<_>>()?,
            result: kind.results().first().map(|first| known(first).ok_or(())).transpose().ok()?,
        };
        let (params, results) = (kind.params().len(), kind.results().len());
        (results < 2 && signature.is_export()).then_some(Self { function, params, results })
    }

    fn call(
        &self,
        store: &mut impl AsContextMut<Data = State>,
        first: u32,
        second: u32,
    ) -> Result<u64, Error> {
        let given = [first, second].map(|one| Val::I32(one.cast_signed()));
        let mut result = [Val::I32(0)];
        let results = &mut result[..self.results];
        sliced(store, self.function, &given[..self.params], results)?;
        Ok(results.first().map_or(0, unsigned))
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
    fuel: Option<Global>,
    exports: Arc<HashMap<String, Export>>,
    /// What ended the call, where that was not a trap of the guest's.
    ended: Option<Ended>,
}

/// Run a function, slice by slice.
fn sliced(
    store: &mut impl AsContextMut<Data = State>,
    function: Func,
    params: &[Val],
    results: &mut [Val],
) -> Result<(), Error> {
    // A call from within a function of the host may use up what the outer call had left: that
    // one looks at the clock the sooner.
    store.as_context_mut().set_fuel(FUEL_SLICE)?;
    let mut call = function.call_resumable(store.as_context_mut(), params, results)?;
    loop {
        call = match call {
            ResumableCall::Finished => return Ok(()),
            // `State::ended` says more.
            ResumableCall::HostTrap(trap) => {
                return Err(Error::new(trap.host_error().to_string()));
            }
            ResumableCall::OutOfFuel(paused) => {
                let mut context = store.as_context_mut();
                if let Err(ended) = in_time(context.data().until) {
                    context.data_mut().ended = Some(ended);
                    return Err(Error::new("its time is up"));
                }
                context.set_fuel(FUEL_SLICE.max(paused.required_fuel()))?;
                paused.resume(context, results)?
            }
        };
    }
}

/// A guest in its store: in the store itself, or in what a function of the host gets of that.
struct InStore<S>(S);

/// An instance.
type Running = InStore<Store<State>>;

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
        let state =
            State { until, limits, memory: None, fuel: None, exports: Arc::default(), ended: None };
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
        let made = trapped("instantiation", || {
            Instance::new(&mut store, &loaded.module, &functions)
                .map_err(|error| stopped(&mut store, "instantiation", &error))
        });
        let instance = match made {
            Ok(instance) => instance,
            Err(stop) => return Ok(Err(stop)),
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
        state.fuel = fuel;
        state.exports = Arc::new(found);
        if let Some(start) = instance.get_func(&store, START) {
            let started = trapped("instantiation", || {
                sliced(&mut store, start, &[], &mut [])
                    .map_err(|error| stopped(&mut store, "instantiation", &error))
            });
            if let Err(stop) = started {
                return Ok(Err(stop));
            }
        }
        Ok(Ok(Self(store)))
    }
}

impl guest::Running for Running {
    fn begin(&mut self, time: Duration) {
        self.0.data_mut().until = Instant::now() + time;
    }

    fn set_fuel(&mut self, fuel: i64) -> bool {
        let counter = self.0.data().fuel;
        counter.is_some_and(|counter| counter.set(&mut self.0, Val::I64(fuel)).is_ok())
    }

    fn memory_bytes(&self) -> u64 {
        held(&self.0)
    }
}

impl<S: AsContextMut<Data = State>> Guest for InStore<S> {
    fn run(&mut self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        let Some(found) = self.0.as_context().data().exports.get(export).copied() else {
            return Err(Stop::trap(export, "there is no such export"));
        };
        let store = &mut self.0;
        trapped(export, || {
            found.call(store, first, second).map_err(|error| stopped(store, export, &error))
        })
    }

    fn read(&self, pointer: u32, size: usize) -> Result<Vec<u8>, Stop> {
        let outside = || Stop::Outside { action: "read", pointer, size, held: held(&self.0) };
        let context = self.0.as_context();
        let memory = context.data().memory.ok_or_else(outside)?;
        let from = pointer as usize;
        let range = from..from.checked_add(size).ok_or_else(outside)?;
        memory.data(context).get(range).map(<[u8]>::to_vec).ok_or_else(outside)
    }

    fn write(&mut self, pointer: u32, data: &[u8]) -> Result<(), Stop> {
        let memory = self.0.as_context().data().memory;
        if memory.is_some_and(|memory| memory.write(&mut self.0, pointer as usize, data).is_ok()) {
            return Ok(());
        }
        let (size, held) = (data.len(), held(&self.0));
        Err(Stop::Outside { action: "write", pointer, size, held })
    }

    fn fuel(&mut self) -> Option<i64> {
        let context = self.0.as_context();
        context.data().fuel?.get(context).i64()
    }
}

/// A function of the host, to link.
fn import(
    store: &mut Store<State>,
    host: Arc<dyn Host>,
    place: usize,
    signature: &Signature,
) -> Func {
    let call = move |calling: Calling<'_, State>, arguments: &[u64]| {
        let until = calling.data().until;
        let mut guest = InStore(calling);
        call_host(&*host, &mut guest, place, arguments, until).map_err(|ended| {
            guest.0.data_mut().ended = Some(ended);
            Error::new("the host ended it")
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

/// None: no function of the ABI takes or gives that.
fn known(kind: &ValType) -> Option<Kind> {
    match kind {
        ValType::I32 => Some(Kind::I32),
        ValType::I64 => Some(Kind::I64),
        _ => None,
    }
}

fn unsigned(value: &Val) -> u64 {
    match value {
        Val::I32(value) => u64::from(value.cast_unsigned()),
        Val::I64(value) => value.cast_unsigned(),
        _ => 0, // no function of the agent takes anything else
    }
}

fn held(store: &impl AsContext<Data = State>) -> u64 {
    let context = store.as_context();
    context.data().memory.map_or(0, |memory| memory.data_size(context) as u64)
}

fn stopped(store: &mut impl AsContextMut<Data = State>, export: &str, error: &Error) -> Stop {
    match store.as_context_mut().data_mut().ended.take() {
        Some(ended) => ended.stop(export),
        None => {
            let says = match error.kind() {
                // Its own words name numbers of the store.
                ErrorKind::Instantiation(InstantiationError::ElementSegmentDoesNotFit {
                    ..
                }) => Some(says::TABLE),
                _ => error.as_trap_code().and_then(said),
            };
            Stop::trap(export, says.map_or_else(|| error.to_string(), str::to_owned))
        }
    }
}

/// A trap in the words that the agent has for it on each engine.
fn said(code: TrapCode) -> Option<&'static str> {
    Some(match code {
        TrapCode::StackOverflow => says::STACK,
        TrapCode::MemoryOutOfBounds => says::MEMORY,
        TrapCode::TableOutOfBounds => says::TABLE,
        TrapCode::IndirectCallToNull => says::NULL,
        TrapCode::BadSignature => says::SIGNATURE,
        TrapCode::IntegerOverflow => says::OVERFLOW,
        TrapCode::IntegerDivisionByZero => says::DIVISION,
        TrapCode::BadConversionToInteger => says::CONVERSION,
        TrapCode::UnreachableCodeReached => says::UNREACHABLE,
        // See `Limits`: nothing else makes it.
        TrapCode::GrowthOperationLimited => "a table grew by more than could be done at once",
        _ => return None,
    })
}
